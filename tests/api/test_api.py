"""The Python surface does what the commands do, and importing it costs nothing."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny

import lcg
from lcg.config import ConfigError

ROOT = Path(__file__).parents[2]
LADDER = ("evaluation.lengths=8,12", "evaluation.after_training=true")


def python(code: str, folder: Path, **options) -> subprocess.CompletedProcess:
    """Run code in a process of its own, in a folder of a user."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in the attention alone."""
    folder = tmp_path_factory.mktemp("runs")
    names = ("entmax15", "softmax")
    return [lcg.train(*tiny(f"runs={folder}", *LADDER, f"attention={name}")) for name in names]


# ---- the names


def test_importing_it_imports_nothing_else(tmp_path):
    done = python(
        "import sys, lcg\n"
        "assert [m for m in sys.modules if m.startswith('lcg')] == ['lcg']\n"
        "assert set(lcg.__all__) <= set(dir(lcg))\n"
        "lcg.load_runs, lcg.train\n"
        "assert not {'torch', 'lightning', 'wandb', 'matplotlib'} & set(sys.modules)\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def forked(fork_server, tmp_path):
    """As `python`, in a process that need not import torch; returns exit code, stdout, stderr."""

    def forked(code: str) -> tuple[int, str, str]:
        done = fork_server.run(folder=tmp_path, before=f"{code}\nraise SystemExit")
        return done.code, done.out, done.err

    yield forked
    fork_server.clean()


def test_no_name_is_a_module_once_all_are_imported(forked):
    modules = {m.name for m in pkgutil.iter_modules(lcg.__path__)}
    assert not modules & set(lcg.__all__)
    code, _, err = forked(
        "import importlib, inspect, pkgutil, lcg\n"
        "for module in pkgutil.walk_packages(lcg.__path__, 'lcg.'):\n"
        "    if not module.name.startswith(('lcg.__main__', 'lcg.attention.backends.triton.')):\n"
        "        importlib.import_module(module.name)\n"
        "assert not any(inspect.ismodule(getattr(lcg, name)) for name in lcg.__all__)\n"
        "assert callable(lcg.attention.attend)\n"
    )
    assert code == 0, err


@pytest.mark.parametrize("name", lcg.__all__)
def test_each_name_says_what_it_does_and_of_which_types(name):
    thing = getattr(lcg, name)
    assert len(inspect.getdoc(thing).splitlines()) > 1
    for function in [thing] if inspect.isfunction(thing) else [thing.model, thing.evaluate]:
        parameters = inspect.signature(function).parameters.values()
        assert all(p.annotation is not p.empty for p in parameters if p.name != "self")
    assert (ROOT / "lcg" / "py.typed").is_file()
    assert f"lcg.{name}" in (ROOT / "docs" / "python.md").read_text() or name == "Run"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'lcg' has no attribute 'trian'"):
        lcg.trian  # noqa: B018


# ---- the page


def test_the_page_runs(forked, tmp_path):
    text = (ROOT / "docs" / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    text = "\n".join(blocks)
    assert '"trainer.steps=200"' in text and '"validation.every=100"' in text
    text = text.replace("trainer.steps=200", "trainer.steps=40").replace("every=100", "every=20")
    code, out, err = forked(text)
    assert code == 0, err
    assert "finished" in out and "## Exact match" in out
    assert (tmp_path / "n_back.svg").is_file()


# ---- training


def test_it_is_the_run_of_the_command(runs, tmp_path, fork_server):
    words = tiny(f"runs={tmp_path}", *LADDER, "attention=entmax15")
    assert fork_server.run("train", *words, folder=tmp_path).code == 0
    (other,) = lcg.load_runs(tmp_path)
    run = runs[0]
    assert other.path.name == run.path.name
    untimed = [[vars(c) | {"seconds": 0} for c in r.record.ladder] for r in (run, other)]
    assert untimed[0] == untimed[1]
    for mine, theirs in zip(run.model().parameters(), other.model().parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_finished_run_is_not_trained_again(runs):
    words = tiny(f"runs={runs[0].path.parent}", *LADDER, "attention=entmax15")
    before = runs[0].record_file.read_bytes()
    assert lcg.train(*words).path == runs[0].path
    assert runs[0].record_file.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sed": 1}, "sed is not an option"),
        ({"seed": "x"}, "seed"),
        ({"task": None}, "task"),
        ({"lengths": [1, 2]}, "lengths is not an option"),
    ],
)
def test_unsupported_combinations_are_one_line(options, said, tmp_path):
    with pytest.raises(ConfigError, match=said) as error:
        lcg.train(f"runs={tmp_path}", "attention=softmax", **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_several_processes_are_for_the_command(tmp_path):
    with pytest.raises(ValueError, match="with the command `lcg train`"):
        lcg.train(*tiny(f"runs={tmp_path}", "trainer.devices=2"))


def test_an_interrupted_call_resumes(forked, tmp_path):
    """Ctrl-C in the middle saves, then stops the script; the same call ends as one in one go."""
    words = tiny(f"runs={tmp_path / 'stopped'}")
    code = f"import lcg\nlcg.train(*{words!r})"
    stop = (
        "import os, signal\nfrom lcg.runs.metrics import CSVMetrics\nlog = CSVMetrics.log\n"
        "def stop(self, step, metrics):\n"
        "    log(self, step, metrics)\n"
        "    if step == 4: os.kill(os.getpid(), signal.SIGINT)\n"
        "CSVMetrics.log = stop\n"
    )
    ended, _, err = forked(stop + code)
    assert ended == 1, err
    assert "KeyboardInterrupt: stopped at step 4" in err
    ended, _, err = forked(code)
    assert ended == 0, err
    whole = lcg.train(*tiny(f"runs={tmp_path / 'whole'}"))
    (resumed,) = lcg.load_runs(tmp_path / "stopped")
    assert resumed.record.training.status == "finished"
    for mine, theirs in zip(whole.model().parameters(), resumed.model().parameters(), strict=True):
        assert torch.equal(mine, theirs)


# ---- runs


def test_contents_of_a_run(runs):
    run = lcg.load(runs[0].path)
    assert run.config.seed == run.record.seed
    steps, loss = run.metrics["train/loss"]
    assert len(steps) == len(loss) > 0
    assert run.provenance["packages"]["torch"] == torch.__version__


def test_a_place_without_a_run(tmp_path):
    with pytest.raises(ValueError, match="not a run directory"):
        lcg.load(tmp_path)
    with pytest.raises(ValueError, match=r"no results\.json"):
        lcg.load_runs(tmp_path)


def test_more_lengths(runs):
    run = lcg.load(runs[1].path)
    cells = run.evaluate(lengths=[8, 15], samples=8)
    assert [cell.length for cell in cells] == [8, 15]
    assert {cell.samples for cell in cells} == {8}
    assert set(cells) <= set(run.record.ladder) == set(lcg.load(run.path).record.ladder)
    with pytest.raises(ValueError, match="samples"):
        run.evaluate(samples=0)
    with pytest.raises(ValueError, match="sampels"):
        run.evaluate(sampels=8)


def test_other_options_at_evaluation(runs):
    run = lcg.load(runs[0].path)
    own = run.record.ladder
    cells = run.evaluate("attention.normalizer.alpha=2", lengths=[8], samples=8)
    (changed,) = run.evaluate(lengths=[8], samples=8, attention="softmax")
    assert cells[0].changes == {"attention.normalizer.alpha": 2.0}
    assert changed.changes == {"attention.normalizer.name": "softmax"}
    assert run.config.attention.normalizer.name == "entmax", "the run is as it was"
    assert {c.key for c in run.record.ladder} == {c.key for c in (*own, *cells, changed)}
    names = {row["name"] for row in lcg.records([run])}
    assert {name.partition(" → ")[2] for name in names} == {
        "",
        "alpha=2 at evaluation",
        "normalizer=softmax at evaluation",
    }
    with pytest.raises(ValueError, match="would be new"):
        run.evaluate(attention="entmax_learned")


def test_the_weights_of_heads(runs):
    run, tokens = runs[1], torch.tensor([1, 0, 2, 1, 1])
    layers = run.attention(tokens)
    assert list(layers) == [f"layer_{i}" for i in range(run.config.model.layers)]
    for weights in layers.values():
        assert weights.shape == (1, run.config.model.heads, 5, 5)
        assert torch.equal(weights, weights.tril())
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
    torch.testing.assert_close(run.attention(tokens[None])["layer_0"], layers["layer_0"])


def test_tables_pictures_and_rows(runs):
    from matplotlib.figure import Figure

    from lcg.results import table

    text = lcg.table(runs)
    assert text == table([run.record for run in runs])
    assert text._repr_markdown_() == text
    figure = lcg.plot(runs)
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    rows = lcg.records(runs)
    assert {row["attention"] for row in rows} == {"entmax15", "softmax"}
    assert {8, 12} <= {row["length"] for row in rows}
    with pytest.raises(ValueError, match="token_acuracy"):
        lcg.table(runs, metric="token_acuracy")


# ---- layers


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("attention", ["asentmax", "softmax", "entmax_learned", "relu"])
def test_a_layer_in_a_users_model(attention, causal):
    torch.manual_seed(0)
    layer = lcg.attention_layer(
        d_model=16, heads=4, attention=attention, position="nape", causal=causal, kv_heads=2
    )
    x = torch.randn(2, 7, 16, requires_grad=True)
    y = layer(x)
    assert y.shape == x.shape
    (gradient,) = torch.autograd.grad(y[:, 3].sum(), x)
    assert gradient[:, 4:].any() != causal


def test_options_of_a_layer():
    layer = lcg.attention_layer(
        "attention.normalizer.alpha=2", d_model=16, heads=2, attention="entmax", position="rope"
    )
    assert layer.attention.normalizer.alpha == 2
    layer = lcg.attention_layer(
        d_model=16, heads=4, scaling="log", backend="reference", sink="learned", kv_heads=2
    )
    assert (layer.attention.scaling.name, layer.backend) == ("log", "reference")
    assert layer.sizes.kv_heads == 2 and "sink" in layer.normalizer_state
    with pytest.raises(ConfigError, match="alhpa") as error:
        lcg.attention_layer("attention.normalizer.alhpa=2", d_model=16, heads=2)
    assert "\n" not in str(error.value)


def test_the_package_exports_the_names_of_the_module():
    for name in lcg.__all__:
        home = "lcg.attention.functional" if name == "attend" else "lcg.api"
        assert getattr(importlib.import_module(home), name) is getattr(lcg, name)
