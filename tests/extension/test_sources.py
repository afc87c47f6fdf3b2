"""A run directory holds the code of its users' classes, and says where it differs from theirs."""

import importlib
import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from tiny import quick
from user_files import NORMALIZER, ROTATE

from lcg.cli import main
from lcg.config import load_config
from lcg.models.transformer import build_model

FLAG = "--trust-source"
QUICK = " ".join(quick("data.min_length=3", "evaluation.after_training=false"))
NEIGHBOUR = ROTATE.replace("= 5", "= SYMBOLS").replace(
    "import numpy", "from helper import SYMBOLS\nimport numpy"
)


@pytest.fixture
def lcg(folder, monkeypatch, capsys):
    """Run `lcg` in the user's folder, each time as a new process would, and require its exit code.

    Returns its stdout, or what it said on stderr where it failed.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def lcg(words: str, code: int = 0) -> str:
        for name in [name for name in sys.modules if name.startswith("lcg_user_")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        capsys.readouterr()
        found = main(shlex.split(words))
        out, err = capsys.readouterr()
        assert found == code, out + err
        lcg.said = err
        return out if code == 0 else err

    return lcg


def train(lcg, words: str) -> str:
    return lcg(f"train {words} {QUICK}").strip()


def record(folder: Path, run: str) -> dict:
    return json.loads((folder / run / "results.json").read_text())


def cells(folder: Path, run: str) -> list[tuple]:
    return [(cell["length"], cell["outcomes"]) for cell in record(folder, run)["ladder"]]


@pytest.fixture
def trained(lcg, write, folder):
    """A run of a task with a neighbour; its file, and what it answered at once."""
    write("helper.py", "SYMBOLS = 6\n")
    file = write("rotate.py", NEIGHBOUR)
    run = train(lcg, "task=./rotate.py:Rotate task.shift=2")
    lcg(f"eval {run} lengths=8 samples=40")
    return run, file, cells(folder, run)


def again(folder: Path, run: str) -> None:
    """Forget what was evaluated."""
    path = folder / run / "results.json"
    path.write_text(json.dumps(record(folder, run) | {"ladder": []}))


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("rotate.py", lambda text: text.replace("+ self.shift", "- self.shift")),
        ("helper.py", lambda text: text.replace("6", "5")),
    ],
)
def test_an_edited_class_is_reported_and_the_run_keeps_its_copy(lcg, trained, folder, file, edit):
    run, _, first = trained
    own = folder / file
    own.write_text(edit(own.read_text()))
    again(folder, run)
    for command in (f"eval {run} lengths=8 samples=40", f"inspect {run} --length 8 --samples 4"):
        err = lcg(command, code=2)
        assert f"sources/task/{file} differs from {own}" in err
        assert FLAG in err
        assert err.count("\n") == 1
    lcg(f"eval {run} lengths=8 samples=40 {FLAG}")
    assert cells(folder, run) == first
    other = train(lcg, "task=./rotate.py:Rotate task.shift=2")
    assert other != run, "the same command trains a run of its own"


def test_comments_and_docstrings_change_nothing(lcg, trained, folder):
    run, file, first = trained
    file.write_text(file.read_text().replace("Rotate the source.", "Turn it.") + "# the end\n")
    again(folder, run)
    lcg(f"eval {run} lengths=8 samples=40")
    assert cells(folder, run) == first
    assert train(lcg, "task=./rotate.py:Rotate task.shift=2") == run


def test_a_file_may_be_renamed_or_moved(lcg, trained, folder):
    run, file, first = trained
    (folder / "moved").mkdir()
    for own in (file, folder / "helper.py"):
        own.rename(folder / "moved" / own.name)
    again(folder, run)
    err = lcg(f"eval {run} lengths=8 samples=40", code=2)
    assert f"has no original on this machine in {folder}" in err
    lcg(f"eval {run} lengths=8 samples=40 {FLAG}")
    assert cells(folder, run) == first
    (folder / "moved/rotate.py").rename(folder / "moved/turn.py")
    assert train(lcg, "task=moved/turn.py:Rotate task.shift=2") == run


def test_another_machine(lcg, trained, folder, tmp_path):
    """The run alone is moved, and the user's files are gone; a file of that name is there."""
    run, file, first = trained
    there = tmp_path / "there" / "received"
    shutil.copytree(folder / run, there)
    shutil.rmtree(folder / "runs")
    for own in (file, folder / "helper.py"):
        own.unlink()
    (folder / "helper.py").write_text("raise RuntimeError('not the helper of the run')\n")
    again(there.parent, "received")
    err = lcg(f"eval {there} lengths=8 samples=40", code=2)
    assert "has no original" in err
    lcg(f"eval {there} lengths=8 samples=40 {FLAG}")
    assert cells(there.parent, "received") == first


