"""A dry run says what a run takes, from its own steps, and writes nothing."""

import json
import re

import pytest
import torch
from omegaconf import OmegaConf

from lcg.config import load_config, to_tree
from lcg.models.build import build_model
from lcg.training import projection


@pytest.fixture
def measured(here, tiny):
    def measured(*words: str) -> projection.Projection:
        return projection.measure(load_config(tiny(*words)))

    return measured


def test_dry_run_prints_config_and_projection(call, tiny, written):
    before = written()
    code, out, err = call("train", *tiny(), "--dry-run")
    assert code == 0
    assert written() == before
    config, _, rest = out.partition("\n\n")
    assert OmegaConf.to_container(OmegaConf.create(config)) == to_tree(load_config(tiny()))
    parameters = sum(p.numel() for p in build_model(load_config(tiny())).parameters())
    found = dict(line.split(None, 1) for line in rest.splitlines() if line[:1].islower())
    assert list(found) == [
        "run",
        "parameters",
        "training",
        "validation",
        "together",
        "memory",
        "disk",
    ]
    assert found["run"].startswith("runs/copy-softmax-nape-s0-")
    assert found["parameters"] == f"{parameters:,}"
    assert re.fullmatch(r"[\d.]+ s: 6 steps of [\d.]+ ms", found["training"])
    assert re.fullmatch(r"[\d.]+ s: 2 of [\d.]+ s at lengths 4, 8", found["validation"])
    assert "Projected from 20 steps and one pass at each validation length on cpu" in rest
    assert "timing 20 steps" in err


def test_time_grows_with_steps_and_validations(measured):
    short = measured()
    assert (short.steps, short.validations, short.timed_steps) == (6, 2, 20)
    long = measured("trainer.steps=601", "validation.every=100")
    assert (long.steps, long.validations) == (601, 7)  # the last step is validated too
    for found in (short, long):
        assert found.training_seconds == pytest.approx(found.steps * found.step_seconds)
        assert projection.BOOKKEEPING < found.step_seconds < 1


def test_steps_are_the_run_s_own(measured):
    small, large = measured(), measured("data.batch_size=128", "data.max_length=32")
    assert large.step_seconds - projection.BOOKKEEPING > 3 * (
        small.step_seconds - projection.BOOKKEEPING
    )


def test_fewer_steps_when_they_take_too_long(measured, monkeypatch):
    monkeypatch.setattr(projection, "PATIENCE", 0.0)
    assert measured().timed_steps == 3


def test_disk_is_what_the_run_takes(call, tiny, here):
    words = tiny("model.d_model=64", "model.d_ff=256")
    projected = projection.measure(load_config(words)).disk_bytes
    _, out, _ = call("train", *words)
    files = list((here / out.strip() / "checkpoints").glob("*.ckpt"))
    assert len(files) == 3
    assert sum(file.stat().st_size for file in files) == pytest.approx(projected, rel=0.15)


def test_disk_of_a_run_that_saves_once(measured):
    once, often = measured("trainer.checkpoint_every=6"), measured()
    assert often.disk_bytes - once.disk_bytes == once.checkpoint_bytes
    assert once.weight_bytes == 4 * once.parameters
    assert once.checkpoint_bytes == pytest.approx(3 * once.weight_bytes, rel=0.02)


def test_memory_is_at_least_what_is_held(measured):
    found = measured()
    assert found.memory_bytes > 100 * 2**20  # Python and torch alone


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_every_precision_of_a_cpu(precision, measured):
    found = measured(f"trainer.precision={precision}")
    width = 2 if precision == "bf16-true" else 4
    assert found.weight_bytes == width * found.parameters


def test_validation_that_does_not_fit_is_said(measured, monkeypatch, here, tiny):
    from lcg.evaluation import memory

    monkeypatch.setattr(memory, "available_bytes", lambda device: 1)
    found = measured()
    assert found.too_long == [4, 8]
    text = projection.as_text(load_config(tiny()), found)
    assert "Validation at 4, 8 does not fit in memory." in text


def test_an_accelerator_that_is_not_there(call, tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = call("train", *tiny("trainer.accelerator=cuda"), "--dry-run")
    assert code == 2
    assert err.splitlines()[-1] == "lcg: trainer.accelerator=cuda: there is none on this machine"


@pytest.mark.slow
def test_the_projection_is_near_the_truth(call, here):
    words = ["trainer.steps=150", "trainer.accelerator=cpu", "wandb.mode=disabled"]
    words += ["evaluation.after_training=false"]
    projected = projection.measure(load_config(words))
    _, out, _ = call("train", *words)
    seconds = json.loads((here / out.strip() / "results.json").read_text())["training"]["seconds"]
    assert 1 / 2 < projected.training_seconds / seconds < 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.123, "0.12 s"),
        (42, "42 s"),
        (119, "119 s"),
        (600, "10 min"),
        (9000, "2.5 h"),
        (864000, "10 days"),
    ],
)
def test_durations(seconds, text):
    assert projection.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(500, "500 bytes"), (2048, "2 KiB"), (5 * 2**20, "5 MiB"), (3 * 2**41, "6.14e+03 GiB")],
)
def test_sizes(count, text):
    assert projection.size(count) == text
