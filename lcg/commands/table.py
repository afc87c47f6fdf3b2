"""Print runs as a table."""

from __future__ import annotations

from lcg.commands.args import Parser, add_baseline, add_metric, add_sources, read_sources
from lcg.log import log, plain

USAGE = "RUN … [--wandb ENTITY/PROJECT] [--metric NAME] [--by …] [--format …] [-o FILE]"


def run(words: list[str]) -> int:
    from lcg.results import table
    from lcg.results.table import BY, FORMATS
    from lcg.runs.files import write_atomic

    parser = Parser("table", USAGE, __doc__)
    add_sources(parser)
    add_metric(parser)
    parser.add_argument(
        "--format", choices=FORMATS, default="markdown", help="default: markdown; latex is booktabs"
    )
    parser.add_argument(
        "--by",
        choices=BY,
        default="length",
        help="default: length; summary: one number per run over its lengths (NNCH score, effective "
        "length); part, distance: token accuracy by part of the target, by distance to the "
        "evidence",
    )
    add_baseline(parser)
    parser.add_argument(
        "--published", action="store_true", help="show published rows even if the setting differs"
    )
    parser.add_argument("-o", "--output", help="write to this file instead of stdout")
    options = parser.parse_intermixed_args(words)
    text = table(
        read_sources(options),
        options.format,
        baseline=options.baseline,
        published=options.published,
        metric=options.metric,
        by=options.by,
    )
    if options.output:
        write_atomic(options.output, text)
        log.info(f"wrote {options.output}")
    else:
        print(plain(text), end="" if text.endswith("\n") else "\n")
    return 0
