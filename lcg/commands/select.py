"""Select a run for each method by validation, and break ties at longer lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from lcg.commands.args import Parser, add_trust, tell_changed_sources
from lcg.log import log, plain
from lcg.results import Choice
from lcg.runs.sources import Trust


def run(words: list[str]) -> int:
    epilog = """\
Selects the highest exact match at the monitored validation length, then the highest
token accuracy there (the reverse with --metric token_accuracy). Runs that tie are
validated at 2, 4, … times the longest validation length, on samples used by neither
training nor test, until they differ."""
    usage = "RUN … [--metric NAME] [--longest N] [--device NAME]"
    parser = Parser("select", usage, __doc__, epilog=epilog)
    parser.add_argument("runs", nargs="+", help="run directories, or folders that contain them")
    parser.add_argument(
        "--longest", type=int, help="longest length to try; default: 8 times the monitored one"
    )
    parser.add_argument(
        "--metric",
        default="exact_match",
        metavar="NAME",
        help="metric to compare first: exact_match (default) or token_accuracy",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add_trust(parser, otherwise="none")
    options = parser.parse_intermixed_args(words)
    if options.longest is not None and options.longest < 1:
        raise ValueError(f"--longest must be at least 1, got {options.longest}")
    select_runs(options.runs, options.metric, options.longest, options.device, options.trust)
    return 0


def select_runs(
    paths: Iterable[str | Path],
    metric: str = "exact_match",
    longest: int | None = None,
    device: str = "auto",
    trust: Trust = "none",
) -> None:
    """Print the selected run of every group below `paths`, and break ties."""
    from lcg.results.aggregate import group_runs
    from lcg.runs.run import Run

    runs = {(r.record.run, r.record.hash): r for r in Run.find(paths, report=log.warning)}
    records = [run.record for run in runs.values()]
    tell_changed_sources(records)
    for group in group_runs(records, metric):
        if group.changes:  # which has no say in what is selected
            continue
        choice, left = group.choice, ""
        if not choice.resolved and choice.monitored is not None:  # only a tie needs torch
            from lcg.evaluation.evaluate import LengthBar, break_tie

            names = ", ".join(record.run for record in choice.tied)
            log.info(f"{len(choice.tied)} runs tie up to length {choice.path[-1]}: {names}")
            own = {runs[each.key].path: runs[each.key].record for each in group.runs}
            with closing(LengthBar()) as bar:
                choice, left = break_tie(own, longest, device, bar, metric, trust)
        place = runs[choice.record.run, choice.record.hash].path
        shown = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
        print(plain(f"{group.task}, {group.name}: {shown}"))
        for line in _reasons(choice, left, len(group.runs), metric):
            print(plain(f"  {line}"))


def _reasons(choice: Choice, left: str, runs: int, metric: str) -> Iterator[str]:
    """Return lines on the selected run, the scores of it and of the runs that tied, and
    warnings."""
    of = f"of {runs} runs" if runs > 1 else "the only run"
    yield f"seed {choice.record.seed}, lr {choice.record.lr:g}, {of}"
    if choice.monitored is None:
        yield "no validation results; the lowest seed is taken"
        return
    order = ("exact_match", "token_accuracy")[:: 1 if metric == "exact_match" else -1]
    first, then = (name.replace("_", " ") for name in order)
    yield f"selected by {first}, then {then}, at length {choice.monitored}:"
    for record in choice.contenders:
        scores = [f"  seed {record.seed}, lr {record.lr:g}"]
        for length in (n for n in choice.path if n in record.validation):
            values = [getattr(record.validation[length], name) for name in order]
            texts = ["not finite" if v is None else f"{100 * v:.2f} %" for v in values]
            scores.append(f"{length}: {first} {texts[0]}, {then} {texts[1]}")
        yield "   ".join(scores)
    if not choice.resolved:
        yield f"{len(choice.tied)} runs still tie; the lowest seed is taken: {left}"
    if choice.degenerate:
        yield f"selection metric never changed: {choice.degenerate}"
