"""Plot exact match or another metric against length."""

from __future__ import annotations

from pathlib import Path

from lcg.commands.args import Parser, add_metric, add_sources, read_sources

USAGE = "RUN … [--wandb ENTITY/PROJECT] [--metric NAME] [--by …] [--facet task|position] [-o FILE]"


def run(words: list[str]) -> int:
    from lcg.results import plot
    from lcg.results.breakdown import BREAKDOWNS, plot_breakdown
    from lcg.runs.run import Run

    parser = Parser("plot", USAGE, __doc__)
    add_sources(parser)
    add_metric(parser)
    parser.add_argument(
        "--facet",
        choices=("task", "position"),
        default="task",
        help="one panel per task (default), or per position encoding of each task",
    )
    parser.add_argument(
        "--by",
        choices=("length", *BREAKDOWNS),
        default="length",
        help="default: length; part, distance: token accuracy by part of the target, by distance "
        "to the evidence, in a panel per length",
    )
    parser.add_argument(
        "-o",
        "--output",
        help=".png, .svg or .pdf; default: accuracy_vs_length.png, in RUN/plots for a single run",
    )
    options = parser.parse_intermixed_args(words)
    records = read_sources(options)
    single = Run(Path(*options.runs[:1])).plots / "accuracy_vs_length.png"
    alone = options.runs and len(records) == 1 and single.parent.is_dir()
    path = options.output or (single if alone else "accuracy_vs_length.png")
    if options.by == "length":
        print(plot(records, path, options.metric, options.facet))
    else:
        print(plot_breakdown(records, path, options.by))
    return 0
