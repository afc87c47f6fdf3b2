"""A user's own classes, from a folder whose `tasks/` and `configs/` are not ours."""

import json
import os
from pathlib import Path

import pytest

ROTATE = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from lcg.tasks.base import Task, uniform
@dataclass
class Rotate(Task):
    \"\"\"Rotate the source.\"\"\"
    name: ClassVar[str] = "rotate"
    symbols: int = 5
    shift: int = 1
    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        places = (np.arange(lengths.max()) + self.shift) % lengths[:, None]
        return source, np.take_along_axis(source, places, axis=1)
"""
NORMALIZER = """
from dataclasses import dataclass
from typing import ClassVar
from lcg.attention.normalizers.softmax import Softmax
@dataclass
class Mine(Softmax):
    name: ClassVar[str] = "mine"
    heat: float = 1.0
    def __call__(self, scores, keys, learned):
        return super().__call__(scores / self.heat, keys, learned)
"""
POSITION = """
from dataclasses import dataclass
from typing import ClassVar
from lcg.positional.rotary import RoPE
@dataclass
class MyPE(RoPE):
    name: ClassVar[str] = "my_pe"
    base: float = 500.0
"""
TINY = (
    "model.d_model=16 model.heads=2 model.d_ff=16 data.batch_size=8 data.min_length=3 "
    "data.max_length=4 trainer.steps=3 optimizer.warmup_steps=2 trainer.accelerator=cpu "
    "validation.lengths=4 validation.samples=8 evaluation.lengths=4,8 evaluation.samples=8"
)
# The installed command, the module, and the module with the user's folder first on the path.
WAYS = {
    "lcg": ("lcg", {}),
    "python -m lcg": ("python -m lcg", {}),
    "PYTHONPATH=.": ("lcg", {"PYTHONPATH": "."}),
    "python -m lcg, PYTHONPATH=.": ("python -m lcg", {"PYTHONPATH": "."}),
}
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def write(folder):
    def write(path: str, text: str) -> Path:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


@pytest.fixture
def lcg(shell):
    """Run `lcg` in one of the ways; returns its stdout, and requires the exit code."""

    def lcg(words: str, way: str = "lcg", code: int = 0, folder: str = ".") -> str:
        program, variables = WAYS[way]
        done = shell(f"cd {folder}; {program} {words}", **variables)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    return lcg


@every_way
def test_folders_named_like_ours_shadow_nothing(way, lcg):
    out = lcg("list", way)
    assert "The target is the source read from its end." in out
    assert "alibi" in out
    assert "  mine  " in out, "the user's experiments are listed"
    assert "quick/copy" in out, "beside ours"
    assert lcg("show experiment=mine", way).startswith("reverse, nominal length 8")
    assert lcg("show task=copy", way).startswith("copy, nominal length 8")


@every_way
def test_a_file_of_one_s_own(way, lcg, write):
    write("tasks/rotate.py", ROTATE)  # beside the traps
    out = lcg("show task=./tasks/rotate.py:Rotate task.shift=2 length=5 count=1", way)
    named = {line.split()[0]: line.split()[1:] for line in out.split("\n\n")[1].splitlines()}
    assert named["target"] == named["source"][2:] + named["source"][:2]
    assert "did you mean task.shift?" in lcg(
        "show task=./tasks/rotate.py:Rotate task.shfit=2", way, 2
    )


@every_way
def test_a_package_of_one_s_own(way, lcg, write):
    write("my_pkg/__init__.py", "")
    write("my_pkg/helper.py", "SYMBOLS = 6\n")
    write(
        "my_pkg/rotate.py",
        ROTATE.replace("= 5", "= SYMBOLS").replace(
            "import numpy", "from my_pkg.helper import SYMBOLS\nimport numpy"
        ),
    )
    out = lcg("train task=my_pkg.rotate:Rotate --help", way)
    assert "task my_pkg.rotate:Rotate: Rotate the source." in out
    assert "task.symbols=6" in out


@every_way
def test_a_package_called_tasks_lives_beside_ours(way, lcg, write, folder):
    write("tasks/__init__.py", "")
    (folder / "tasks/base.py").unlink()
    write("tasks/helper.py", "SYMBOLS = 6\n")
    text = ROTATE.replace("= 5", "= SYMBOLS")
    write(
        "tasks/rotate.py",
        text.replace("import numpy", "from tasks.helper import SYMBOLS\nimport numpy"),
    )
    assert "task.symbols=6" in lcg("train task=tasks.rotate:Rotate --help", way)
    write("tasks/older.py", ROTATE.replace("lcg.tasks.base", "tasks.base"))
    err = lcg("show task=tasks.older:Rotate", way, 2)
    assert "No module named 'tasks.base'; lcg's own is lcg.tasks.base" in err


def test_a_file_may_import_its_neighbours(lcg, write):
    write("deep/helper.py", "SYMBOLS = 6\n")
    write(
        "deep/rotate.py",
        ROTATE.replace("= 5", "= SYMBOLS").replace(
            "import numpy", "from helper import SYMBOLS\nimport numpy"
        ),
    )
    assert "task.symbols=6" in lcg("train task=deep/rotate.py:Rotate --help")


def test_two_files_of_one_name_are_two_modules(lcg, write):
    write("a/rotate.py", ROTATE)
    write("b/rotate.py", NORMALIZER)
    out = lcg("train task=a/rotate.py:Rotate attention=b/rotate.py:Mine --help")
    assert "task.shift=1" in out
    assert "attention.normalizer.heat=1" in out


def test_a_whole_run_of_one_s_own_classes(lcg, write, folder):
    """All three kinds, in YAML and on the command line; found again from another folder."""
    write("rotate.py", ROTATE)
    write("mine.py", NORMALIZER)
    write("my_pe.py", POSITION)
    write("configs/attention/hot.yaml", "# Hot.\nnormalizer: {name: ./mine.py:Mine, heat: 2.0}\n")
    assert "Hot." in lcg("list attentions")
    words = "task=./rotate.py:Rotate task.shift=2 attention=hot position=./my_pe.py:MyPE"
    # With a worker: a process of its own must find the classes too.
    run = lcg(f"train {words} data.workers=1 {TINY}").strip()
    assert run.startswith("runs/rotate-hot-my_pe-s0-")
    provenance = json.loads((folder / run / "provenance.json").read_text())
    sources = {Path(path).name for path in provenance["user_sources"]}
    assert sources == {"rotate.py", "mine.py", "my_pe.py"}
    lcg("eval ../" + run + " lengths=16 samples=8", folder="configs")
    cells = json.loads((folder / run / "results.json").read_text())["ladder"]
    assert [cell["length"] for cell in cells] == [4, 8, 16]


def test_a_path_in_a_file_is_relative_to_the_current_folder(lcg, write, folder):
    write("mine.py", NORMALIZER)
    write("configs/attention/hot.yaml", "normalizer: {name: ./mine.py:Mine, heat: 2.0}\n")
    (folder / "below").mkdir()
    os.symlink(folder / "configs", folder / "below" / "configs")
    assert "heat=2" in lcg("train attention=hot --help")
    err = lcg("train attention=hot --help", code=2, folder="below")
    assert f"there is no file ./mine.py (looked for {folder}/below/mine.py)" in err


def test_a_run_whose_file_is_gone_says_so(lcg, write, folder):
    file = write("rotate.py", ROTATE)
    run = lcg(f"train task=./rotate.py:Rotate evaluation.after_training=false {TINY}").strip()
    file.unlink()
    err = lcg(f"eval {run}", code=2)
    assert f"{run}/config.yaml: there is no file {folder}/rotate.py" in err
    assert err.count("\n") == 1
