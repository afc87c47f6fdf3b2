"""Draw accuracy against length."""

from __future__ import annotations

from pathlib import Path

from lcg.commands.words import Parser, say


def run(words: list[str]) -> int:
    from lcg.results import load_runs, plot

    parser = Parser("plot", "RUN … [-o FILE.png|FILE.svg]", __doc__)
    parser.add_argument("runs", nargs="+", help="run directories, or folders that hold some")
    parser.add_argument(
        "-o", "--output", help="default: RUN/plots/ for one run, else accuracy_vs_length.png here"
    )
    options = parser.parse_intermixed_args(words)
    records = load_runs(options.runs, report=say)
    single = Path(options.runs[0]) / "plots" / "accuracy_vs_length.png"
    alone = len(records) == 1 and single.parent.is_dir()
    path = options.output or (single if alone else "accuracy_vs_length.png")
    print(plot(records, path))
    return 0
