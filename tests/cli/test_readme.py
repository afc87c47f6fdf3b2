"""The commands of the README do what it says, in a folder of a user; only made smaller."""

import itertools
import re
import shlex
from functools import partial
from pathlib import Path

import pytest
import yaml
from tiny import QUICK, SMALL

README = (Path(__file__).parents[2] / "README.md").read_text()
KEPT = ("data.max_length", "evaluation.lengths", "wandb.mode")
SMALLER = [word for word in (*SMALL, *QUICK) if not word.startswith(KEPT)]
SMALLER += ["evaluation.lengths=32,64"]


def commands(heading: str) -> list[list[str]]:
    """The `lcg` lines of a section as words, without their comments."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("lcg ")]


@pytest.fixture
def run_small(fork_server, here):
    """Run a command made smaller, in a process of its own; returns it."""
    yield partial(run, fork_server)
    fork_server.clean()


def run(fork_server, words: list[str]):
    if words[0] == "train":
        chosen = {word.split("=")[0] for word in words}
        words = [*words, *(word for word in SMALLER if word.split("=")[0] not in chosen)]
    words = [re.sub(r"^lengths=.*", "lengths=64", word) for word in words]
    words = [re.sub(r"^samples=.*", "samples=4", word) for word in words]
    globbed = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
    words = list(itertools.chain.from_iterable(globbed))
    process = fork_server.run(*words, folder=Path.cwd(), environment={"WANDB_MODE": "disabled"})
    assert process.code == 0, (words, process.err)
    return process


def test_use_it(run_small):
    lines = commands("Use it")
    assert [words[0] for words in lines] == [
        *(
            "list",
            "new",
            "show",
            "train",
            "train",
            "train",
            "eval",
            "eval",
            "table",
            "table",
            "plot",
            "report",
            "inspect",
        ),
        "train",
    ]
    found = [run_small(words) for words in lines]
    assert "quick/copy" in found[0].out
    assert "parameters" in found[5].out + found[5].err
    runs = [path.name for path in Path("runs").glob("copy-*")]
    assert sorted(name.rpartition("-s")[0] for name in runs) == [
        "copy-asentmax-nape",
        "copy-entmax_learned-sinusoidal",
        "copy-softmax-rope",
    ]
    assert {"asentmax", "softmax", "nape", "rope", "64"} <= set(re.findall(r"\w+", found[8].out))
    assert "→ base=50000 at evaluation" in found[8].out
    assert "\\toprule" in Path("copy.tex").read_text()
    assert Path("copy.png").stat().st_size > 10_000
    assert "copy-asentmax-nape" in Path("report.html").read_text()
    assert "layer" in found[12].out


def test_add_a_task(run_small):
    section = README.split("\n## Add a task\n", 1)[1]
    (source,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    Path("rotate.py").write_text(source)
    shown, checked, _ = (run_small(words) for words in commands("Add a task"))
    assert "fails" not in checked.out
    assert "target" in shown.out
    (run,) = Path("runs").iterdir()
    assert (run / "results.json").exists()


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_to_existing_files(path):
    assert (Path(__file__).parents[2] / path).exists()


def test_the_sweeps_exist():
    """They take hours: tests/sweeping runs smaller ones."""
    from lcg.cli import COMMANDS
    from lcg.sweeping.file import find_sweep

    lines = commands("Launch a sweep")
    assert {"sweep", "select", "table", "report"} == {words[0] for words in lines} <= {*COMMANDS}
    assert all(find_sweep(words[1]).exists() for words in lines if words[0] == "sweep")


def test_the_sweep_that_is_explained_is_the_built_in_one():
    from lcg.sweeping.file import find_sweep

    (text,) = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert yaml.safe_load(text) == yaml.safe_load(find_sweep("quick_factorial").read_text())


def test_the_other_commands_exist():
    """make targets, benchmarks and sweep files."""
    root = Path(__file__).parents[2]
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"`?make (\w[\w-]*)", README):
        if target not in ("it", "of"):
            assert f"\n{target}: " in makefile or f"\n{target}:" in makefile, target
    for module in re.findall(r"python -m (benchmarks\.\w+)", README):
        place = root / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
    for file in re.findall(r"wandb sweep (\S+)", README):
        assert (root / file).exists(), file
