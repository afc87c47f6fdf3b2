"""`lcg report`: what it writes, what it says, and what it refuses before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lcg.cli import main


def test_it_writes_one_page_and_prints_its_path(folder: Path, tmp_path: Path, capsys) -> None:
    page = tmp_path / "report.html"
    assert main(["report", str(folder), "-o", str(page), "--no-maps"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{page}\n"
    assert err == ""
    html = page.read_text()
    assert f"lcg report {folder} -o {page} --no-maps" in html, "the command that made it"
    assert list(tmp_path.iterdir()) == [page], "nothing beside it, no temporary file"


def test_unreadable_runs_are_reported_and_the_rest_is_shown(
    tmp_path: Path, run_of, write, capsys
) -> None:
    good = write(tmp_path / "runs", run_of({32: 200, 64: 100}), rows=3)
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "results.json").write_text('{"schema": 1,')
    run_of({32: 1}).save(tmp_path / "runs" / "twice")
    page = tmp_path / "report.html"
    missing = tmp_path / "nowhere"
    words = [str(tmp_path / "runs"), str(missing), str(good), "--no-maps", "-o", str(page)]
    assert main(["report", *words]) == 0
    lines = sorted(capsys.readouterr().err.splitlines())
    assert len(lines) == 3
    assert lines[0].startswith(f"left out: {missing}: no such folder")
    assert lines[1].startswith(f"left out: {broken}/results.json: not valid JSON")
    assert lines[2].startswith(f"left out: {tmp_path}/runs/twice: the same run as {good}")
    html = page.read_text()
    assert "Left out" in html and "not valid JSON" in html and "no such folder" in html


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: runs"),
        (["empty"], "no runs to report | empty: no results.json"),
        (["nowhere"], "nowhere: no such folder"),
        (["RUNS", "-o", "absent/report.html"], "there is no folder absent; make it first"),
        (["RUNS", "-o", "x.txt"], "-o x.txt: a report is HTML; name a .html file"),
        (["RUNS", "-o", "empty"], "empty is a folder; name a file"),
        (["RUNS", "--heads", "3"], "--heads 3: '3' is not LAYER:HEAD"),
        (["RUNS", "--map-length", "0"], "a length is at least 1"),
        (["RUNS", "--map-length", "long"], "argument --map-length: invalid int value"),
        (["RUNS", "--wandb", "project"], "--wandb project: name it as ENTITY/PROJECT"),
        (["RUNS", "--colour"], "there is no option --colour"),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    words: list[str], message: str, folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    given = [str(folder) if word == "RUNS" else word for word in words]
    assert main(["report", *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_help_and_mistakes_do_not_wait_for_libraries() -> None:
    script = (
        "import sys\nfrom lcg.cli import main\n"
        "assert main(['report', 'nowhere']) == 2\n"
        "heavy = {'matplotlib', 'torch', 'lightning', 'numpy', 'wandb', 'jinja2'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
