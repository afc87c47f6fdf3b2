"""Draw accuracy against length."""

from __future__ import annotations

from pathlib import Path

from lcg.commands.sources import add_sources, read_sources
from lcg.commands.words import Parser


def run(words: list[str]) -> int:
    from lcg.results import plot

    parser = Parser("plot", "RUN … [--wandb ENTITY/PROJECT] [-o FILE.png|FILE.svg]", __doc__)
    add_sources(parser)
    parser.add_argument(
        "-o", "--output", help="default: RUN/plots/ for one run, else accuracy_vs_length.png here"
    )
    options = parser.parse_intermixed_args(words)
    records = read_sources(options)
    single = Path(*options.runs[:1]) / "plots" / "accuracy_vs_length.png"
    alone = options.runs and len(records) == 1 and single.parent.is_dir()
    path = options.output or (single if alone else "accuracy_vs_length.png")
    print(plot(records, path))
    return 0
