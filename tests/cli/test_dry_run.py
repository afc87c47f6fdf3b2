"""A dry run estimates what a run takes from its own steps, in bounded time, and writes nothing."""

import math
import re

import pytest
import torch
from omegaconf import OmegaConf

from lcg.config import load_config, to_tree
from lcg.evaluation import memory
from lcg.models.transformer import build_model
from lcg.text import duration, size
from lcg.training import estimate, measurement, timing
from lcg.training.learner import Learner

ENDLESS = """
import signal, time
from dataclasses import dataclass
from lcg.tasks.copy import Copy
@dataclass
class Endless(Copy):
    \"\"\"Never draws a sequence.\"\"\"
    name = "endless"
    def sample(self, rng, lengths):
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left <= 20, "its time is not limited"
        signal.setitimer(signal.ITIMER_REAL, 0.001)  # as if it was over
        time.sleep(10**6)
"""


@pytest.fixture
def measured(here, tiny):
    """All that is measured of a tiny run in `seconds`."""

    def measured(*words: str, seconds: float = math.inf) -> estimate.Projection:
        *_, last = measurement.measure(load_config(tiny(*words)), seconds)
        return last

    return measured


def test_dry_run_prints_config_and_estimate(call, tiny, written):
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
    assert found["training"].endswith("s") and ": 6 steps of " in found["training"]
    assert found["validation"].endswith(" at lengths 4, 8") and ": 2 of " in found["validation"]
    assert "Measured on cpu, 1 thread:" in rest
    assert re.search(r"a step: (all 8|\d of 8) sequences, ", rest)
    assert "timing a few steps, for at most 20 s" in err


def test_a_command_that_asks_for_an_estimate_needs_no_torch(process):
    done = process("-c", "import sys, lcg.training.timing; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_a_whole_batch_is_timed_where_there_is_time(measured):
    found = measured()
    assert str(found.step) == "all 8 sequences, 20 times"
    assert [str(each) for each in found.lengths.values()] == ["all 16 sequences, once"] * 2
    assert not found.is_bound


def test_a_part_of_a_batch_is_scaled_where_there_is_none(measured):
    found = measured("data.batch_size=1000000000", seconds=0.0)
    assert str(found.step) == "1 of 1,000,000,000 sequences, scaled in proportion"
    assert found.step_seconds == pytest.approx(10**9 * found.step.seconds, rel=0.1)
    assert [each.part for each in found.lengths.values()] == [1, 1]


def test_parts_grow_while_they_end_in_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measurement.time, "perf_counter", lambda: now[0])

    def work(part: int) -> float:
        now[0] += part
        return float(part)

    def parts(whole: int, end: float, **options) -> list[int]:
        now[0] = 0.0
        taken = estimate.Timing(whole)
        return list(measurement._growing(taken, work, whole, end, **options))

    assert parts(8, 100) == [1, 1, 2, 4, 8]
    assert parts(6, 100) == [1, 1, 2, 4, 6]
    assert parts(1, 100) == [1, 1]
    assert parts(8, 10) == [1, 1, 2, 4]  # 8 + 8 > 10
    assert parts(8, -1) == [1]
    assert parts(8, 100, fits=lambda part: part < 4) == [1, 1, 2]


def test_a_step_that_does_not_end_is_ended(here, tiny, timed_by_a_fork):
    """Also in the middle of it; what is known without it is said, and later runs are missing."""
    (here / "endless.py").write_text(ENDLESS)
    words = tiny("task=./endless.py:Endless")
    whole, found = timing.time_runs([tiny(), words, words])
    assert whole.step.part and not whole.notes
    assert found.step.part == 0 and found.is_bound
    assert found.waited > 0
    assert found.parameters > 0
    text = estimate.as_text(load_config(words), found)
    assert "\ntraining    more than " in text
    assert ": 6 steps of more than " in text
    assert "\ntogether    more than " in text
    assert "  a step: not measured, out of time" in text
    assert "Timing ran out of time in a step of one sequence, after " in text


