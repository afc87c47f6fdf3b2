"""Sums of a query's weights as sequences grow: `python -m benchmarks.weight_sums RUN …`.

ReLA's weights (2104.07012) do not sum to one: under a causal mask their sum grows with the keys
that a query sees, and the RMSNorm behind the concatenated heads is all that holds it. Of trained
runs, at each length: Σw of a query, over all of them and over the tenth that sees the most keys;
the root mean square of the concatenated heads before any norm; the share of (head, query) without
any weight; and exact match. Means over queries, heads and the layers of each kind of attention;
the JSON file has each layer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from einops import rearrange
from tqdm import tqdm

from benchmarks.report import publish
from lcg.diagnostics.capture import LayerInput, capture_inputs, obstacle
from lcg.diagnostics.columns import attention_layers
from lcg.evaluation.evaluate import load_model
from lcg.evaluation.ladder import evaluate_lengths
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import batch_tensors, model_inputs
from lcg.runs.run import Run
from lcg.tasks.streams import eval_batch

MEASURES = ("sum", "last_sum", "rms", "null")
HEADER = [
    "attention",
    "kind",
    "length",
    "Σw",
    "Σw, last tenth",
    "RMS before the norm",
    "no weight",
    "exact",
]


@torch.no_grad()
def layer_sums(captured: LayerInput) -> dict[str, float]:
    """The measures of one layer on one sample."""
    layer = captured.layer
    source = captured.x if captured.memory is None else captured.memory
    v = rearrange(layer.value(source), "b k (g d) -> b g k d", d=layer.sizes.head_dim)
    v = v.repeat_interleave(layer.sizes.heads // layer.sizes.kv_heads, dim=1).float()
    sums, squares = [], []
    for queries in captured.query_chunks():
        weights = captured.weights(queries)
        sums.append(weights.sum(dim=-1)[0])  # [h q]
        squares.append((weights @ v).square().mean(dim=(0, 1, 3)))  # [q]
    total = torch.cat(sums, dim=1)
    tenth = total[:, -max(1, total.shape[1] // 10) :]
    return {
        "sum": float(total.mean()),
        "last_sum": float(tenth.mean()),
        "rms": float(torch.cat(squares).sqrt().mean()),
        "null": float((total == 0).float().mean()),
    }


def measured(model, config, length: int, samples: int) -> dict[str, dict[str, float]]:
    """Layer -> its measures, means over the first test samples of a length."""
    where = (config.evaluation.seed, "test", length, 0, samples)
    batch = eval_batch(config.task, *where, config.model.separate_source)
    device = next(model.parameters()).device
    first = torch.zeros(1, dtype=torch.long, device=device)
    found: dict[str, dict[str, float]] = {}
    given = model_inputs(batch_tensors(batch, device))
    for sample in zip(*(tokens.split(1) for tokens in given), strict=True):
        with torch.no_grad(), capture_inputs(model) as seen:
            model(*sample, select=first)
        for captured in seen:
            own = found.setdefault(captured.name, dict.fromkeys(MEASURES, 0.0))
            for name, value in layer_sums(captured).items():
                own[name] += value / samples
    return found


def by_kind(config, layers: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Attention kind -> the measures, means over its layers."""
    kinds: dict[str, list[dict[str, float]]] = {}
    for layer in attention_layers(config):
        kinds.setdefault(layer.kind, []).append(layers[layer.name])
    return {
        kind: {m: sum(own[m] for own in some) / len(some) for m in MEASURES}
        for kind, some in kinds.items()
    }


def exact_match(model, config, length: int, samples: int) -> float | None:
    (cell,) = evaluate_lengths(model, [TestSet(config, "test", length, samples)])
    return cell.exact_match


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--lengths", default="", help="with commas; default: those of the first")
    parser.add_argument("--samples", type=int, default=8, help="to look at the weights of")
    parser.add_argument("--scored", type=int, default=200, help="for exact match")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    configs = {run: Run(run).config for run in options.runs}
    first = configs[options.runs[0]]
    if any(config.task != first.task for config in configs.values()):
        parser.error("the runs must be on one task")
    lengths = [int(n) for n in options.lengths.split(",") if n] or sorted(first.evaluation.lengths)
    rows, data = [], {}
    with tqdm(total=len(configs) * len(lengths), unit="length", disable=None, leave=False) as bar:
        for run, config in configs.items():
            model, step = load_model(run, config, options.device)
            name = config.labels["attention"]
            data[run.name] = {"attention": name, "step": step, "lengths": {}}
            for length in lengths:
                tokens = int(config.task.token_length(length))
                if problem := obstacle(config, tokens, 1, next(model.parameters()).device):
                    parser.error(problem)
                layers = measured(model, config, length, options.samples)
                right = exact_match(model, config, length, options.scored)
                data[run.name]["lengths"][length] = {"exact_match": right, "layers": layers}
                for kind, mean in by_kind(config, layers).items():
                    rows.append(
                        [
                            name,
                            kind,
                            str(length),
                            f"{mean['sum']:.2f}",
                            f"{mean['last_sum']:.2f}",
                            f"{mean['rms']:.3g}",
                            f"{100 * mean['null']:.1f} %",
                            "–" if right is None else f"{100 * right:.1f} %",
                        ]
                    )
                bar.update()
    title = f"Sum of the weights on {first.task.name}, trained at {first.data.min_length} to "
    title += f"{first.data.max_length}; {options.samples} samples, exact match of {options.scored}"
    publish("weight_sums", title, HEADER, rows, {"runs": data})
    return 0


if __name__ == "__main__":
    sys.exit(main())
