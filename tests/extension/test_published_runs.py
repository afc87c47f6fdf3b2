"""Published methods as files in a user's folder: trained, resumed, evaluated, compared, moved."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import KILL, LIMIT, at_step, checkpoint, differences, essence, record
from tiny import tiny

from lcg.evaluation.evaluate import load_model
from lcg.runs.run import Run

FILES = Path(__file__).parent / "published"
STEPS = 200
TRAINED, LONGER = 6, 24  # 4×
WORDS = [
    *("model.layers=2", "model.heads=4", f"trainer.steps={STEPS}", "trainer.threads=1"),
    *("trainer.log_every=50", "trainer.checkpoint_every=40", "validation.every=100"),
    *("data.min_length=3", f"data.max_length={TRAINED}", f"evaluation.lengths={TRAINED},{LONGER}"),
    "evaluation.after_training=true",
]
OF_12 = ["data.min_length=12", "data.max_length=14", "validation.lengths=14"]
OF_12 += ["evaluation.lengths=14,56"]
ENCODINGS = {
    "fox": ["position=./fox.py:FoX"],
    "random_rope": ["position=./randomised.py:RandomRoPE"],
    "random_alibi": ["position=./randomised.py:RandomALiBi"],
    "t5": ["position=./t5.py:T5"],
    "fire": ["position=./fire.py:FIRE"],
    "pope": ["position=./pope.py:PoPE"],
    "scale_invariant": ["position=./scale_invariant.py:ScaleInvariant"],
    "dape": ["position=./dape.py:DAPE"],
    "cope": ["position=./cope.py:CoPE"],
    "yarn": ["position=./yarn.py:YaRN"],
}
METHODS = ENCODINGS | {
    "fox_entmax": ["position=./fox.py:FoX", "attention=entmax", "attention.backend=blockwise"],
    "fox_in_layers": ["position=[./fox.py:FoX,nope]"],
    "fox_in_groups": ["position=./fox.py:FoX:2+nope:2"],
    "gated": ["attention=softmax", "attention.output_norm=./gated.py:Gated"],
    "differential": ["attention=entmax", "attention.output_norm=./differential.py:Differential"],
    "coupling": ["task=./coupling.py:Addition", "position=rope"],
    "mqar": ["task=./mqar.py:MQAR", *OF_12],
    "lstm": ["task=./parity.py:Parity", "mixer=./lstm.py:LSTM"],
    "loops": ["loop=./loops.py:PerTokens"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder with the methods' files, as the current one."""
    for file in FILES.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return tmp_path


@pytest.fixture
def lcg(folder, fork_server):
    """Run `lcg` in a process of its own, and require its exit code.

    Returns what it printed, or what it said on stderr where it failed or is asked for that.
    """

    def lcg(*words: str, code: int = 0, before: str = "", said: bool = False) -> str:
        done = fork_server.run(*map(str, words), folder=folder, before=before)
        assert done.code == code, done.out + done.err
        return done.err if code or said else done.out

    yield lcg
    fork_server.clean()


def words_of(name: str, *more: str) -> list[str]:
    return tiny(*WORDS, *METHODS[name], *more)


def cells(run: Path) -> dict[int, tuple]:
    """State and outcomes of each length of the ladder."""
    return {c["length"]: (c["state"], c.get("outcomes")) for c in record(run)["ladder"]}


def write_sweep(folder: Path, choices: dict[str, list[str]], words: list[str]) -> None:
    """Write the sweep file published.yaml, as JSON, which is YAML."""
    content = {
        "program": "lcg",
        "method": "grid",
        "metric": {"name": "val/len_8/exact_match", "goal": "maximize"},
        "parameters": {key: {"values": values} for key, values in choices.items()},
        "command": ["lcg", "train", *words, "${args_no_hyphens}"],
    }
    (folder / "published.yaml").write_text(json.dumps(content))


def content(run: Path) -> dict:
    """All that does not depend on how often a run was interrupted, nor on time."""
    found = essence(run)
    for cell in found["results"]["ladder"]:
        del cell["seconds"]
    return found


