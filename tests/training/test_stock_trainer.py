"""The LightningModule and the LightningDataModule under a user's own `lightning.Trainer`.

Step by step the losses are those of `lcg train`, bit for bit: with dropout, with gradients that are
clipped, in both precisions, on two devices, and resumed in the middle.
"""

import json
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from processes import metrics, only_run
from tiny import tiny

from lcg.training.data import Batches, batch_loader

WORDS = ("optimizer.clip_norm=0.5", "trainer.log_every=1", "attention=asentmax", "trainer.steps=12")

SCRIPT = """
import json, sys
import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lcg.config import load_config
from lcg.training.module import TaskData, TrainingModule

words, precision, devices, folder, resume = json.loads(sys.argv[1])
config = load_config(words)

class Losses(Callback):
    def __init__(self):
        self.rows = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        loss = trainer.strategy.reduce(module.loss.clone(), reduce_op="mean")
        self.rows[trainer.global_step] = [float(loss), float(module.grad_norm)]

losses = Losses()
saving = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=5, save_top_k=-1)
trainer = lightning.Trainer(
    max_steps=config.trainer.steps,
    precision=precision,
    accelerator="cpu",
    devices=devices,
    callbacks=[losses, saving],
    logger=CSVLogger(folder),
    enable_progress_bar=False,
)
trainer.fit(TrainingModule(config), TaskData(config), ckpt_path=resume)
if trainer.is_global_zero:
    print(json.dumps(losses.rows))
"""


def by_a_stock_trainer(
    run, tmp_path, words, precision, devices=1, resume=None
) -> dict[int, list[float]]:
    """Loss and gradient norm of each step that the script makes."""
    out = run(json.dumps([words, precision, devices, str(tmp_path / "theirs"), resume]))
    return {int(step): row for step, row in json.loads(out.splitlines()[-1]).items()}


def forked(lcg, given: str) -> str:
    """What the script prints, in a process that need not import anything."""
    done = lcg.run(given, before=f"{SCRIPT}\nraise SystemExit(0)")
    assert done.code == 0, done.err
    return done.out


def started(tmp_path, given: str) -> str:
    """The same where Lightning starts the script once more, for the second device."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), given],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def logged(runs) -> dict:
    """Loss and gradient norm of each step in metrics.csv of the one run."""
    rows = [row for row in metrics(only_run(runs)) if row["train/loss"]]
    names = ("train/loss", "train/grad_norm")
    return {int(row["step"]): [float(row[name]) for name in names] for row in rows}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_losses_are_the_same_also_when_it_resumes(lcg, tmp_path, precision):
    words = tiny(*WORDS, f"trainer.precision={precision}", f"runs={tmp_path / 'runs'}")
    process = lcg.run("train", *words)
    assert process.code == 0, process.err
    ours = logged(tmp_path / "runs")
    assert list(ours) == list(range(1, 13))
    assert min(norm for _, norm in ours.values()) > 0.5  # every step is clipped
    theirs = partial(by_a_stock_trainer, partial(forked, lcg), tmp_path, words, precision)
    assert theirs() == ours
    (middle,) = (tmp_path / "theirs").glob("*step=5.ckpt")
    rest = theirs(resume=str(middle))
    assert rest == {step: row for step, row in ours.items() if step > 5}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_losses_are_the_same_on_two_devices(tmp_path, precision):
    """With the Trainer's own ways with samplers and buffers."""
    options = (f"trainer.precision={precision}", "trainer.devices=2", f"runs={tmp_path / 'runs'}")
    words = tiny(*WORDS, *options)
    process = subprocess.run(
        [sys.executable, "-m", "lcg", "train", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    ours = logged(tmp_path / "runs")
    run = partial(started, tmp_path)
    theirs = partial(by_a_stock_trainer, run, tmp_path, words, precision, devices=2)
    assert theirs() == ours
    (middle,) = (tmp_path / "theirs").glob("*step=5.ckpt")
    rest = theirs(resume=str(middle))
    assert rest == {step: row for step, row in ours.items() if step > 5}


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_take_turns(config, workers):

    options = config(f"data.workers={workers}")
    loader = batch_loader(options, 7, 1, 2, torch.device("cpu"))
    for t, batch in zip(range(7, 13), loader, strict=False):
        assert torch.equal(batch["inputs"], Batches(options, 1, 2)[t]["inputs"])
