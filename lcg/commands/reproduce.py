"""Train the runs of a published table, select by validation, and check every published number."""

from __future__ import annotations

from lcg.commands.args import EXIT_CODES, Parser
from lcg.log import log, plain
from lcg.registry import nearest

USAGE = "BLOCK [--workers N] [--storage URL] [--dry-run] [key=value …]"
TABLES = ("crasp",)
"""Tables whose blocks are the experiments of one sweep."""
KINDS = ("agrees", "differs", "not run")
ABOUT = """Runs the sweep of that block, such as table1_sort for table1/sort; key=value overrides
every run. With another task, other training lengths or another encoding, published numbers
count as not run; another budget (trainer.steps=…) is noted next to each verdict.

A published number agrees if its 95 % interval, for its number of samples, overlaps ours. One that
is a mean over runs agrees if it lies in the 95 % interval of such a mean of ours. `crasp` runs all
blocks of that name, `crasp/sort_ape` one of them."""


def run(words: list[str]) -> int:
    from lcg.config.errors import options_called
    from lcg.config.schema import Processes
    from lcg.config.types import convert
    from lcg.results.published import blocks

    names = ", ".join([*blocks(), *TABLES])
    epilog = f"blocks: {names}\n\n{ABOUT}\n\n{EXIT_CODES}"
    parser = Parser("reproduce", USAGE, __doc__, epilog=epilog, keys=options_called)
    parser.add_argument("block", help="a block of a published table")
    parser.add_argument("--workers", type=int, help="runs at a time; default: one, or one per GPU")
    parser.add_argument("--storage", help="an Optuna database that several hosts share")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the runs and estimate their time"
    )
    options, overrides = parser.parse_known_args(words)
    if options.block not in (*blocks(), *TABLES):
        suggestion = nearest(options.block, [*blocks(), *TABLES])
        raise ValueError(f"there is no published block {options.block}; {suggestion}")
    convert(Processes | None, options.workers, "--workers")

    from lcg.sweeping import read_sweep
    from lcg.sweeping.estimate import project_sweep

    table, _, part = options.block.partition("/")
    if table not in TABLES:
        sweep = read_sweep(f"{table}_{part}", overrides)
    else:
        sweep = read_sweep(table, [f"experiment={options.block}"] * bool(part) + overrides)
    show = print if options.dry_run else log.info
    for text in project_sweep(sweep, options.workers):
        show(text)
    return 0 if options.dry_run else _reproduce(sweep, options)


def _reproduce(sweep, options) -> int:
    """Run sweep, selection, table and verdicts. A sweep that was stopped ends here."""
    from lcg.commands.select import select_runs
    from lcg.results import markdown_table, table, verdict_table, verdicts
    from lcg.results.published import blocks
    from lcg.runs.run import Run
    from lcg.sweeping.launcher import Launcher

    summary = Launcher(sweep, options.workers, options.storage).launch()
    log.info(summary.as_text())
    if summary.signal or summary.trouble or not summary.directories:
        return summary.exit_code
    select_runs(summary.directories)
    records = [run.record for run in Run.find(summary.directories, report=log.warning)]
    own = [b for b in blocks() if b == options.block or b.startswith(f"{options.block}/")]
    all_verdicts = [verdict for block in own for verdict in verdicts(records, block)]
    print(plain(table(records)))
    print(
        f"## {options.block}, published and ours\n\n{markdown_table(verdict_table(all_verdicts))}\n"
    )
    counts = [f"{sum(v.verdict == kind for v in all_verdicts)} {kind}" for kind in KINDS]
    print(f"of {len(all_verdicts)} published numbers: {', '.join(counts)}")
    return summary.exit_code