def test_results_are_read_without_running_code(lcg, trained, folder):
    run, file, _ = trained
    trap = "raise RuntimeError('this must not run')\n"
    for path in [file, *(folder / run / "sources").rglob("*.py")]:
        path.write_text(path.read_text() + trap)
    for command in (f"table {run}", f"plot {run} -o a.png", f"report {run} -o a.html"):
        lcg(command)
        assert f"note: {file}:Rotate has changed since" in lcg.said
    lcg(f"select {run}")
    assert f"note: {file}:Rotate has changed since" in lcg.said
    page = (folder / "a.html").read_text()
    assert FLAG in page
    assert "RuntimeError" not in page


def test_a_received_run_cannot_vouch_for_itself(lcg, trained, folder):
    """Its copies are no originals, wherever its list says that these are."""
    run, _, _ = trained
    copy = folder / run / "sources/task/rotate.py"
    copy.write_text(copy.read_text() + "print('never')\n")
    origins = folder / run / "sources/origins.json"
    facts = json.loads(origins.read_text())
    for root in (copy.parent, folder / "runs", Path(run) / "sources/task"):
        shutil.copy(copy, folder / "runs")
        shutil.copy(copy.with_name("helper.py"), folder / "runs")
        facts["task"]["root"] = str(root)
        origins.write_text(json.dumps(facts))
        assert f"{copy.name} has no original" in lcg(f"eval {run} lengths=8", code=2)


@pytest.mark.parametrize("way", ["link", "extra", "missing", "installed"])
def test_a_received_run_imports_nothing_else(lcg, write, trained, folder, way):
    """By a link, a file that the user's class has not, one that is lacking, or an installed one."""
    run, _, _ = trained
    copies = folder / run / "sources/task"
    evil = write("evil/__init__.py", "raise RuntimeError('this must not run')\n")
    said = "has no copy in"
    if way == "link":
        (copies / "helper.py").unlink()
        (copies / "helper").symlink_to(evil.parent)
        said = "contains symbolic links"
    elif way == "extra":
        (copies / "helper").mkdir()
        shutil.copy(evil, copies / "helper")
        said = "has no original"
    elif way == "missing":
        (copies / "helper.py").unlink()
    else:
        config = folder / run / "config.yaml"
        config.write_text(config.read_text().replace("sources/task:rotate:Rotate", "yaml:Loader"))
        said = "is of an installed package that does not require lcg"
    err = lcg(f"eval {run} lengths=8", code=2)
    assert said in err
    assert FLAG in err


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("open(__file__[:-9] + 'data.txt').read()", "a copy of it fails"),
        ("import sys; sys.path.insert(0, __file__[:-9] + 'far'); import farlib", "imports farlib"),
    ],
)
def test_a_class_that_a_run_could_not_keep_is_not_trained(lcg, write, folder, code, said):
    write("data.txt", "1")
    write("far/farlib.py", "BY = 1\n")
    write("rotate.py", f"{code}\n{ROTATE}")
    err = lcg(f"train task=./rotate.py:Rotate {QUICK}", code=2)
    assert said in err
    assert err.splitlines()[-1].startswith("lcg: ")
    assert not (folder / "runs").exists()


def test_a_class_that_exits_is_a_class_that_is_wrong(lcg, write):
    for code in (0, 1, 3, 130):
        leave = f"def sample(self, rng, lengths):\n        raise SystemExit({code})\n"
        file = write(f"leaves{code}.py", ROTATE.replace("def sample", leave + "    def other"))
        for command in (f"show task={file}:Rotate", f"train task={file}:Rotate {QUICK}"):
            assert f"Rotate.sample(): {file}:13: SystemExit: {code}" in lcg(command, code=2)


def test_nothing_of_a_received_config_is_resolved(lcg, write, folder):
    run = train(lcg, "task=copy")
    config = folder / run / "config.yaml"
    config.write_text(config.read_text().replace("project: lcg", "project: ${oc.env:HOME}"))
    text = config.read_text()
    assert "${oc.env:HOME}" in text
    lcg(f"eval {run} lengths=8 samples=8")
    for name in ("./evil.py:Evil", f"{folder}/evil.py:Evil", "evil:Evil", "sources/task:evil:Evil"):
        write("evil.py", "raise RuntimeError('this must not run')\n")
        config.write_text(
            config.read_text().replace("task:\n  name: copy", f"task:\n  name: {name}")
        )
        err = lcg(f"eval {run} lengths=8", code=2)
        assert FLAG in err, err
        config.write_text(config.read_text().replace(f"name: {name}", "name: copy"))


def test_two_classes_of_one_name_never_meet(lcg, write, folder):
    """In one directory, in one process, or by neighbours of one name."""
    for place, heat in (("a", 1.0), ("b", 3.0)):
        write(f"{place}/warmth.py", f"HEAT = {heat}\n")
        text = NORMALIZER.replace("heat: float = 1.0", "heat: float = HEAT")
        write(f"{place}/mine.py", "from warmth import HEAT\n" + text)
    words = "task=copy attention=./{}/mine.py:Mine"
    one, other = (train(lcg, words.format(place)) for place in "ab")
    assert one != other
    named = [train(lcg, words.format("a") + " name=mine")]
    err = lcg(f"train {words.format('b')} name=mine {QUICK}", code=2)
    assert "another config" in err
    assert len(lcg(f"table {one} {other} {named[0]}").splitlines()) > 3
    lcg(f"inspect {one} --length 8 --samples 4 --compare {other}")
    # A folder of another name with the same code is the same run.
    shutil.copytree(folder / "a", folder / "c")
    assert train(lcg, words.format("c")) == one


