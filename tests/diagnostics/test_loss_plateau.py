"""Plateaus of synthetic losses, found where they are and not where they are not."""

import csv
import math

import numpy as np
import pytest
from tiny import tiny

from lcg.config import load_config
from lcg.diagnostics.loss_plateau import loss_plateau, plateau
from lcg.runs.record import RunRecord
from lcg.training.loop import train

WARMUP = 1000
STEPS = np.arange(50, 40_001, 50)


def noisy(losses, share, seed=0):
    rng = np.random.default_rng(seed)
    return losses * np.exp(share * rng.standard_normal(len(losses)))


def stuck(steps, level=0.54, start=5.57):
    """Falls quickly to a level and stays."""
    return level + (start - level) * np.exp(-steps / 300)


def leaves(at, over=300, level=0.54, end=0.002):
    """Sits on the level and drops around a step."""
    sigmoid = lambda steps: 0.5 - 0.5 * np.tanh((steps - at) / (over / 4))  # noqa: E731
    return lambda steps: end + (stuck(steps, level) - end) * sigmoid(steps)


def found(losses, steps=STEPS):
    return plateau(zip(steps.tolist(), losses.tolist(), strict=True), WARMUP)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("at", [5000, 16_000, 37_000])
def test_a_plateau_that_is_left(at, share):
    measured = found(noisy(leaves(at)(STEPS), share))
    assert measured["plateau_loss"] == pytest.approx(0.54, rel=0.05)
    # the smoothing over 19 rows may move the step by less than half of it
    assert abs(measured["plateau_left_at"] - at) <= 450


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
def test_a_plateau_that_is_never_left(share):
    measured = found(noisy(stuck(STEPS), share))
    assert measured["plateau_left_at"] is None
    assert measured["plateau_loss"] == pytest.approx(0.54, rel=0.03)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(
    "curve",
    [
        lambda steps: 3.47 * np.exp(-steps / 2500) + 1e-4,  # done, and then level near 0
        lambda steps: 3.47 * (steps / 50) ** -0.5,  # a power law
        lambda steps: 3.47 * np.exp(-steps / 15_000),  # not done at the end
    ],
    ids=["exponential", "power", "slow"],
)
def test_a_loss_that_falls_all_the_time_has_no_plateau(curve, share):
    assert found(noisy(curve(STEPS), share)) == {"plateau_left_at": None, "plateau_loss": None}


def test_falling_back_is_not_leaving():
    """A drop that does not last, then one that does: the second counts."""
    losses = leaves(10_000)(STEPS)
    losses[(STEPS > 14_000) & (STEPS < 24_000)] = 0.54
    assert abs(found(noisy(losses, 0.02))["plateau_left_at"] - 24_000) <= 500
    losses[STEPS > 14_000] = 0.54
    assert found(noisy(losses, 0.02))["plateau_left_at"] is None


def test_single_spikes_do_not_matter():
    losses = leaves(16_000)(STEPS)
    losses[::37] *= 20
    measured = found(losses)
    assert measured["plateau_loss"] == pytest.approx(0.54, rel=0.03)
    assert abs(measured["plateau_left_at"] - 16_000) <= 500


def test_rows_that_are_not_finite_are_left_out():
    losses = noisy(leaves(16_000)(STEPS), 0.02)
    clean = found(losses)
    spoilt = losses.copy()
    spoilt[[3, 100, 101, 500]] = math.nan
    spoilt[700] = math.inf
    measured = found(spoilt)
    assert measured["plateau_loss"] == pytest.approx(clean["plateau_loss"], rel=0.01)
    assert abs(measured["plateau_left_at"] - clean["plateau_left_at"]) <= 100
    assert found(np.full(len(STEPS), math.nan))["plateau_loss"] is None


def test_few_rows_have_no_plateau_and_a_short_run_can():
    steps = np.arange(250, 2001, 250)
    assert found(stuck(steps), steps)["plateau_loss"] is None
    steps = np.arange(50, 2001, 50)
    losses = np.where(steps < 1600, 3.47, 0.3)
    measured = plateau(zip(steps.tolist(), losses.tolist(), strict=True), 100)
    assert measured == {"plateau_left_at": 1600, "plateau_loss": 3.47}


def test_scalers_that_exploded(tmp_path):
    path = tmp_path / "metrics.csv"
    lines = ["step,scaler/layer_0/p95,scaler/layer_1/p95,scaler/layer_0/max,scaler/layer_1/max"]
    for row, exploded in (
        ("10,80,,90,", {"scaler_p95": 80.0, "scaler_max": 90.0}),
        ("20,2,,3,", {}),  # it came back
        ("30,2,18.12345,3,287", {"scaler_p95": 18.123, "scaler_max": 287.0}),
        ("30,,,,", {"scaler_p95": 18.123, "scaler_max": 287.0}),
    ):
        lines.append(row)
        path.write_text("\n".join(lines) + "\n")
        nothing = {"plateau_left_at": None, "plateau_loss": None}
        assert loss_plateau(path, WARMUP) == nothing | exploded


def test_it_is_read_from_a_file_with_holes(tmp_path):
    path = tmp_path / "metrics.csv"
    lines = ["step,train/loss,scaler/layer_0/p95,scaler/layer_0/max"]
    for step, loss in zip(STEPS.tolist(), leaves(16_000)(STEPS).tolist(), strict=True):
        lines.append(f"{step},{'nan' if step == 5000 else loss},,")
        lines += [f"{step},,40,300"] if step % 1000 == 0 else []
    path.write_text("\n".join(lines) + "\n")
    read = loss_plateau(path, WARMUP)
    assert abs(read.pop("plateau_left_at") - 16_000) <= 500
    assert read.pop("plateau_loss") == pytest.approx(0.54, rel=0.03)
    assert read == {"scaler_p95": 40.0, "scaler_max": 300.0}


def test_a_real_run_that_learns_nothing_stays_on_its_first_plateau(tmp_path):
    words = ("optimizer.lr=1e-9", "trainer.steps=60", "trainer.log_every=2", "model.dropout=0")
    config = load_config(tiny(f"runs={tmp_path}", *words))
    run = train(config, progress=False).directory
    with (run / "metrics.csv").open(newline="") as file:
        losses = [float(r["train/loss"]) for r in csv.DictReader(file) if r["train/loss"]]
    read = RunRecord.load(run).fate
    assert set(read) == {"plateau_left_at", "plateau_loss"}
    assert read["plateau_left_at"] is None
    assert read["plateau_loss"] == pytest.approx(np.median(losses), rel=0.1)


def test_the_record_keeps_its_fate_when_more_is_evaluated(tiny_run):
    record = RunRecord.load(tiny_run)
    assert record.fate == {"plateau_left_at": None, "plateau_loss": None}  # 8 rows say nothing
    again = RunRecord.from_dict(record.merge([]).to_dict())
    assert again.fate == record.fate
