"""Exact match by teacher forcing against greedy decoding: `python -m benchmarks.exact_match`.

Eight copy sequences at length 512, the demo's model. Both ways must agree on every sample before
either is timed; the model is trained for a moment so that some samples can be right.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch

from benchmarks.report import median_ratio, publish, time_in_turn
from lcg.config import load_config
from lcg.evaluation.scoring import score_greedy, score_teacher_forcing
from lcg.training.module import build_model
from tasks.streams import eval_batch

LIMIT = 5.0


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
        forced, greedy = (
            score_teacher_forcing(model, inputs, labels),
            score_greedy(model, inputs, labels),
        )
        if forced.correct != greedy.correct or forced.prefix != greedy.prefix:
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
