"""Run a trained model on test samples and keep what its heads did."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lcg.positional.base import torch
from lcg.runs.sources import Trust

if TYPE_CHECKING:
    from torch import Tensor

    from lcg.config import Config

# A sample's layer passes through scores, weights and a solver's copies; measured, with a margin.
COPIES = 8
SHARE = 0.6  # of the available memory that weights may take


@dataclass(frozen=True)
class LayerLook:
    """What the heads of one layer did. Shapes: n samples, h heads, t tokens, k keys; on the CPU.

    name, kind: as `headers.attention_layers` has them.
    weights: float32 [n h t k], rows are queries, 0 on keys that a query does not see.
    scaler: float32 [n h t], what each query is multiplied by, 1 in heads that the scaling leaves
    alone; None without a scaling. alpha: float32 [h] where it is learned, else None.
    """

    name: str
    kind: str
    weights: Tensor = field(repr=False)
    scaler: Tensor | None = field(repr=False)
    alpha: Tensor | None


@dataclass(frozen=True)
class Look:
    """The first test samples of one length, through a run's selected checkpoint; on the CPU.

    inputs: int64 [n t]; source: int64 [n s], what the encoder of an encoder–decoder read.
    labels: int64 [n t], `lcg.tasks.base.IGNORE` where not scored.
    positions: int64 [m], the scored positions; predicted: int64 [n m], the best symbol there.
    """

    config: Config
    length: int
    inputs: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    predicted: Tensor = field(repr=False)
    positions: Tensor = field(repr=False)
    layers: list[LayerLook] = field(repr=False)
    source: Tensor | None = field(default=None, repr=False)


def look(
    directory: Path, length: int, samples: int, device: str = "cpu", trust: Trust = "own"
) -> Look:
    """Weights, scalers and predictions of the test stream's first samples of a nominal length.

    Raises ValueError, in one line, when there is no such run, no selected checkpoint, no such
    length, or when all weights together do not fit in memory.
    """
    from lcg.diagnostics.capture import watching
    from lcg.evaluation.evaluate import load_model
    from lcg.evaluation.scoring import scored_positions
    from lcg.evaluation.test_sets import TestSet
    from lcg.models.transformer import batch_tensors, model_inputs
    from lcg.runs.run import Run

    directory = Path(directory)
    run = Run(directory, trust)
    config = run.config
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    config.task.check_evaluation("test", length)
    run.check_selected()
    check_memory(config, length, samples)
    model, _ = load_model(directory, config, device)
    batch = batch_tensors(TestSet(config, "test", length, samples).batch())
    inputs, labels = batch["inputs"], batch["labels"]
    positions = scored_positions(labels)
    predicted, layers = [], []
    with torch.no_grad():
        for i in range(len(inputs)):
            with watching(model) as seen:
                one = (tokens[i : i + 1].to(device) for tokens in model_inputs(batch))
                logits = model(*one, select=positions.to(device))
            predicted.append(logits.argmax(dim=-1).cpu())
            layers.append([_layer_look(watched) for watched in seen])
    return Look(
        config,
        length,
        inputs,
        labels,
        torch.cat(predicted),
        positions,
        [_joined(list(parts)) for parts in zip(*layers, strict=True)],
        batch.get("source"),
    )


def check_memory(config: Config, length: int, samples: int) -> None:
    """Raise ValueError when the weights of all layers and samples do not fit in memory."""
    from lcg.diagnostics.columns import attention_layers
    from lcg.evaluation.memory import available_bytes

    tokens, model = int(config.task.token_length(length)), config.model
    one = 4 * model.heads * tokens**2
    kept = 2 * len(attention_layers(config)) * samples
    need, have = one * (kept + COPIES), available_bytes(torch.device("cpu"))
    if need > SHARE * have:
        raise ValueError(
            f"the weights of {samples} samples at length {length} need {need / 2**30:.1f} GiB of "
            f"the {have / 2**30:.1f} GiB available; look at fewer samples or a shorter length"
        )


def _layer_look(watched) -> LayerLook:
    scaler, alpha = watched.scaler(), watched.alpha()
    return LayerLook(
        watched.name,
        watched.kind,
        watched.weights().cpu(),
        None if scaler is None else scaler.cpu(),
        None if alpha is None else alpha.cpu(),
    )


def _joined(parts: list[LayerLook]) -> LayerLook:
    """One layer's samples in one."""
    scalers = [part.scaler for part in parts]
    return LayerLook(
        parts[0].name,
        parts[0].kind,
        torch.cat([part.weights for part in parts]),
        None if scalers[0] is None else torch.cat(scalers),
        parts[0].alpha,
    )
