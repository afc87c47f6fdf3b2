"""A thousand runs become a table in seconds."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_thousand_runs(tmp_path: Path, monkeypatch) -> None:
    """Processor time, since this machine may be busy; the benchmark prints both."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    from benchmarks import aggregate

    monkeypatch.chdir(ROOT)
    for index in range(1000):
        aggregate.make_run(tmp_path, index)
    aggregate.check(tmp_path, 1000)
    for form in aggregate.FORMATS:
        _, processor = aggregate.seconds(tmp_path, form)
        assert processor < aggregate.BOUND, form
