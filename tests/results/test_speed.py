"""Many runs become a table; `python -m benchmarks.aggregate` prints in how many seconds."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_thousand_runs(tmp_path: Path, monkeypatch) -> None:
    """Each of those that the benchmark makes up is in the table that it times."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    from benchmarks import aggregate

    monkeypatch.chdir(ROOT)
    for index in range(1000):
        aggregate.make_run(tmp_path, index)
    aggregate.check(tmp_path, 1000)
