"""Absurd sizes, places and names are one line that names the option, before anything is written."""

import pytest

from lcg import system
from lcg.cli import main
from lcg.config import load_config
from lcg.config.compatibility import largest_option, parameter_count

ABSURD = {
    "model.layers=1e9": "model.layers=1,000,000,000 makes a model of ",
    "model.d_model=1e8": "model.d_model=100,000,000 makes a model of 8",
    "model.d_ff=1e11": "model.d_ff=100,000,000,000 makes a model of",
    "model.head_dim=1e11": "model.head_dim=100,000,000,000 makes a model of",
    "model.heads=1e12 model.head_dim=1": "model.heads=1,000,000,000,000 makes a model of",
    "model.heads=1e9 model.head_dim=1 model.d_model=1 model.d_ff=1": "heads=1,000,000,000 makes",
    "model.kind=encoder_decoder model.encoder_layers=1e9": "model.encoder_layers=1,000,000,000 ",
    "task.symbols=1e12": "task.symbols=1,000,000,000,000 makes a vocabulary of",
    "task.symbols=1e9 model.d_model=8192": "task.symbols=1,000,000,000 makes a model of 1",
    "task=local_count task.max_reps=1e12": "task.max_reps=1,000,000,000,000 makes a vocabulary of",
    "task=mqmtar task.key_length=1e12": "gives 2**63 words of 1000000000000 letters or more",
    "task=mqmtar task.words=1e11 task.alphabet=1000000": "words must be below 2**31",
    "data.batch_size=1e11": "data.batch_size=100,000,000,000 makes batches of",
    "data.max_length=1e11": "data.max_length=100,000,000,000 makes batches of",
    "data.max_length=1e13": "data.max_length must be at most 1,000,000,000,000, got 10,000,000",
    "data.batch_size=1e100": "data.batch_size must be at most 1,000,000,000,000, got 1e+100",
    "data.batch_size=1e400": "data.batch_size: '1e400' is too large for any option",
    "data.workers=100000": "data.workers must be at most 1,024, got 100,000",
    "trainer.threads=100000": "trainer.threads must be at most 4,096, got 100,000",
    "trainer.steps=1e13": "trainer.steps must be at most 1,000,000,000,000",
    "trainer.devices=1e6 data.batch_size=1e6": "trainer.devices must be at most 1,024",
    "trainer.log_every=1e13": "trainer.log_every must be at most",
    "optimizer.lr=1e7": "optimizer.lr must be at most 1,000,000, got 10,000,000",
    "optimizer.lr=-1": "optimizer.lr must be positive, got -1",
    "optimizer.weight_decay=1e7": "optimizer.weight_decay must be at most 1,000,000",
    "optimizer.clip_norm=inf": "optimizer.clip_norm must be at most 1,000,000",
    "optimizer.warmup_steps=1e13": "optimizer.warmup_steps must be at most",
    "model.init_std=1e7": "model.init_std must be at most 1,000,000",
    "evaluation.lengths=1e13": "evaluation.lengths must be at most 1,000,000,000,000",
    "validation.samples=1e13": "validation.samples must be at most 1,000,000,000,000",
    "validation.every=1e13": "validation.every must be at most",
    "evaluation.batch_size=1e13": "evaluation.batch_size must be at most",
    "evaluation.seed=1e30": "evaluation.seed must be at most",
    "seed=1e30": "seed must be at most 9.22e+18, got 1e+30",
    "position=rope position.base=inf": "rope: base must be greater than 1 and finite",
    "position=sinusoidal position.scale=inf": "sinusoidal: scale must be positive and finite",
    "attention=ssmax attention.scaling.offset=inf": "log: offset must be finite",
    "attention=asentmax attention.scaling.delta=-inf": "adaptive: delta must be finite",
    # places
    "runs=/dev/null": "runs=/dev/null: /dev/null is not a folder",
    "runs=file.md": "runs=file.md: file.md is not a folder",
    "runs=file.md/below/it": "runs=file.md/below/it: file.md is not a folder",
    f"runs={'a' * 300}": "File name too long",
    "name=file.md runs=.": "name=file.md: file.md is not a folder",
    # names
    "name=.hidden": "no part that begins with a dot",
    "name=a/.hidden": "no part that begins with a dot",
    "name=wandb": "is called wandb",
    "name=sweeps": "but not below sweeps",
    "name=two\x1blines": "name must have printable characters only, got 'two\\x1blines'",
    "name=two\u2028lines": "name must have printable characters only",
    "name=no\udcfftext": "name='no\\udcfftext' is not UTF-8 text",
    "runs=two\x07": "runs must have printable characters only, got 'two\\x07'",
    f"name={'a' * 300}": "or is longer than 255 bytes",
    "name=run/inner": "name=run/inner is inside the run runs/run",
    "runs=runs/run": "runs=runs/run is inside the run runs/run",
    "name=outer": "name=outer holds the run runs/outer/inner",
    "task=./odd.py:Path": "`name` is 'a/b'; write a letter or digit",
    "task=./odd.py:Hidden": "`name` is '.hidden'; write a letter or digit",
    "task=./odd.py:Lines": "`name` is 'a\\nb'; write a letter or digit",
}
ODD = """
from dataclasses import dataclass
from lcg.tasks.copy import Copy
@dataclass
class Path(Copy):
    name = "a/b"
@dataclass
class Hidden(Copy):
    name = ".hidden"
@dataclass
class Lines(Copy):
    name = "a\\nb"
"""


