"""Say which run validation selects for each method, and break ties at longer lengths."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from lcg.commands.args import Parser, add_trust, tell_changed_sources, trusted
from lcg.log import log, plain
from lcg.results import Choice
from lcg.runs.record import RunRecord
from lcg.runs.sources import Trust


def run(words: list[str]) -> int:
    parser = Parser(
        "select",
        "RUN … [--metric NAME] [--longest N] [--device NAME]",
        __doc__,
        epilog="The highest exact match at the monitored validation length is selected, then the\n"
        "highest token accuracy there (with --metric token_accuracy the other way round). Runs\n"
        "that tie are validated at 2, 4, … times the longest validation length, on samples that\n"
        "neither training nor test uses, until they separate.",
    )
    parser.add_argument("runs", nargs="+", help="run directories, or folders that hold some")
    parser.add_argument(
        "--longest", type=int, help="longest length to try; default: 8 times the monitored one"
    )
    parser.add_argument(
        "--metric",
        default="exact_match",
        metavar="NAME",
        help="decides first: exact_match (default) or token_accuracy",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add_trust(parser)
    options = parser.parse_intermixed_args(words)
    if options.longest is not None and options.longest < 1:
        raise ValueError(f"--longest must be at least 1, got {options.longest}")
    trust = trusted(options, otherwise="none")
    select_runs(options.runs, options.longest, options.device, options.metric, trust)
    return 0


def select_runs(
    paths,
    longest: int | None = None,
    device: str = "auto",
    metric: str = "exact_match",
    trust: Trust = "none",
) -> None:
    """Print the selected run of every group below `paths`, and break ties."""
    from lcg.results.aggregate import group_runs
    from lcg.runs.run import Run

    runs = {run.path: run.record for run in Run.find(paths, report=log.warning)}
    tell_changed_sources(runs.values())
    places = {(record.run, record.hash): directory for directory, record in runs.items()}
    for group in group_runs(runs.values(), metric):
        own = [places[member.record.run, member.record.hash] for member in group.runs]
        choice, left = _break_tie(
            {place: runs[place] for place in own}, group.choice, longest, device, metric, trust
        )
        place = places[choice.record.run, choice.record.hash]
        shown = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
        print(plain(f"{group.task}, {group.name}: {shown}"))
        for line in _reasons(choice, left, len(own), metric):
            print(plain(f"  {line}"))


def _break_tie(
    runs: dict[Path, RunRecord], choice: Choice, longest, device, metric: str, trust: Trust
) -> tuple[Choice, str]:
    """The choice after ties are broken, and why one is left; only a tie needs torch."""
    if choice.resolved or choice.monitored is None:
        return choice, ""
    from lcg.evaluation.evaluate import LengthBar, break_tie

    names = ", ".join(record.run for record in choice.tied)
    log.info(f"{len(choice.tied)} runs tie up to length {choice.path[-1]}: {names}")
    with closing(LengthBar()) as bar:
        return break_tie(runs, longest, device, bar, metric, trust)


def _reasons(choice: Choice, left: str, runs: int, metric: str) -> list[str]:
    """The selected run, what it and the runs that tied with it scored, what is doubtful."""
    of = f"of {runs} runs" if runs > 1 else "the only run"
    lines = [f"seed {choice.record.seed}, lr {choice.record.lr:g}, {of}"]
    if choice.monitored is None:
        return [*lines, "no validation results; the lowest seed stands in"]
    first, then = ("exact match", "token accuracy")[:: 1 if metric == "exact_match" else -1]
    lines.append(f"selected by {first}, then {then}, at length {choice.monitored}:")
    lines += [f"  {_scores(record, choice.path, (first, then))}" for record in choice.contenders]
    if not choice.resolved:
        lines.append(f"{len(choice.tied)} runs still tie, the lowest seed stands in: {left}")
    if choice.degenerate:
        lines.append(f"selection metric never changed: {choice.degenerate}")
    return lines


def _scores(record: RunRecord, lengths: tuple[int, ...], order: Sequence[str]) -> str:
    """The measures at every length that was compared, by name, in the order that they decide in."""
    scores = []
    for length in lengths:
        result = record.validation.get(length)
        if result is not None:
            values = {"exact match": result.exact_match, "token accuracy": result.token_accuracy}
            shown = [f"{name} {_percent(values[name])}" for name in order]
            scores.append(f"{length}: {', '.join(shown)}")
    return f"seed {record.seed}, lr {record.lr:g}   " + "   ".join(scores)


def _percent(value: float | None) -> str:
    return "not finite" if value is None else f"{100 * value:.2f} %"
