"""A user's own classes, from a folder whose `tasks/` and `configs/` are not ours."""

import json
import os

import pytest
from user_files import NORMALIZER, POSITION, ROTATE, TINY, WAYS

every_way = pytest.mark.parametrize("way", WAYS)


@every_way
def test_folders_named_like_ours_shadow_nothing(way, lcg):
    out = lcg("list", way)
    assert "The target is the source in reverse order." in out
    assert "alibi" in out
    assert "  mine  " in out, "the user's experiments are listed"
    assert "quick/copy" in out, "beside ours"
    assert lcg("show experiment=mine", way).startswith("reverse, nominal length 8")
    assert lcg("show task=copy", way).startswith("copy, nominal length 8")


@every_way
def test_a_users_file(way, lcg, write):
    write("tasks/rotate.py", ROTATE)  # beside the traps
    out = lcg("show task=./tasks/rotate.py:Rotate task.shift=2 length=5 count=1", way)
    named = {line.split()[0]: line.split()[1:] for line in out.split("\n\n")[1].splitlines()}
    assert named["target"] == named["source"][2:] + named["source"][:2]
    assert "did you mean task.shift?" in lcg(
        "show task=./tasks/rotate.py:Rotate task.shfit=2", way, 2
    )


@every_way
def test_a_users_package(way, lcg, write):
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


def test_a_whole_run_of_a_users_classes(lcg, write, folder, fork_server):
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
    assert provenance["user_sources"].keys() == {"task", "normalizer", "position"}
    copies = {str(p.relative_to(folder / run)) for p in (folder / run / "sources").rglob("*.py")}
    named = {"task/rotate.py", "normalizer/mine.py", "position/my_pe.py"}
    assert copies == {f"sources/{name}" for name in named}
    words = ("eval", f"../{run}", "lengths=16", "samples=8")
    evaluated = fork_server.run(*words, folder=folder / "configs")
    assert evaluated.code == 0, evaluated.err
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
