"""Training that is not finite stops, says so, and spoils no checkpoint."""

import pytest
import torch
from processes import at_step, checkpoint, only_run, record
from tiny import tiny

# From step 16 on, a weight is infinite: the loss of step 17 is not a number.
SPOIL = """
from lcg.training.learner import Learner
original, count = Learner.update, []
def spoil(self):
    original(self)
    count.append(0)
    if len(count) == 15:
        self.module.model.head.weight.data[0, 0] = float("inf")
Learner.update = spoil
"""


def assert_finite(content):
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values())


@pytest.mark.parametrize(
    "words",
    [
        (),  # noticed at a validation step
        ("trainer.checkpoint_every=16", "validation.every=100", "trainer.log_every=100"),
        ("trainer.checkpoint_every=14", "validation.every=14", "trainer.log_every=17"),
        ("trainer.checkpoint_every=14", "validation.every=14", "trainer.log_every=100"),
        (
            *("attention=entmax_learned", "trainer.checkpoint_every=14"),
            *("validation.every=14", "trainer.log_every=100"),
        ),
    ],
    ids=["default", "due at once", "at a row", "at a checkpoint", "learned alpha"],
)
def test_not_finite_is_recorded_and_spoils_nothing(lcg, tmp_path, words):
    words = tiny(f"runs={tmp_path}", *words)
    process = lcg.run("train", *words, before=SPOIL)
    assert process.code == 4, process.err
    run = only_run(tmp_path)
    training = record(run)["training"]
    assert training["status"] == "not_finite"
    assert "not finite" in training["reason"]
    assert f"by step {training['step']}" in training["reason"]
    assert training["reason"] in process.err
    for path in (run / "checkpoints").glob("*.ckpt"):
        assert_finite(torch.load(path, weights_only=True))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    again = lcg.run("train", *words)
    assert again.code == 4
    changed = [p for p in before if p.read_bytes() != before[p] and p.name != ".lock"]
    assert changed == []


def test_the_last_good_checkpoints_stay(lcg, tmp_path):
    process = lcg.run("train", *tiny(f"runs={tmp_path}", "validation.every=5"), before=SPOIL)
    assert process.code == 4
    run = only_run(tmp_path)
    assert checkpoint(run)["global_step"] == 10
    assert checkpoint(run, "best")["step"] in (5, 10, 15)
    assert record(run)["selection"]["step"] == checkpoint(run, "best")["step"]


def test_a_real_divergence(lcg, tmp_path):
    words = tiny(f"runs={tmp_path}", "optimizer.lr=1e6", "optimizer.weight_decay=1e6")
    process = lcg.run("train", *words)
    assert process.code == 4, process.err
    assert "Traceback" not in process.err
    assert record(only_run(tmp_path))["training"]["final_loss"] is None


def test_a_stop_request_does_not_save_values_that_are_not_finite(lcg, tmp_path):
    """Between the step that spoils and the next one at which anybody looks."""
    stop = SPOIL + at_step(17, "os.kill(os.getpid(), signal.SIGTERM)")
    words = ("validation.every=100", "trainer.log_every=100")
    process = lcg.run("train", *tiny(f"runs={tmp_path}", *words), before=stop)
    assert process.code == 4, process.err
    assert checkpoint(only_run(tmp_path))["global_step"] == 10
