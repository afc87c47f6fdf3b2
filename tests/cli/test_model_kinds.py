"""Every command runs on encoders and encoder–decoders, and the probe logs all of their layers."""

import csv
import shutil

import pytest
from tiny import tiny

from lcg.config import load_config
from lcg.diagnostics.columns import attention_layers, probe_columns
from lcg.runs.record import RunRecord

KINDS = {
    "encoder": ("task=n_back", "model.kind=encoder", "data.min_length=3"),
    "encoder_decoder": (
        "task=reverse",
        "model.kind=encoder_decoder",
        "model.encoder_layers=1",
        "model.layers=2",
    ),
}
LAYERS = {
    "encoder": [("layer_0", "full")],
    "encoder_decoder": [
        ("encoder_0", "full"),
        ("decoder_0", "causal"),
        ("cross_0", "cross"),
        ("decoder_1", "causal"),
        ("cross_1", "cross"),
    ],
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def trained(kind, train_once):
    """A finished run with a ladder, with learned α and a scaling."""
    words = [*KINDS[kind], "attention=entmax_learned", "attention.scaling=adaptive"]
    return train_once(*words, "evaluation.after_training=true")


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs" / trained.name)


def test_the_probe_logs_every_layer(kind, trained):
    config = load_config(tiny(*KINDS[kind], "attention=entmax_learned"))
    assert [tuple(layer) for layer in attention_layers(config)] == LAYERS[kind]
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    probed = [row for row in rows if row[probe_columns(config)[0]]]
    assert len(probed) == 2
    for name in probe_columns(config):
        assert all(row[name] for row in probed), name
    for name, attends in LAYERS[kind]:
        groups = ("all",) if attends == "cross" else ("scaled", "unscaled")
        for group in groups:
            assert float(probed[-1][f"heads/{name}/{group}/support"]) >= 1
        alphas = [row[f"alpha/{name}/head_1"] for row in rows]
        assert rows[0]["step"] == "0" and all(1 < float(a) < 2 for a in (alphas[0], *alphas) if a)
        assert float(probed[-1][f"scaler/{name}/p50"]) > 0


def test_the_record_has_its_kind(kind, trained):
    assert RunRecord.load(trained).settings["kind"] == kind


def test_eval_greedy_is_eval(call, kind, run):
    code, out, err = call("eval", str(run), "lengths=8,11", "samples=6")
    assert code == 0, err
    code, out, err = call("eval", str(run), "lengths=8", "samples=6", "decode=greedy")
    assert code == 0, err
    assert "exact match" in out + err


def test_inspect(call, kind, run):
    code, out, err = call("inspect", str(run), "--length", "7", "--samples", "5")
    assert code == 0, err
    for name, _ in LAYERS[kind]:
        assert (run / "plots" / "inspect_len_7" / f"{name}.png").stat().st_size > 5000
    lines = out.partition("head  ")[2]
    shown = [name for name, _ in LAYERS[kind]]
    assert all(any(line.split()[:1] == [name] for line in lines.splitlines()) for name in shown)
    last = LAYERS[kind][-1][0]
    words = ("--samples", "2", "--layer", last, "-o", str(run / "maps"))
    code, out, err = call("inspect", str(run), "--length", "7", *words)
    assert code == 0, err
    assert [path.name for path in (run / "maps").iterdir()] == [f"{last}.png"]
    code, _, err = call("inspect", str(run), "--length", "7", "--layer", "cross_9")
    assert code == 2 and "--layer cross_9: " in err


def test_tables_plots_selection_and_report(call, kind, run, tmp_path):
    for command in ("table", "plot", "select"):
        code, _, err = call(command, str(run.parent))
        assert code == 0, (command, err)
    page = tmp_path / "page.html"
    last = LAYERS[kind][-1][0]
    code, _, err = call(
        "report", str(run.parent), "--map-length", "6", "--heads", f"0:0,{last}:1", "-o", str(page)
    )
    assert code == 0, err
    text = page.read_text()
    for name, _ in LAYERS[kind]:
        assert name.replace("_", " ") in text
    assert f"{last.replace('_', ' ')}, head 1" in text


def test_a_dry_run_projects(call, kind, tmp_path, timed_by_a_fork):
    words = tiny(*KINDS[kind], f"runs={tmp_path}", "attention=entmax_learned")
    code, out, err = call("train", *words, "--dry-run")
    assert code == 0, err
    assert "parameters " in out and "memory " in out
    assert not list(tmp_path.rglob("*.ckpt"))