def checked(name: str) -> list[str]:
    """The overrides of a method that name a class, for `lcg check`."""
    groups = ("task", "attention", "position", "mixer", "loop")
    words = [word for word in METHODS[name] if word.partition("=")[0].split(".")[0] in groups]
    return [word for word in words if ".py:" in word]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_from_training_to_a_moved_run(name, folder, lcg):
    trained, longer = (14, 56) if OF_12[0] in METHODS[name] else (TRAINED, LONGER)
    whole = Path(lcg("train", *words_of(name, "runs=whole")).strip())
    assert {length: state for length, (state, _) in cells(whole).items()} == {
        trained: "value",
        longer: "value",
    }
    # Killed half-way and resumed: the same to the last bit.
    words = words_of(name, "runs=killed")
    lcg("train", *words, before=at_step(110, KILL), code=-9)
    resumed = Path(lcg("train", *words).strip())
    assert differences(content(resumed), content(whole)) == []
    longest = cells(whole)[longer]
    maps = [] if name == "lstm" else ["--layer", "1", "--heads", "0"]
    assert f"length {longer}" in lcg("inspect", whole, "--length", longer, "--samples", "4", *maps)
    # Moved, and the user's files gone: the copies run.
    moved = Path(shutil.move(whole, folder / "elsewhere"))
    for file in folder.glob("*.py"):
        file.unlink()
    results = json.loads((moved / "results.json").read_text())
    (moved / "results.json").write_text(json.dumps(results | {"ladder": []}))
    assert "--trust-source" in lcg("eval", moved, f"lengths={longer}", code=2)
    lcg("eval", moved, f"lengths={longer}", "--trust-source")
    assert cells(moved)[longer] == longest


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_properties_that_are_checked(name, lcg):
    out = lcg("check", *checked(name), "length=64")
    assert "fails" not in out
    assert "cached = whole       ok" in out or name in ("coupling", "mqar")


# ---- what is particular to some of them


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint(run)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random_rope", "random_alibi"])
def test_ids_that_are_drawn_are_the_same_in_two_processes(name, lcg):
    """And validation, however often, leaves training as it is."""
    few = ["trainer.steps=40", "evaluation.samples=64", f"evaluation.lengths={LONGER}"]
    one, other = (
        Path(lcg("train", *words_of(name, f"runs=every{n}", *few, f"validation.every={n}")).strip())
        for n in (10, 20)
    )
    assert differences(weights(one), weights(other)) == []
    first = cells(one)
    results = record(one)
    (one / "results.json").write_text(json.dumps(results | {"ladder": []}))
    lcg("eval", one, "batch_size=7", f"lengths={LONGER}")
    assert cells(one) == first == cells(other)
    assert results["ladder"][0]["token_accuracy"] == record(one)["ladder"][0]["token_accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coupling", "loops", "random_rope"])
def test_two_devices_make_the_steps_of_one(name, folder, lcg):
    """Each has the ids, and the loops, of its own rows."""
    words = words_of(name, "model.dropout=0", "trainer.steps=20", "evaluation.after_training=false")
    one = Path(lcg("train", *words, "runs=one").strip())
    command = [sys.executable, "-m", "lcg", "train", *words, "runs=two", "trainer.devices=2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    two = Path(done.stdout.strip())
    for key, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[key], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["coupling", "loops", "random_rope"])
def test_greedy_decoding_is_teacher_forcing(name, lcg):
    """With ids of the task, with more loops for longer sequences, with ids that are drawn."""
    few = ["trainer.steps=60", "evaluation.samples=64", "optimizer.lr=0.01", "data.min_length=1"]
    ladder = ["data.max_length=2", "evaluation.lengths=1,2,8", "validation.lengths=2"]
    run = Path(lcg("train", *words_of(name, *few, *ladder)).strip())
    lcg("eval", run, "decode=greedy")
    kept = ("state", "outcomes", "prefix")
    by = {"teacher_forcing": {}, "greedy": {}}
    for cell in record(run)["ladder"]:
        by[cell["decode"]][cell["length"]] = {key: cell[key] for key in kept}
    assert by["greedy"] == by["teacher_forcing"]
    assert by["greedy"].keys() == {1, 2, 8}
    assert by["greedy"][1]["prefix"] > 0


def test_groups_of_heads_are_nape_in_a_trained_run(lcg):
    few = ["trainer.steps=40", "attention=asentmax", "evaluation.samples=32"]
    halves = ["position=alibi:2+nope:2", "position.groups_of.0.variant=linear"]
    runs = [
        Path(lcg("train", *tiny(*WORDS, *few, *position)).strip())
        for position in (["position=nape"], halves)
    ]
    assert runs[0] != runs[1]
    assert differences(*map(weights, runs)) == []
    assert cells(runs[0]) == cells(runs[1])


def test_rope_in_three_layers_of_four(lcg):
    words = tiny(*WORDS, "trainer.steps=20", "model.layers=4", "position=[rope,rope,rope,nope]")
    run = Path(lcg("train", *words).strip())
    model, _ = load_model(run, Run(run).config, torch.device("cpu"))
    names = [layer.position.name for layer in model.attention_layers().values()]
    assert names == ["rope", "rope", "rope", "nope"]
    assert "rope_rope_rope_nope" in run.name
    other = Path(lcg("train", *words, "position.pattern.0.base=100").strip())
    assert differences(weights(run), weights(other)) != []


