"""The wheel holds all that the command needs, and works without the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="pip install hatchling, to build without network")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = ("lcg", "tasks", "positional", "configs", "sweeps", "pyproject.toml", "README.md")
    for name in (*tracked, "LICENSE"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored, symlinks=True)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "-w", target], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = target.glob("lcg-*.whl")
    return found


def test_contents_of_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("configs", "lcg/configs"), ("sweeps", "lcg/sweeps")):
        files = [p.relative_to(ROOT / folder) for p in (ROOT / folder).rglob("*.yaml")]
        assert files
        assert {f"{inside}/{file.as_posix()}" for file in files} <= names
    files = {"tasks/copy.py", "positional/rotary.py", "cli.py", "results/published.yaml"}
    assert {f"lcg/{file}" for file in files} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"lcg"}


def test_the_command_from_it(wheel, tmp_path):
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site]
    subprocess.run([*command, wheel], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def lcg(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, site / "bin" / "lcg", *words],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = (
        "import lcg.tasks, lcg.positional; "
        "print(lcg.__file__, lcg.tasks.__file__, lcg.positional.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", where], cwd=here, env=environment, capture_output=True, text=True
    )
    assert all(path.startswith(str(site)) for path in done.stdout.split()), done.stdout
    experiments = {
        str(p.relative_to(ROOT / "configs/experiment").with_suffix(""))
        for p in (ROOT / "configs/experiment").rglob("*.yaml")
    }
    listed = {line.split()[0] for line in lcg("list", "experiments").splitlines()[1:]}
    assert listed == experiments
    assert lcg("show", "task=copy").startswith("copy, nominal length 8")
    assert "attention.scaling=adaptive" in lcg("train", "experiment=quick/copy", "--help")
    assert not list(here.iterdir())
