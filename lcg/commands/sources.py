"""Options that `table`, `plot`, `report` and `select` share: which runs, which measure of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lcg.commands.words import Parser
from lcg.speaking import say

if TYPE_CHECKING:
    from lcg.results import RunRecord

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
    records = with_wandb(records, options.wandb, report=say)
    tell_changed_sources(records)
    return records


def tell_changed_sources(records: Iterable[RunRecord]) -> None:
    """Say which users' classes are no longer those that runs were trained with; import none."""
    from lcg.registry import user_module

    runs: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for source in record.sources.values():
            runs.setdefault((source["name"], source["digest"]), []).append(record.run)
    for (name, digest), trained in runs.items():
        try:
            module = user_module(name)
            if module is None or module.digest == digest:
                continue
            problem = "has changed"
        except (ValueError, OSError):
            problem = "is no longer there, or cannot be read,"
        others = f" and {len(trained) - 1} more were" if len(trained) > 1 else " was"
        say(
            f"note: {name} {problem} since {trained[0]}{others} trained with it; "
            "what is shown is of the code then, which is in RUN/sources"
        )
