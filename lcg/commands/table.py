"""Print runs as a table."""

from __future__ import annotations

from lcg.commands.words import Parser, say


def run(words: list[str]) -> int:
    from lcg.results import load_runs, table, write_atomic

    parser = Parser("table", "RUN … [--format …] [--baseline NAME] [-o FILE]", __doc__)
    parser.add_argument("runs", nargs="+", help="run directories, or folders that hold some")
    parser.add_argument("--format", choices=("markdown", "csv", "json"), default="markdown")
    parser.add_argument(
        "--baseline",
        help="what the others are compared with; default: softmax",
    )
    parser.add_argument(
        "--published", action="store_true", help="published rows even where the setting differs"
    )
    parser.add_argument("-o", "--output", help="write to this file instead of stdout")
    options = parser.parse_intermixed_args(words)
    text = table(
        load_runs(options.runs, report=say),
        options.format,
        baseline=options.baseline,
        published=options.published,
    )
    if options.output:
        write_atomic(options.output, text)
        say(f"wrote {options.output}")
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return 0
