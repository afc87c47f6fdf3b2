"""Text from the command line: train, evaluate, look, tabulate; what is missing is one line."""

import json
import re
from itertools import permutations
from pathlib import Path

import pytest
from tiny import SMALL

from lcg.config import load_config
from lcg.config.compatibility import warnings
from lcg.tasks.corpora.numbers import pairs

TINY = [
    *(*SMALL, "trainer.threads=1", "optimizer.warmup_steps=2"),
    *("trainer.steps=2", "trainer.log_every=2", "trainer.checkpoint_every=2"),
    *("validation.every=2", "validation.samples=8", "evaluation.samples=8"),
]


@pytest.fixture
def corpora(here) -> Path:
    """The corpora of the experiments, with numbers in words in place of what they should hold."""
    sides = dict(zip(("de", "en"), pairs(), strict=True))
    (here / "corpora/de-en").mkdir(parents=True)
    (here / "corpora/python").mkdir()
    for side, lines in sides.items():
        (here / f"corpora/de-en/gettext.{side}").write_text("\n".join(lines), encoding="utf-8")
    text = "\n\n".join([*sides["de"], *sides["en"]])
    (here / "corpora/python/code.txt").write_text(text, encoding="utf-8")
    return here


def record(folder: Path) -> dict:
    (file,) = folder.glob("runs/*/results.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", ["text/translate", "text/masked_lm"])
def test_the_experiments_resolve_and_set_nothing_in_vain(name, corpora):
    pytest.importorskip("sacrebleu")
    config = load_config([f"experiment={name}", "task.bpe=0", "evaluation.lengths=32"])
    assert config.task.digest
    assert warnings(config) == []
    assert config.labels["task"] in ("parallel_text", "masked_lm")


@pytest.mark.parametrize("name", ["text/translate", "text/masked_lm"])
def test_without_its_corpus_an_experiment_names_the_command_for_it(name, call):
    code, out, err = call("train", f"experiment={name}")
    assert (code, out) == (2, "")
    assert "python -m lcg.tasks.corpora." in err
    assert err.count("\n") == 1


def test_the_commands_for_a_users_text_run_on_a_small_file(here):
    """The lengths of the docs are those of ordinary sentences: 180 pairs of 14 to 38 letters."""
    page = (Path(__file__).parents[2] / "docs/real-text.md").read_text(encoding="utf-8")
    found = re.search(r"lcg train (task=parallel_text task\.source=a\.de .*?)\n```", page, re.S)
    words = found[1].replace("\\\n", " ").split()
    names = ["Ada", "Bert", "Clara", "Dora", "Emil", "Frieda", "Gustav", "Hanna", "Ida", "Jakob"]
    says = {"de": ("{} sieht {}", " heute nicht im Garten"), "en": ("{} sees {}", " not today")}
    for side, (short, more) in says.items():
        lines = [
            short.format(*two) + more * long for two in permutations(names, 2) for long in (0, 1)
        ]
        (here / f"a.{side}").write_text("\n".join(lines), encoding="utf-8")
    assert load_config(words).task.digest


def test_translate_from_training_to_table(corpora, call):
    pytest.importorskip("sacrebleu")
    words = ["experiment=text/translate", "task.bpe=0", "evaluation.lengths=32,64", *TINY]
    code, _, err = call("train", *words)
    assert code == 0, err
    assert err.count("BLEU") == 2
    ladder = record(corpora)["ladder"]
    assert [set(cell["metrics"]) for cell in ladder] == [{"bleu", "chrf"}] * 2
    (run,) = (corpora / "runs").iterdir()
    code, out, err = call("eval", str(run))
    assert (code, record(corpora)["ladder"]) == (0, ladder), "nothing is computed again"
    code, out, err = call("table", "runs")
    assert code == 0, err
    assert "## chrF (0 to 100) of the same runs\n\n### parallel_text" in out
    code, out, err = call("inspect", str(run), "--length", "32", "--failed", "1", "--samples", "4")
    assert code == 0, err
    source = next(line for line in out.splitlines() if line.startswith("  source "))
    assert source.split(maxsplit=1)[1] in pairs()[0]
    assert "\n  written  " in out

    code, out, err = call("eval", str(run), "lengths=32", "samples=2000")
    assert code == 0, err
    assert "test ladder, up to 2000 samples per length" in err

    path = corpora / "corpora/de-en/gettext.de"
    path.write_text(path.read_text(encoding="utf-8").replace("null", "zero"), encoding="utf-8")
    code, out, err = call("eval", str(run))
    assert (code, out) == (2, "")
    assert "the text or its vocabulary has changed" in err


def test_masked_lm_from_training_to_table(corpora, call):
    words = ["experiment=text/masked_lm", "task.bpe=0", "evaluation.lengths=64", *TINY]
    code, _, err = call("train", *words, "data.min_length=32", "data.max_length=32")
    assert code == 0, err
    (cell,) = record(corpora)["ladder"]
    assert cell["metrics"]["masked_accuracy"] == pytest.approx(100 * cell["token_accuracy"])
    code, out, err = call("table", "runs")
    assert "## masked-token accuracy (0 to 100) of the same runs\n\n### masked_lm" in out