@pytest.mark.parametrize("words", ABSURD)
def test_absurd_values_are_one_line_and_write_nothing(words, write, here, capsys):
    write("file.md", "a file")
    write("odd.py", ODD)
    for run in ("runs/run", "runs/outer/inner"):
        for name in ("config.yaml", "results.json"):
            write(f"{run}/{name}", "{}")
    before = {p for p in here.rglob("*") if "__pycache__" not in p.parts}
    for ending in ([], ["--dry-run"]):
        assert main(["train", *words.split(" "), *ending]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("lcg: ") and captured.err.count("\n") == 1
        assert ABSURD[words] in captured.err
    assert {p for p in here.rglob("*") if "__pycache__" not in p.parts} == before


KINDS = [
    [],
    ["model.block=gemma2", "model.heads=4", "model.kv_heads=2"],
    ["task=n_back", "model.kind=encoder", "position=alibi", "model.head_dim=5"],
    ["model.kind=encoder_decoder", "model.encoder_layers=3", "model.layers=2"],
    ["model.kind=encoder_decoder", "model.block=gemma2", "attention=asentmax"],
    ["attention=rela_g", "model.d_ff=7"],
    ["attention=entmax_learned", "task=mqmtar", "task.alphabet=12", "task.words=100"],
]


@pytest.mark.parametrize("words", KINDS)
def test_parameters_are_counted_as_the_model_has_them(words):
    """But for what normalizer, scaling, output norm and encoding learn."""
    from lcg.models.transformer import build_model

    small = ["model.d_model=16", "model.heads=4", "data.min_length=16", "data.max_length=20"]
    given = {word.partition("=")[0] for word in words}
    config = load_config([*words, *(w for w in small if w.partition("=")[0] not in given)])
    parts = build_model(config).named_parameters()
    count = sum(p.numel() for name, p in parts if "_state." not in name)
    assert parameter_count(config.model, config.task.vocabulary) == count


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("model.layers=500", "model.layers=500"),
        ("model.d_ff=1e5", "model.d_ff=100,000"),
        ("task.symbols=1e5", "task.symbols=100,000"),
        ("model.d_model=4096", "model.d_model=4,096"),
    ],
)
def test_the_option_that_makes_a_model_large_is_named(word, named):
    assert largest_option(load_config([word])) == named


TOO_LARGE = {
    "model.d_model=16384": "model.d_model=16,384 is too large for this machine: training needs",
    "data.batch_size=1e6": "data.batch_size=1,000,000 is too large for this machine",
    "data.max_length=1e7": "data.max_length=10,000,000 is too large for this machine",
    "data.workers=1000": "data.workers=1,000 is too large for this machine",
    "evaluation.batch_size=1e9 evaluation.samples=1e9": "evaluation.batch_size=1,000,000,000",
}


@pytest.mark.parametrize("words", TOO_LARGE)
def test_options_too_large_for_this_machine(words, here, capsys, monkeypatch):
    """An error before anything is written; a warning of a dry run, which says what it can."""
    monkeypatch.setattr(system, "_meminfo", lambda: 2**30)
    words = ["trainer.accelerator=cpu", *words.split()]
    assert main(["train", *words]) == 2
    said = capsys.readouterr().err
    expected = TOO_LARGE[" ".join(words[1:])]
    assert expected in said and said.count("\n") == 1 and "1 GiB are available" in said
    assert main(["train", *words, "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: ") and expected in captured.err
    assert "parameters" in captured.out
    assert list(here.iterdir()) == []


def test_a_number_of_thousands_of_digits_in_a_file_is_one_line_of_ours(tmp_path):
    from lcg.config.load import read_yaml

    (tmp_path / "long.yaml").write_text(f"seed: {'9' * 5000}\n")
    with pytest.raises(
        ValueError, match=r"long.yaml: a number has thousands of digits; that is too"
    ):
        read_yaml(tmp_path / "long.yaml")
