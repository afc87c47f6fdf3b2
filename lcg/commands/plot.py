"""Draw accuracy against length."""

from __future__ import annotations

from pathlib import Path

from lcg.commands.words import WANDB_HELP, Parser, say


def run(words: list[str]) -> int:
    from lcg.results import load_runs, plot
    from lcg.results.from_wandb import with_wandb

    parser = Parser("plot", "RUN … [--wandb ENTITY/PROJECT] [-o FILE.png|FILE.svg]", __doc__)
    parser.add_argument("runs", nargs="*", help="run directories, or folders that hold some")
    parser.add_argument("--wandb", action="append", default=[], metavar="PLACE", help=WANDB_HELP)
    parser.add_argument(
        "-o", "--output", help="default: RUN/plots/ for one run, else accuracy_vs_length.png here"
    )
    options = parser.parse_intermixed_args(words)
    if not options.runs and not options.wandb:
        raise ValueError("name run directories, or a W&B project with --wandb")
    records = load_runs(options.runs) if options.runs else []
    records = with_wandb(records, options.wandb, report=say)
    single = Path(*options.runs[:1]) / "plots" / "accuracy_vs_length.png"
    alone = options.runs and len(records) == 1 and single.parent.is_dir()
    path = options.output or (single if alone else "accuracy_vs_length.png")
    print(plot(records, path))
    return 0
