"""Machines that are not there are refused before torch is imported, and nothing is written."""

import subprocess
import sys

import pytest
from processes import ROOT
from tiny import tiny

from lcg.config.schema import Trainer
from lcg.training import devices
from lcg.training.devices import check_machine

REFUSED = """
from lcg.attention import backends
backends.TRITON = False
import sys
from lcg.cli import main
assert main(sys.argv[1:]) == 2
assert "torch" not in sys.modules
"""


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(devices, "_built_for_cuda", lambda: False)
    monkeypatch.setattr(devices.platform, "system", lambda: "Linux")


@pytest.mark.parametrize("accelerator", ["cuda", "gpu", "mps"])
def test_an_accelerator_that_cannot_be_there(no_gpu, accelerator):
    said = f"^trainer.accelerator={accelerator}: this machine has none"
    with pytest.raises(ValueError, match=said):
        check_machine(Trainer(accelerator=accelerator))


def test_a_precision_that_needs_one(no_gpu):
    with pytest.raises(ValueError, match="16-mixed needs a GPU"):
        check_machine(Trainer(precision="16-mixed"))
    check_machine(Trainer(precision="bf16-mixed"))


def test_devices_that_may_exist_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(devices, "_built_for_cuda", lambda: True)
    check_machine(Trainer(accelerator="cuda", precision="16-mixed"))
    monkeypatch.setattr(devices, "_built_for_cuda", lambda: False)
    monkeypatch.setattr(devices.platform, "system", lambda: "Darwin")
    check_machine(Trainer(accelerator="mps"))


def test_devices_that_torch_was_built_for():
    import torch

    assert devices._built_for_cuda() == bool(torch.version.cuda or torch.version.hip)


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.nodes=2"],
        ["attention.backend=triton"],
        ["name=held"],
    ],
    ids=str,
)
def test_errors_do_not_import_torch(tmp_path, words):
    (tmp_path / "runs" / "held").mkdir(parents=True)
    (tmp_path / "runs" / "held" / "config.yaml").write_text("seed: 1")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, "train", *tiny(*words)],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_lengths_out_of_memory_or_of_days_are_reported_before_training():
    from lcg.config import load_config
    from lcg.training.devices import ladder_notes

    assert ladder_notes(load_config(["task=copy"])) == []
    asked = ["evaluation.lengths=64,1000000000000", "validation.samples=1000000000000"]
    long, many = sorted(ladder_notes(load_config(["task=copy", *asked])))
    assert long.startswith("evaluation.lengths: a sequence of length 1,000,000,000,000 needs at")
    assert many.startswith("validation.samples=1,000,000,000,000: ") and "tokens are eval" in many
