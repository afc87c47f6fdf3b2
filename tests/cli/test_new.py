"""`lcg new`: skeletons of users' classes that hold what they promise as they are written."""

import subprocess
import sys
from pathlib import Path

import pytest

from lcg.commands.new import KINDS

REFUSED = {
    "tasks rotate": "there is no skeleton of tasks; did you mean task?",
    "task Rotate": "NAME is 'Rotate'; write a small letter, and then up to 63 small letters",
    "task ../rotate": "NAME is '../rotate'; write a small letter",
    "task 2": "NAME is '2'; write a small letter",
    "attention softmax": "softmax is a normalizer of lcg; choose another name",
    "task raise": "raise means something else in Python or in lcg; choose another name",
    "position none": "none means something else in Python or in lcg",
    "task task": "task means something else in Python or in lcg",
    "task random": "there is a module random already, which random.py would hide",
}


@pytest.mark.parametrize("group", KINDS)
def test_a_skeleton_passes_its_checks_and_its_test(group, call, here, fork_server):
    code, out, err = call("new", group, "shift_by_two")
    assert (code, err) == (0, "")
    assert f"lcg check {group}=./shift_by_two.py:ShiftByTwo" in out
    code, checked, err = call("check", f"{group}=./shift_by_two.py:ShiftByTwo")
    assert (code, err) == (0, ""), checked
    words = ("-q", "-p", "no:cacheprovider", "test_shift_by_two.py")
    pytest_main = "import pytest, sys; sys.path.insert(0, ''); raise SystemExit(pytest.main())"
    tested = fork_server.run(*words, folder=here, before=pytest_main)
    assert tested.code == 0, tested.out
    assert "Replace" in Path("test_shift_by_two.py").read_text()
    ruff = [Path(sys.executable).parent / "ruff", "check", "--isolated", "--select=E,F,UP,B"]
    linted = subprocess.run([*ruff, "--line-length=100", "."], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("words", REFUSED)
def test_refused_commands_write_nothing(words, call, written):
    code, out, err = call("new", *words.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"lcg: {REFUSED[words]}") and err.count("\n") == 1
    assert not written()


@pytest.mark.parametrize("file", ["mine.py", "test_mine.py"])
def test_existing_files_are_kept(file, call, written):
    Path(file).write_text("# mine\n")
    code, _, err = call("new", "task", "mine")
    assert (code, err) == (
        2,
        f"lcg: {file} is there already; choose another name, or remove it\n",
    )
    assert written() == {Path(file).absolute()} and Path(file).read_text() == "# mine\n"