@pytest.mark.slow
def test_a_sweep_over_files_its_table_and_its_report(lcg, folder):
    positions = ["./fox.py:FoX", "[./fox.py:FoX,nope]", "./fox.py:FoX:2+nope:2"]
    write_sweep(folder, {"position": positions}, tiny(*WORDS, "trainer.steps=40"))
    assert "3 runs" in lcg("sweep", "published.yaml", "--dry-run")
    lcg("sweep", "published.yaml")
    table = lcg("table", "runs")
    for label in ("fox", "fox,nope", "fox:2+nope:2"):
        assert f"| softmax · {label} " in table
    lcg("report", "runs", "-o", "page.html", "--no-maps")
    lcg("report", "runs", "-o", "maps.html", "--trust-source")
    page, maps = ((folder / name).read_text() for name in ("page.html", "maps.html"))
    assert "softmax · fox:2+nope:2" in page
    assert len(maps) > len(page)


@pytest.mark.slow
def test_an_lstm_in_one_table_with_two_attentions(lcg, folder):
    """On parity and on flip-flop."""
    for task, lengths in (("./parity.py:Parity", []), ("flip_flop", OF_12)):
        for choice in ("attention=softmax", "attention=entmax", "mixer=./lstm.py:LSTM"):
            words = tiny(*WORDS, *lengths, "trainer.steps=40", f"task={task}", choice)
            said = lcg("train", *words, said=True)
            assert ("mixer=lstm has no attention" in said) == choice.startswith("mixer")
    table = lcg("table", "runs")
    for task in ("running_parity", "flip_flop"):
        (part,) = [part for part in table.split("### ") if part.startswith(f"{task}, trained at")]
        rows = [line for line in part.splitlines() if line.startswith("| ")][2:]
        methods = [row.split("|")[1].strip() for row in rows]
        assert methods == ["entmax · nape", "lstm · nape", "softmax · nape"]
    lcg("report", "runs", "-o", "page.html", "--trust-source")
    page = (folder / "page.html").read_text()
    assert "lstm · nape" in page


def test_runs_without_heads_are_an_error(lcg):
    words = tiny(*WORDS, "trainer.steps=4", "task=./parity.py:Parity", "mixer=./lstm.py:LSTM")
    run = lcg("train", *words).strip()
    said = lcg("inspect", run, "--length", LONGER, "--layer", "0", code=2)
    assert said.startswith("lcg: mixer=lstm has no heads; leave out --layer")
    header = Path(run, "metrics.csv").read_text().splitlines()[0]
    assert "heads/" not in header and "grad_norm/attention" in header
    softmax, relu = (
        lcg("train", *words[:-1], f"attention={name}").strip() for name in ("softmax", "relu")
    )
    inspect = ["inspect", softmax, "--length", TRAINED, "--samples=4", "--compare"]
    assert lcg(*inspect, run, code=2) == f"lcg: {run}: mixer=lstm has no heads\n"
    compared = lcg(*inspect, relu)  # each run has a copy of the task
    assert "head analyses" in compared and "relu" in compared
    said = lcg("sparsefinder", run, "--length", LONGER, code=2)
    assert said == "lcg: mixer=lstm has no attention whose graph to predict\n"


# ---- the page that teaches them


PAGE = Path(__file__).parents[2] / "docs" / "published-methods.md"


def page_blocks(language: str) -> list[tuple[str, str]]:
    """The paragraph before each block of a language, and the block."""
    pattern = rf"([^\n]+(?:\n[^\n]+)*)\n\n```{language}\n(.*?)^```$"
    return re.findall(pattern, PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_table_of_the_page_names_the_members_of_each_class():
    rows = re.findall(r"^\| .* \| `(\w+\.py):(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert {file for file, *_ in rows} == {file.name for file in FILES.glob("*.py")}
    for file, cls, hooks in rows:
        tree = ast.parse((FILES / file).read_text())
        (body,) = [n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls]
        methods = {n.name for n in body if isinstance(n, ast.FunctionDef)}
        assigned = {t.id for n in body if isinstance(n, ast.Assign) for t in n.targets}
        missing = set(re.findall(r"`(\w+)`", hooks)) - methods - assigned
        assert not missing, (file, missing)


def test_excerpts_of_the_page_stand_in_the_files():
    excerpts = page_blocks("python")
    assert len(excerpts) >= 12
    for paragraph, excerpt in excerpts:
        (file,) = re.findall(r"`(\w+\.py)`", paragraph)
        assert excerpt in unindented((FILES / file).read_text(), excerpt)


def unindented(text: str, excerpt: str) -> str:
    """The lines of a file at the depth of an excerpt's first line and deeper, as if outermost."""
    first = excerpt.splitlines()[0]
    (line,) = [line for line in text.splitlines() if line.strip() == first]
    depth = " " * (len(line) - len(first))
    return "".join(f"{line.removeprefix(depth)}\n" for line in text.splitlines())


@pytest.mark.slow
def test_commands_of_the_page_run(lcg):
    for _, commands in page_blocks("bash"):
        for line in commands.replace("\\\n", " ").splitlines():
            command, *words = shlex.split(line)
            assert command == "lcg"
            lcg(*words)
