"""Where `table` and `plot` take runs from: run directories, W&B projects, folders of W&B files."""

from __future__ import annotations

from lcg.commands.words import Parser
from lcg.speaking import say

WANDB_HELP = "runs of a W&B project, ENTITY/PROJECT, or of W&B's files in a folder; repeatable"


def add_sources(parser: Parser) -> None:
    """The words that name runs."""
    parser.add_argument("runs", nargs="*", help="run directories, or folders that hold some")
    parser.add_argument("--wandb", action="append", default=[], metavar="PLACE", help=WANDB_HELP)


def read_sources(options) -> list:
    """The records they name; what cannot be read is said. Raises ValueError when there are none."""
    from lcg.results import load_runs
    from lcg.results.from_wandb import with_wandb

    if not options.runs and not options.wandb:
        raise ValueError("name run directories, or a W&B project with --wandb")
    records = load_runs(options.runs, report=say) if options.runs else []
    return with_wandb(records, options.wandb, report=say)
