"""A sweep of tiny runs that services share, and its outcome without any service."""

import re
from pathlib import Path

import pytest
from processes import ROOT
from services.postgres import Postgres, binaries
from sweeping.tiny_sweeps import COMMAND, launch, outcome, sweep_file, table

GRID = {"attention": ["softmax", "ssmax", "entmax"]}
# Long enough to be killed in the middle of.
LONGER = {"trainer.steps": "400", "validation.every": "200"}


def page(marker: str) -> str:
    """The code block of docs/scaling-out.md that holds a text."""
    text = (ROOT / "docs" / "scaling-out.md").read_text()
    (found,) = [block for block in re.findall(r"```\n(.*?)```", text, re.S) if marker in block]
    return found


def make_sweep(folder: Path) -> Path:
    """The sweep file that every test of this folder trains."""
    words = [word for word in COMMAND if word.partition("=")[0] not in LONGER]
    longer = [f"{key}={text}" for key, text in LONGER.items()]
    return sweep_file(folder, GRID, command=[*words, *longer, "${args_no_hyphens}"])


@pytest.fixture(scope="session")
def alone(tmp_path_factory) -> tuple[dict, str]:
    """The records and the table of one launcher with its SQLite file, which nobody disturbs."""
    folder = tmp_path_factory.mktemp("alone")
    words = (str(make_sweep(folder)), "--workers=2", f"runs={folder / 'runs'}")
    assert launch(*words, folder=folder).wait(600) == 0, (folder / "launcher.log").read_text()
    return outcome(folder / "runs"), table(folder / "runs")


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server; the test is skipped where there are no binaries of one."""
    if binaries() is None:
        pytest.skip("needs PostgreSQL: apt install postgresql")
    server = Postgres()
    yield server
    server.close()
