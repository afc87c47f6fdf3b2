"""Make one HTML page of runs: figures, tables, attention maps."""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

from lcg.commands.args import (
    Parser,
    add_baseline,
    add_metric,
    add_trust,
    tell_changed_sources,
)
from lcg.log import log

ABOUT = """The page needs no network and nothing beside it. Progress and what had to be left out
are told on stderr; the page's path is the result."""


def run(words: list[str]) -> int:
    from lcg.report import MapChoice, find, make, parse_heads
    from lcg.runs.files import write_atomic

    usage = (
        "RUN … -o FILE.html [--metric NAME] [--baseline NAME] [--map-length LENGTH]"
        " [--heads LAYER:HEAD,…] [--no-maps]"
        " [--wandb ENTITY/PROJECT]"
    )
    parser = Parser("report", usage, __doc__, epilog=ABOUT)
    parser.add_argument("runs", nargs="+", help="run directories, or folders that hold some")
    parser.add_argument("-o", "--output", default="report.html", help="default: report.html here")
    add_metric(parser)
    add_baseline(parser)
    parser.add_argument(
        "--map-length",
        type=int,
        metavar="LENGTH",
        help="of attention maps; default: the longest trained",
    )
    parser.add_argument(
        "--heads",
        metavar="L:H,…",
        help="layers and heads of the maps, from 0; default: one of each head group in the first "
        "and in the last layer",
    )
    parser.add_argument("--no-maps", action="store_true", help="leave attention maps out")
    parser.add_argument(
        "--wandb",
        metavar="ENTITY/PROJECT",
        help="also send the page and its figures there, as an artifact",
    )
    add_trust(parser, otherwise="none")
    options = parser.parse_intermixed_args(words)
    output = Path(options.output)
    _check_output(output)
    heads = parse_heads(options.heads) if options.heads else ()
    if options.map_length is not None and options.map_length < 1:
        raise ValueError(f"--map-length {options.map_length}: a length is at least 1")
    if options.wandb and not re.fullmatch("[^/]+/[^/]+", options.wandb):
        raise ValueError(f"--wandb {options.wandb}: name it as ENTITY/PROJECT")
    sources = find(options.runs)
    for problem in sources.problems:
        log.warning(f"left out: {problem}")
    tell_changed_sources(sources.records)
    choice = None if options.no_maps else MapChoice(options.map_length, heads, options.trust)
    command = shlex.join(["lcg", "report", *words])
    shown = (options.metric, options.baseline)
    report = make(sources, command, datetime.now(UTC), choice, _bar, *shown)
    write_atomic(output, report.html)
    print(output)
    if options.wandb:
        from lcg.report.upload import upload

        upload(report, sources.records, output, *options.wandb.split("/"))
    return 0


def _check_output(output: Path) -> None:
    """Raise ValueError for a file that could not be written, before anything is drawn."""
    folder, html = output.parent, output.suffix.lower() in (".html", ".htm")
    for wrong, text in (
        (output.is_dir(), f" is a folder; name a file, such as {output / 'report.html'}"),
        (not html, ": a report is HTML; name a .html file"),
        (not folder.is_dir(), f": there is no folder {folder}; make it first"),
        (not os.access(folder, os.W_OK), f": {folder} cannot be written; choose another folder"),
    ):
        if wrong:
            raise ValueError(f"-o {output}{text}")


def _bar(planned: list):
    """The figures, with a bar on a terminal."""
    from tqdm import tqdm

    with tqdm(planned, unit="figure", leave=False, disable=None) as bar:
        for figure in bar:
            bar.set_description(figure.title)
            yield figure