def test_a_package_travels_whole(lcg, write, folder):
    write("my_pkg/__init__.py", "")
    write("my_pkg/sizes.py", "SYMBOLS = 6\n")
    write("my_pkg/unused.py", "raise RuntimeError\n")
    write("my_pkg/deep/__init__.py", "from my_pkg.sizes import SYMBOLS\n")
    own = ROTATE.replace("= 5", "= SYMBOLS")
    write(
        "my_pkg/rotate.py", own.replace("import numpy", "from .deep import SYMBOLS\nimport numpy")
    )
    run = train(lcg, "task=my_pkg.rotate:Rotate")
    copies = (folder / run / "sources/task").rglob("*.py")
    assert {str(p.relative_to(folder / run / "sources/task")) for p in copies} == {
        *("my_pkg/__init__.py", "my_pkg/sizes.py", "my_pkg/rotate.py", "my_pkg/deep/__init__.py")
    }
    lcg(f"eval {run} lengths=8 samples=8")
    shutil.rmtree(folder / "my_pkg")
    assert FLAG in lcg(f"eval {run} lengths=9 samples=8", code=2)
    lcg(f"eval {run} lengths=9 samples=8 {FLAG}")


@pytest.mark.parametrize("name", ["copy", "entmax", "yaml", "helper"])
def test_a_file_may_be_called_as_anything_else_is(lcg, write, folder, monkeypatch, name):
    """As a module of Python, an installed one, or another file that Python would find first."""
    write("elsewhere/helper.py", "raise RuntimeError('another file of this name')\n")
    monkeypatch.syspath_prepend(folder / "elsewhere")
    write(
        f"mine/{name}.py", "import copy, yaml\nassert copy.deepcopy and yaml.safe_load\n" + ROTATE
    )
    run = train(lcg, f"task=mine/{name}.py:Rotate")
    assert (folder / run / f"sources/task/{name}.py").exists()
    lcg(f"eval {run} lengths=8 samples=8")
    shutil.rmtree(folder / "mine")
    lcg(f"eval {run} lengths=9 samples=8 {FLAG}")


RANDOM = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from lcg.positional.rotary import RoPE
@dataclass
class Drawn(RoPE):
    name: ClassVar[str] = "drawn"
    def draw_positions(self, rng, lengths, training):
        return np.sort(rng.random((len(lengths), 4096)).argsort(axis=1)[:, : lengths.max()], axis=1)
"""
STALE = """
from dataclasses import dataclass
from typing import ClassVar
import torch
from lcg.positional.rotary import RoPE
@dataclass
class Stale(RoPE):
    name: ClassVar[str] = "stale"
    def positions(self, length, device=None):
        return torch.rand(4096, device=device).topk(length).indices.sort().values
"""


def test_draws_of_an_encoding_are_the_same_in_every_evaluation(lcg, write, folder):
    write("drawn.py", RANDOM)
    run = train(lcg, "task=copy position=./drawn.py:Drawn")
    found = []
    for words in ("", "batch_size=3", ""):
        again(folder, run)
        lcg(f"eval {run} lengths=8 samples=200 {words}")
        (cell,) = record(folder, run)["ladder"]
        found.append({key: value for key, value in cell.items() if key != "seconds"})
    assert found[0] == found[1] == found[2]


def test_an_encoding_whose_draws_cannot_repeat_is_refused(write, folder):
    write("stale.py", STALE)
    with pytest.raises(ValueError, match=r"Stale\.positions\(\) draws, .* draw in draw_positions"):
        build_model(load_config([f"position={folder}/stale.py:Stale"]))


def test_another_version_of_a_package_is_reported(lcg, write, folder, monkeypatch):
    """And is part of what the class is, but keeps nobody from evaluating the run."""
    import importlib.metadata

    write("rotate.py", "import tqdm\n" + ROTATE)
    run = train(lcg, "task=./rotate.py:Rotate")
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "9.9" if name == "tqdm" else version(name)
    )
    lcg(f"eval {run} lengths=8 samples=8")
    assert f"it was trained with tqdm {version('tqdm')}; installed is 9.9" in lcg.said
    assert train(lcg, "task=./rotate.py:Rotate") != run


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("min_length = 10**9", "Rotate.min_length is 1,000,000,000: the shortest length of a task"),
        ("min_length = 'a'", "Rotate.min_length is 'a', expected a whole number"),
        ("symbols: int = 10**12", "makes a vocabulary of 1,000,000,000,005 tokens; at most"),
    ],
)
def test_absurd_sizes_of_a_task_are_one_line(lcg, write, line, said):
    write(
        "rotate.py", ROTATE.replace("    symbols: int = 5\n", f"    symbols: int = 5\n    {line}\n")
    )
    for command in ("show", "check", "train"):
        err = lcg(f"{command} task=./rotate.py:Rotate", code=2)
        assert said in err
        assert err.count("\n") == 1
