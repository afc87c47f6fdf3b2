"""Learning rate, decay, clipping, precision, and which tensors are trained."""

import math

import pytest
import torch
from processes import checkpoint, metrics
from sampling import sampled

from lcg.config import choices
from lcg.config.schema import Optimizer
from lcg.training.data import Batches
from lcg.training.loop import train
from lcg.training.module import TaskData, TrainingModule, learning_rate_factor

# ---- the schedule


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.1), (1, 0.2), (9, 1.0), (10, 1.0), (35, 0.75), (60, 0.5), (85, 0.25), (110, 0.0)],
)
def test_warm_up_and_cosine(step, factor):
    """10 steps up, 100 down; at a third and two thirds of a cosine stand 3/4 and 1/4."""
    options = Optimizer(warmup_steps=10)
    third = {35: 10 + 100 / 3, 85: 10 + 200 / 3}.get(step, step)
    assert learning_rate_factor(third, options, 110) == pytest.approx(factor, abs=1e-12)


def test_the_cosine_ends_at_final_lr():
    options = Optimizer(warmup_steps=10, final_lr=0.2)
    assert learning_rate_factor(10, options, 110) == pytest.approx(1.0)
    assert learning_rate_factor(60, options, 110) == pytest.approx(0.6)
    assert learning_rate_factor(110, options, 110) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("step", "factor"), [(4, 0.5), (10, 1.0), (35, 0.8), (60, 0.6), (110, 0.2)]
)
def test_linear_decay(step, factor):
    options = Optimizer(warmup_steps=10, final_lr=0.2, decay="linear")
    assert learning_rate_factor(step, options, 110) == pytest.approx(factor)


def test_without_warm_up_the_first_step_has_the_peak():
    assert learning_rate_factor(0, Optimizer(warmup_steps=0), 10) == 1.0


def test_all_warm_up():
    assert learning_rate_factor(9, Optimizer(warmup_steps=10), 10) == 1.0


def test_metrics_report_the_rate_that_was_used(config):
    """The optimiser of step s (from 1) uses the factor of s - 1."""
    options = config("trainer.log_every=1", "optimizer.lr=0.01")
    outcome = train(options, progress=False)
    rates = [float(row["train/lr"]) for row in metrics(outcome.directory) if row["train/lr"]]
    expected = [0.01 * (step + 1) / 5 for step in range(5)]
    expected += [0.005 * (1 + math.cos(math.pi * (step - 5) / 25)) for step in range(5, 30)]
    assert rates == pytest.approx(expected)


def test_the_rate_of_the_optimiser_is_the_reported_one(config, monkeypatch):
    used = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *a, **k: (used.append(self.param_groups[0]["lr"]), step(self, *a, **k))[1],
    )
    outcome = train(config("trainer.log_every=1"), progress=False)
    rates = [float(row["train/lr"]) for row in metrics(outcome.directory) if row["train/lr"]]
    assert rates == pytest.approx(used)


# ---- decay, clipping


def test_only_matrices_decay(config):
    module = TrainingModule(config("optimizer.weight_decay=0.3", "attention=asentmax"))
    ((optimizer,), _) = module.configure_optimizers()
    decayed, spared = optimizer.param_groups
    assert decayed["weight_decay"] == 0.3 and spared["weight_decay"] == 0.0
    names = {id(p): name for name, p in module.named_parameters()}
    assert all(p.dim() >= 2 for p in decayed["params"]) and decayed["params"]
    assert all("norm" in names[id(p)] or "bias" in names[id(p)] for p in spared["params"])
    assert any("norm" in names[id(p)] for p in spared["params"])


@pytest.mark.parametrize("row", sampled(choices("attention"), ["nape", "rope"]), ids="-".join)
def test_every_tensor_is_in_the_optimiser_and_gets_a_gradient(config, row):
    """The learned tensors of normalizers, scalings and encodings, too."""
    attention, position = row
    words = (f"attention={attention}", f"position={position}", "model.dropout=0")
    options = config(*words, "model.layers=2", "data.min_length=6", "data.max_length=12")
    module = TrainingModule(options)
    ((optimizer,), _) = module.configure_optimizers()
    optimised = [id(p) for group in optimizer.param_groups for p in group["params"]]
    parameters = dict(module.named_parameters())
    assert sorted(optimised) == sorted(map(id, parameters.values()))
    batch = Batches(options, 0, 1)[0]
    logits = module.model(batch["inputs"])
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()).backward()
    without = [name for name, p in parameters.items() if p.requires_grad and p.grad is None]
    assert without == []
    # A start at zero may leave some gradients at zero, never all of a kind.
    learned = [name for name, p in parameters.items() if "_state." in name and p.requires_grad]
    if learned:
        assert any(parameters[name].grad.abs().sum() > 0 for name in learned)


