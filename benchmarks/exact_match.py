"""Exact match by teacher forcing against greedy decoding: `python -m benchmarks.exact_match`.

Eight copy sequences at length 512, the demo's model, untrained. Before either way is timed, what
greedy decoding wrote is made the target: teacher forcing must find all of it right, and greedy
decoding reproduce it; with one token of each sequence changed, both must find all of them wrong.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch

from benchmarks.report import median_ratio, publish, time_in_turn
from lcg.config import load_config
from lcg.evaluation.scoring import score_greedy, score_teacher_forcing, scored_positions
from lcg.models.transformer import build_model
from lcg.tasks.streams import eval_batch

LIMIT = 5.0
BOTH = (score_teacher_forcing, score_greedy)


def agree(model, inputs, labels) -> bool:
    """Return True when both ways tell what the model would write from what it would not."""
    scored = scored_positions(labels)
    first = int(scored[0])
    inputs, labels = inputs.clone(), labels.clone()
    labels[:, scored] = model.greedy(inputs[:, : first + 1], len(scored))
    inputs[:, first + 1 :] = labels[:, first:-1]
    counts = [score(model, inputs, labels).correct for score in BOTH]
    labels[:, scored[len(scored) // 2]] += 1
    return counts + [score(model, inputs, labels).correct for score in BOTH] == [8, 8, 0, 0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    rows, data = [], {}
    for attention in ("softmax", "asentmax"):
        config = load_config([f"experiment=demo/{attention}"])
        model = build_model(config).eval()
        batch = eval_batch(config.task, 0, "test", 512, 0, 8)
        inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
        if not agree(model, inputs, labels):
            print(f"not timed: {attention} by teacher forcing and greedy differ", file=sys.stderr)
            return 1
        seconds = time_in_turn(
            {
                "teacher forcing": lambda: score_teacher_forcing(model, inputs, labels),  # noqa: B023
                "greedy": lambda: score_greedy(model, inputs, labels),  # noqa: B023
            },
            options.rounds,
        )
        ratio = median_ratio(seconds["greedy"], seconds["teacher forcing"])
        middle = [f"{statistics.median(values):.2f}" for values in seconds.values()]
        rows.append([attention, *middle, f"{ratio:.1f}", f"≥ {LIMIT:g}"])
        data[attention] = {"seconds": seconds, "ratio": ratio}
    publish(
        "exact_match",
        "Exact match of 8 copy sequences at length 512",
        ["attention", "teacher forcing s", "greedy s", "times faster", "goal"],
        rows,
        {"attentions": data, "limit": LIMIT},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
