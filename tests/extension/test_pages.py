"""The how-to pages, followed to the letter in a folder of a user; only models are made smaller."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tiny import SMALL

from lcg.attention.output_norms import OutputNorm
from lcg.positional.base import PositionEncoding
from lcg.registry import find
from lcg.tasks.base import IGNORE, Task

ROOT = Path(__file__).parents[2]


class Block(NamedTuple):
    """A fenced block: its language, its text, and the file that the paragraph before it names."""

    language: str
    text: str
    file: str | None


def blocks(page: str) -> list[Block]:
    text = (ROOT / "docs" / page).read_text()
    found = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        paragraph = text[: match.start()].rstrip().rpartition("\n\n")[2]
        files = re.findall(r"`([\w/.-]+\.(?:py|yaml))`", paragraph)
        file = files[0] if match[1] in ("python", "yaml") else None
        found.append(Block(match[1], match[2], file))
    return found


def own(page: str) -> list[Block]:
    """The blocks for the user's folder: all but those for a file of this repository's suite."""
    return [block for block in blocks(page) if not (block.file or "").startswith("tests/")]


# page -> its class's file, how many lines that may have, where it goes, and where its oracle does
PAGES = {
    "add-a-task.md": ("tasks/rotate.py", 60, "tasks", "runs/rotate", {16, 32, 64, 128}),
    "add-an-attention.md": (
        "quiet_softmax.py",
        40,
        "lcg/attention/normalizers",
        "runs/quiet",
        {32, 128, 256},
    ),
    "add-a-position-encoding.md": (
        "log_bias.py",
        60,
        "positional",
        "runs/log_bias",
        {32, 128, 256},
    ),
}
TELLS_OF = {
    "add-a-task.md": Task,
    "add-an-attention.md": OutputNorm,
    "add-a-position-encoding.md": PositionEncoding,
}
"""Page -> the class whose members its table has."""
every_page = pytest.mark.parametrize("page", PAGES)


HEAVY = ("check", "train", "eval")  # of `lcg`'s commands: they import torch
PYTHON = """
import runpy, sys
sys.path.insert(0, "")
sys.argv = sys.argv[1:]
if sys.argv[0] == "-m":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
raise SystemExit
"""


@pytest.fixture
def command(folder, shell, fork_server):
    """Run a shell command in the user's folder, by a fork where it imports torch; its stdout."""

    def command(line: str) -> str:
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "python" or (
            program == "lcg" and words[0] in HEAVY and "--help" not in words
        ):
            before = PYTHON if program == "python" else ""
            if words[0] == "train":
                words += SMALL
            quiet = {"WANDB_MODE": "disabled"}
            done = fork_server.run(*words, folder=folder, environment=quiet, before=before)
            code, out, err = done.code, done.out, done.err
        else:
            done = shell(line)
            code, out, err = done.returncode, done.stdout, done.stderr
        assert code == 0, f"{line}\n{out}\n{err}"
        return out

    yield command
    fork_server.clean()


def follow(page, folder, command) -> list[str]:
    """Do what a page says; returns what its blocks of commands print."""
    outputs: list[str] = []
    for block in own(page):
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "bash":
            lines = block.text.replace("\\\n", " ").splitlines()
            outputs.append("".join(map(command, lines)))
        else:
            assert block.language == "text"
            assert outputs[-1] == block.text
    return outputs


def test_the_page_on_a_users_trainer(folder, command):
    *_, output = follow("lightning.md", folder, command)
    assert re.findall(r"^(\d+) \d", output, re.MULTILINE) == [str(step) for step in range(1, 9)]
    assert (folder / "own" / "last.ckpt").exists()


@every_page
def test_a_page_followed_to_the_letter(page, folder, command):
    outputs = follow(page, folder, command)
    (tested,) = (output for output in outputs if "passed" in output)
    assert "failed" not in tested
    *_, run, lengths = PAGES[page]
    record = json.loads((folder / run / "results.json").read_text())
    assert {cell["length"] for cell in record["ladder"]} == lengths
    assert {cell["state"] for cell in record["ladder"]} == {"value"}


@every_page
def test_the_file_is_as_short_as_promised(page):
    file, most, *_ = PAGES[page]
    (block,) = [block for block in own(page) if block.file == file]
    assert len(block.text.splitlines()) <= most


def test_mqar_of_the_page_is_short_and_scores_its_queries():
    (block,) = [block for block in own("add-a-task.md") if block.file == "tasks/mqar.py"]
    assert len(block.text.splitlines()) <= 60
    found: dict = {"__name__": "mqar"}
    exec(block.text, found)
    task = found["MQAR"](symbols=32)
    lengths = np.array([8, 16, 27, 64, 71, 128])
    batch = task.encode(np.random.default_rng(0), lengths)
    for read, labels, length in zip(batch.inputs, batch.labels, lengths, strict=True):
        pairs = length // 8
        value = dict(zip(read[1 : 2 * pairs : 2], read[2 : 2 * pairs + 1 : 2], strict=True))
        scored = np.flatnonzero(labels != IGNORE)
        assert len(value) == len(scored) == pairs
        assert (scored > 2 * pairs).all() and len(set(read[scored])) == pairs
        assert [value[key] for key in read[scored]] == labels[scored].tolist()