def test_errors_in_a_run_are_one_line(here, tiny, timed_by_a_fork):
    with pytest.raises(ValueError, match="cannot be drawn"):
        wrong = ENDLESS.replace("time.sleep(10**6)", "raise ValueError('cannot be drawn')")
        (here / "wrong.py").write_text(wrong.replace("ITIMER_REAL, 0.001", "ITIMER_REAL, 0"))
        timing.time_runs([tiny("task=./wrong.py:Endless")])


def test_a_model_beyond_the_memory_is_not_made(measured):
    found = measured("model.d_model=360448", "model.layers=2")
    assert found.parameters > 10**12
    assert found.memory_bytes > found.free_bytes
    assert "do not fit in memory" in str(found.step)


def test_batches_grow_only_as_far_as_the_memory(measured, monkeypatch):
    taken = []

    def peak(device) -> int:
        taken.append(0)
        return len(taken) * 2**30

    monkeypatch.setattr(measurement, "_peak_memory", peak)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2**30)
    found = measured("data.batch_size=64")
    assert 1 <= found.step.part < 64
    assert "more are not expected to fit in memory" in str(found.step)


def test_time_grows_with_steps_and_validations(measured):
    short = measured()
    assert (short.steps, short.validations, short.step.times) == (6, 2, 20)
    long = measured("trainer.steps=601", "validation.every=100")
    assert (long.steps, long.validations) == (601, 7)  # the last step is validated too
    for found in (short, long):
        steps, passes = found.steps * found.step_seconds, found.validations
        assert found.seconds == pytest.approx(steps + passes * found.validation_seconds)
        assert found.step_seconds > estimate.BOOKKEEPING


def test_steps_are_the_run_s_own(measured, tiny, monkeypatch):
    """The timed batches are those that training reads."""
    from lcg.training.data import Batches

    widths = []
    train_step = Learner.train_step

    def spying(learner, batch, step):
        widths.append(batch["inputs"].shape)
        train_step(learner, batch, step)

    monkeypatch.setattr(Learner, "train_step", spying)
    words = ("data.batch_size=12", "data.max_length=32")
    measured(*words)
    assert [rows for rows, _ in widths] == [1, 1, 2, 4, 8, *[12] * 21]
    batches = Batches(load_config(tiny(*words)), 0, 1)
    assert widths[6] == batches[6]["inputs"].shape


def test_disk_is_what_the_run_takes(call, tiny, here):
    words = tiny("model.d_model=64", "model.d_ff=256")
    *_, found = measurement.measure(load_config(words))
    _, out, _ = call("train", *words)
    files = list((here / out.strip() / "checkpoints").glob("*.ckpt"))
    assert len(files) == 3
    assert sum(file.stat().st_size for file in files) == pytest.approx(found.disk_bytes, rel=0.15)


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


def test_validation_that_does_not_fit_is_reported(measured, monkeypatch, tiny):
    def refuse(config, tokens, device, scored=1):
        if tokens > 15:
            raise MemoryError("one sequence needs more")

    monkeypatch.setattr(memory, "check_fits", refuse)
    found = measured()
    assert [each.part > 0 for each in found.lengths.values()] == [True, False]
    text = estimate.as_text(load_config(tiny()), found)
    assert "validation at length 8: not measured, out of memory: one sequence needs more" in text
    assert "\nvalidation  more than " in text


def test_an_accelerator_that_is_not_there(call, tiny, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, _, err = call("train", *tiny("trainer.accelerator=cuda"), "--dry-run")
    assert code == 2
    assert err.splitlines()[-1] == "lcg: trainer.accelerator=cuda: this machine has none"


def test_a_precision_without_instructions_is_a_warning(measured, monkeypatch):
    from lcg.training import devices

    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    found = measured("trainer.precision=bf16-mixed")
    (note,) = found.notes
    assert note.startswith("trainer.precision=bf16-mixed is slow on this CPU")
    assert devices.slow_precision(load_config(["trainer.precision=32-true"]).trainer, cpu) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.123, "0.12 s"),
        (42, "42 s"),
        (119, "119 s"),
        (600, "10 min"),
        (9000, "2.5 h"),
        (864000, "10 days"),
        (86400000, "1,000 days"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(500, "500 bytes"), (2048, "2 KiB"), (5 * 2**20, "5 MiB"), (3 * 2**41, "6,144 GiB")],
)
def test_sizes(count, text):
    assert size(count) == text