def test_gradients_are_clipped_and_the_norm_before_is_reported(config):
    for limit, expected in ((0.5, 0.5), (0, 3.0), (10, 3.0)):
        module = TrainingModule(config(f"optimizer.clip_norm={limit}"))
        for p in module.parameters():
            p.grad = torch.zeros_like(p)
        module.model.head.weight.grad[0, 0] = 3.0
        module.configure_gradient_clipping(None)
        norm = torch.cat([p.grad.flatten() for p in module.parameters()]).norm()
        assert norm.item() == pytest.approx(expected, rel=1e-4)
        assert module.grad_norm.item() == pytest.approx(3.0)


def test_clipping_is_at_work_in_training(config):
    free = train(config("optimizer.clip_norm=0"), progress=False).directory
    clipped = train(config("optimizer.clip_norm=0.01"), progress=False).directory
    assert free != clipped
    first = [metrics(directory)[0]["train/grad_norm"] for directory in (free, clipped)]
    assert min(map(float, first)) > 0.1  # of before clipping
    weights = [
        checkpoint(directory)["state_dict"]["model.head.weight"] for directory in (free, clipped)
    ]
    assert not torch.equal(*weights)


@pytest.mark.parametrize(("precision", "expected"), [("32-true", False), ("16-mixed", True)])
def test_a_scaled_gradient_may_overflow(config, precision, expected):
    """With 16-mixed the scaler skips such a step and lowers its scale."""
    module = TrainingModule(config(f"trainer.precision={precision}", "trainer.accelerator=auto"))
    for p in module.parameters():
        p.grad = torch.full_like(p, math.inf)
    module.configure_gradient_clipping(None)
    assert bool(module.finite) is expected


# ---- precision


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("bf16-mixed", torch.float32), ("bf16-true", torch.bfloat16)],
)
@pytest.mark.parametrize("attention", ["softmax", "asentmax"])
def test_precision(config, precision, dtype, attention):
    words = (f"trainer.precision={precision}", f"attention={attention}", "optimizer.lr=1e-2")
    outcome = train(config(*words, "trainer.steps=60"), progress=False)
    assert outcome.status == "finished"
    assert {t.dtype for t in checkpoint(outcome.directory)["state_dict"].values()} == {dtype}
    losses = [float(row["train/loss"]) for row in metrics(outcome.directory) if row["train/loss"]]
    assert losses[-1] < losses[0] - 0.2


def test_precisions_differ(config):
    runs = [
        train(config(f"trainer.precision={p}"), progress=False).directory
        for p in ("32-true", "bf16-mixed", "bf16-true")
    ]
    assert len({metrics(run)[0]["train/loss"] for run in runs}) == 3


# ---- randomness


def test_dropout_depends_on_seed_and_step_and_rank_alone(config):
    def draw(seed, step, rank):
        torch.rand(7)
        TrainingModule(config(f"seed={seed}")).seed_dropout(step, rank)
        return tuple(torch.rand(4).tolist())

    addresses = [(s, t, r) for s in (0, 1) for t in (0, 1, 1000) for r in (0, 1)]
    draws = [draw(*address) for address in addresses]
    assert len(set(draws)) == len(draws)
    assert draw(1, 1000, 1) == draws[-1]


def test_building_a_model_leaves_the_random_state_alone(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    TrainingModule(config())
    assert torch.equal(torch.rand(3), expected)


def test_the_loader_starts_where_training_stands(config):
    from types import SimpleNamespace

    options = config("data.batch_size=4")
    data = TaskData(options)
    data.trainer = SimpleNamespace(
        global_step=27,
        global_rank=0,
        world_size=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    for t, batch in zip(range(27, 30), data.train_dataloader(), strict=False):
        assert torch.equal(batch["inputs"], Batches(options, 0, 1)[t]["inputs"])
