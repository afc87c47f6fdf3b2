"""A user's folder, far from this repository, with folders named like ours that hold traps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from user_files import WAYS

TRAP = "raise RuntimeError('this is the user folder, not the package of the same name')\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Its `tasks/` and `positional/` must never be taken for ours; its `configs/` comes first."""
    for name in ("tasks", "positional"):
        (tmp_path / name).mkdir()
        for module in ("__init__", "base", "copy"):
            (tmp_path / name / f"{module}.py").write_text(TRAP)
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text("# Mine.\ntask: reverse\n")
    return tmp_path


@pytest.fixture
def shell(folder):
    """Run shell commands in the user's folder, `lcg` and `python` being those of this test run."""

    def shell(commands: str, **variables: str) -> subprocess.CompletedProcess:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "WANDB_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=1800,
        )

    return shell


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
