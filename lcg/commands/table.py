"""Print runs as a table."""

from __future__ import annotations

from lcg.commands.words import WANDB_HELP, Parser, say


def run(words: list[str]) -> int:
    from lcg.results import load_runs, table, write_atomic
    from lcg.results.from_wandb import with_wandb

    parser = Parser(
        "table", "RUN … [--wandb ENTITY/PROJECT] [--format markdown|csv|json] [-o FILE]", __doc__
    )
    parser.add_argument("runs", nargs="*", help="run directories, or folders that hold some")
    parser.add_argument("--wandb", action="append", default=[], metavar="PLACE", help=WANDB_HELP)
    parser.add_argument("--format", choices=("markdown", "csv", "json"), default="markdown")
    parser.add_argument("-o", "--output", help="write to this file instead of stdout")
    options = parser.parse_intermixed_args(words)
    if not options.runs and not options.wandb:
        raise ValueError("name run directories, or a W&B project with --wandb")
    records = load_runs(options.runs) if options.runs else []
    records = with_wandb(records, options.wandb, report=say)
    text = table(records, options.format)
    if options.output:
        write_atomic(options.output, text)
        say(f"wrote {options.output}")
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return 0
