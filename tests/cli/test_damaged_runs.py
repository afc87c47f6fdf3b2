"""Runs of which a file is damaged, a directory that is gone: one line each, the others go on."""

import json
import os
import shutil
import sys

import pytest
from processes import record
from tiny import quick


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run."""
    from lcg.cli import main

    runs = tmp_path_factory.mktemp("damaged")
    assert main(["train", *quick(f"runs={runs}")]) == 0
    (run,) = runs.iterdir()
    return run


@pytest.fixture
def runs(trained, here):
    """Two copies of it, `bad` to be spoiled."""
    for name in ("bad", "good"):
        shutil.copytree(trained, here / "runs" / name)
    record = json.loads((here / "runs/good/results.json").read_text())
    (here / "runs/good/results.json").write_text(json.dumps(record | {"run": "good"}))
    return here / "runs"


def folder(path):
    path.unlink()
    path.mkdir()


SPOILED = {
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda path: path.write_text("[1, 2]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a folder": folder,
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize("file", ["config.yaml", "results.json"])
def test_eval_names_the_file_and_continues(call, runs, file, spoil):
    spoil(runs / "bad" / file)
    words = ("lengths=5", "samples=4")
    code, _, err = call("eval", str(runs / "bad"), str(runs / "good"), *words)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("lcg: ")]
    assert "runs/bad" in line and "Traceback" not in err
    lengths = [cell["length"] for cell in record(runs / "good")["ladder"]]
    assert lengths == [4, 5, 8]
    code, _, err = call("eval", str(runs / "bad"), *words)
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_damaged_record_is_renamed_and_training_continues(trained, here, call, tiny, spoil):
    run = here / "runs" / trained.name
    shutil.copytree(trained, run)
    before = record(run)
    spoil(run / "results.json")
    code, _, err = call("train", *tiny(f"runs={here / 'runs'}"))
    assert code == 0, err
    assert "results.json: " in err and "renamed to results.json.damaged" in err
    assert (run / "results.json.damaged").exists()
    after = record(run)
    for part in (before, after):
        part["training"].pop("seconds")
        for cell in part["ladder"]:
            cell.pop("seconds")
    assert after == before


GONE = "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"


@pytest.mark.skipif(sys.platform != "linux", reason="others do not let go of a current folder")
@pytest.mark.parametrize(
    "words",
    [["list"], ["table", "{runs}"], ["train", "task=copy"], ["--help"], ["show", "task=copy"]],
)
def test_a_current_folder_that_is_gone(process, runs, words):
    words = [word.format(runs=runs) for word in words]
    done = process("-c", GONE + f"from lcg.cli import main; sys.exit(main({words!r}))")
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1, 2)
    if done.returncode:
        assert done.stderr.splitlines()[-1].startswith("lcg: ")


def test_a_read_only_run_is_refused_before_the_work(call, runs, monkeypatch):
    from lcg.runs import record as records

    def refuse(path):
        raise OSError(30, os.strerror(30), str(path))

    monkeypatch.setattr(records, "exclusively", refuse)
    code, _, err = call("eval", str(runs / "good"), "lengths=6")
    assert code == 1
    assert err.splitlines()[-1].endswith("good/.results.lock: Read-only file system")
    assert "exact match" not in err
    assert call("table", str(runs / "good"))[0] == 0
    assert call("eval", str(runs / "good"), "lengths=4", "samples=16")[0] == 0, "all is there"
