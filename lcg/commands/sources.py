"""Options that `table`, `plot`, `report` and `select` share: which runs, which measure of them."""

from __future__ import annotations

from lcg.commands.words import Parser
from lcg.speaking import say

WANDB_HELP = "runs of a W&B project, ENTITY/PROJECT, or of W&B's files in a folder; repeatable"


def add_sources(parser: Parser) -> None:
    """Add the arguments that name runs."""
    parser.add_argument("runs", nargs="*", help="run directories, or folders that hold some")
    parser.add_argument("--wandb", action="append", default=[], metavar="PLACE", help=WANDB_HELP)


def add_metric(parser: Parser) -> None:
    """Add the option that names a measure."""
    parser.add_argument(
        "--metric",
        default="exact_match",
        metavar="NAME",
        help="exact_match, token_accuracy, prefix or a metric of the task such as bleu, "
        "whatever the runs hold; default: exact_match",
    )


def add_baseline(parser: Parser) -> None:
    """Add the option that names the baseline."""
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="the method that others are compared with: a label, an attention or a part of a "
        "label; default: softmax, or the first method where there is no softmax",
    )


def read_sources(options) -> list:
    """Read the records they name; say what cannot be read. Raises ValueError for no record."""
    from lcg.results import load_runs
    from lcg.results.from_wandb import with_wandb

    if not options.runs and not options.wandb:
        raise ValueError("name run directories, or a W&B project with --wandb")
    records = load_runs(options.runs, report=say) if options.runs else []
    return with_wandb(records, options.wandb, report=say)