def test_ids_of_the_page_couple_a_target_symbol_to_its_source_symbol(tmp_path):
    for block in own("add-a-task.md"):
        if block.file in ("tasks/rotate.py", "tasks/coupled.py"):
            (tmp_path / block.file.removeprefix("tasks/")).write_text(block.text)
    task = find("task", f"{tmp_path}/coupled.py:CoupledRotate")(symbols=64, shift=2)
    lengths = np.array([2, 5, 9])
    for training in (True, False):
        rng = np.random.default_rng(1)
        batch = task.encode(rng, lengths)
        ids = task.position_ids(batch, rng, training)
        for read, own_ids, length in zip(batch.inputs, ids, lengths, strict=True):
            symbol = dict(zip(own_ids[1 : length + 1], read[1 : length + 1], strict=True))
            assert len(symbol) == length
            start = length + 2
            assert own_ids[start - 1] == 0
            coupled = [symbol[i] for i in own_ids[start : start + length]]
            assert coupled == read[start : start + length].tolist()


@every_page
def test_the_page_tells_of_every_member_it_names(page):
    """Names in the page's table and text exist where it says they do."""
    text = (ROOT / "docs" / page).read_text()
    prose = re.sub(r"^```\w+\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`((?:tasks|positional|lcg|tests|configs)/[\w/.]*)`", prose))
    named -= {block.file for block in own(page)} - {None}
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing
    cells = re.findall(r"^\| (`.*?`) \|", prose.replace("\\|", ""), re.MULTILINE)
    members = {m for cell in cells for m in re.findall(r"`(\w+)", cell)}
    base = TELLS_OF[page]
    assert all(hasattr(base, member) for member in members), members
    left_as_they_are = {"has", "ordered", "more_than_slopes"}  # of an encoding, which they describe
    if base is not Task:  # which defines more than what a class of a user's own may
        hooks = {name for name in vars(base) if not name.startswith("_")} - left_as_they_are
        assert members >= {name for name in hooks if callable(getattr(base, name))}


# page -> the entry's name, and the line of its table that it goes before
TABLES = {
    "add-a-task.md": ("rotate", "DEFINITIONS = {\n    f.__name__: f\n    for f in (copy,", None),
    "add-an-attention.md": ("quiet_softmax", '    "softmax": softmax,\n', "quiet_softmax"),
    "add-a-position-encoding.md": (
        "log_bias",
        '    "nope": Encoding(),\n',
        "Encoding(bias=log_bias)",
    ),
}


def contribute(page: str, repository: Path, definition: str) -> str:
    """Do what the page's last section says in a copy of this repository; returns the suite."""
    file, _, home, *_ = PAGES[page]
    for name in ("lcg", "tasks", "positional", "configs", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / name, repository / name, ignore=ignored, symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", repository)
    (contribution,) = [block.text for block in own(page) if block.file == file]
    (repository / home / Path(file).name).write_text(contribution)
    (target,) = [block.file for block in blocks(page) if block not in own(page)]
    name, before, value = TABLES[page]
    text = (repository / target).read_text()
    assert text.count(before) == 1
    entered = f'    "{name}": {value},\n' + before if value else f"{before} {name},"
    place = text.rindex("\n\n\n", 0, text.index(before))
    text = text[:place] + "\n\n\n" + definition + text[place:].replace(before, entered)
    (repository / target).write_text(text)
    return "tests/tasks" if page == "add-a-task.md" else "tests/attention"


@pytest.mark.slow
@every_page
@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_the_page_on_contributing(page, right, tmp_path, shell):
    """With its definition the suite covers the class and passes; with a wrong one it fails."""
    (definition,) = [block.text for block in blocks(page) if block not in own(page)]
    if not right:
        wrong = r"return (\1)[::-1]" if page == "add-a-task.md" else r"return 1.01 * (\1)"
        definition = re.sub(r"return (.*)", wrong, definition)
    repository = tmp_path / "repository"
    suite = contribute(page, repository, definition)
    name = TABLES[page][0]
    command = f"python -m pytest -p no:cacheprovider -m 'not slow' {suite} -k {name}"
    done = shell(f"cd {repository} && {command}", PYTHONPATH=str(repository))
    failed = 1  # pytest's exit code: tests ran, and some failed
    assert done.returncode == (0 if right else failed), done.stdout[-3000:] + done.stderr[-2000:]
