"""Write an HTML report of runs: figures, tables, attention maps."""

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

ABOUT = """The page is one self-contained file. The command prints its path on stdout; progress and
anything left out are reported on stderr."""


def run(words: list[str]) -> int:
    from lcg.report import MapChoice, find, make, parse_heads
    from lcg.runs.files import write_atomic

    usage = (
        "RUN … -o FILE.html [--metric NAME] [--baseline NAME] [--map-length LENGTH]"
        " [--heads LAYER:HEAD,…] [--no-maps]"
        " [--wandb ENTITY/PROJECT]"
    )
    parser = Parser("report", usage, __doc__, epilog=ABOUT)
    parser.add_argument("runs", nargs="+", help="run directories, or folders that contain them")
    parser.add_argument("-o", "--output", default="report.html", help="default: report.html")
    add_metric(parser)
    add_baseline(parser)
    parser.add_argument(
        "--map-length",
        type=int,
        metavar="LENGTH",
        help="length of the attention maps; default: the longest training length",
    )
    parser.add_argument(
        "--heads",
        metavar="L:H,…",
        help="layers and heads of the maps, from 0; default: one head of each group in the first "
        "and the last layer",
    )
    parser.add_argument("--no-maps", action="store_true", help="leave out attention maps")
    parser.add_argument(
        "--wandb",
        metavar="ENTITY/PROJECT",
        help="also upload the page and its figures as a W&B artifact",
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
    """Raise ValueError for a file that cannot be written, before anything is drawn."""
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
    """Return the figures, with a progress bar on a terminal."""
    from tqdm import tqdm

    with tqdm(planned, unit="figure", leave=False, disable=None) as bar:
        for figure in bar:
            bar.set_description(figure.title)
            yield figure
