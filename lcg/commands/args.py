"""Arguments that commands share, how they are read, the exit codes, and progress bars."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from lcg.log import log
from lcg.runs.sources import FLAG, HELP, Trust

if TYPE_CHECKING:
    from lcg.runs.record import RunRecord


EXIT_CODES = """exit codes:
  0    done
  1    system error (disk, memory, permission), a fault in the code, with its traceback,
       or some run of a sweep failed
  2    bad input; nothing was written, or a class of your own is wrong (`lcg check` tells more)
  3    the run is busy: another process trains it
  4    loss, gradient or weights were not finite
  130  stopped by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal; training has saved, the same
       command resumes"""


UNRECOGNIZED = "unrecognized arguments: "
Keys = Callable[[str], list[str]]


def first_line(docstring: str | None) -> str:
    """The first line of a docstring; empty where Python runs without docstrings (-OO)."""
    return (docstring or "").partition("\n")[0]


def add_trust(parser: Parser) -> None:
    """The option that lets the code of users' classes run."""
    parser.add_argument(FLAG, dest="trust", action="store_true", help=HELP)


def trusted(options: argparse.Namespace, otherwise: Trust = "own") -> Trust:
    """Return which code of users' classes may run."""
    return "any" if options.trust else otherwise


def check_workers(workers: int | None) -> None:
    """Raise ValueError for a number of training processes that no machine runs."""
    from lcg.config.schema import PROCESSES, shown

    if workers is not None and workers < 1:
        raise ValueError(f"--workers={workers} must be at least 1")
    if workers is not None and workers > PROCESSES:
        raise ValueError(f"--workers={workers} must be at most {shown(PROCESSES)}")


class Parser(argparse.ArgumentParser):
    """Raises ValueError, in one line, where argparse would print its usage and exit.

    `about` is the command's module docstring; its first line is what help says first.
    """

    def __init__(self, command: str, usage: str, about: str | None, **options) -> None:
        super().__init__(
            prog=f"lcg {command}",
            usage=f"lcg {command} {usage}",
            description=first_line(about),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_known_args(self, args=None, namespace=None):
        """As argparse; what was given is known when a mistake is explained."""
        self._given = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        for word in self._given:
            key, equals, value = word.partition("=")
            if equals and f"--{key}" in self._option_string_actions:
                raise ValueError(f"{word} is no argument of {self.prog}; write --{key} {value}")
        if message.startswith(UNRECOGNIZED):
            option, _, rest = message.removeprefix(UNRECOGNIZED).partition(" ")
            if option.startswith("-"):
                raise ValueError(self._no_option(option, rest.split()))
        raise ValueError(f"{message}; {self.prog} --help says more")

    def _no_option(self, word: str, following: list[str], keys: Keys = lambda name: []) -> str:
        """Say that there is no such option, and what to write instead."""
        option, equals, value = word.partition("=")
        if not equals and following and not following[0].startswith("-"):
            value = following[0]
        name = option.lstrip("-").replace("-", "_")
        arguments = [action.dest for action in self._actions if not action.option_strings]
        if found := keys(name):
            written = [f"{key}={value or 'VALUE'}" for key in found]
            hint = f"write {' or '.join(written)}"
        elif name in arguments or f"{name}s" in arguments:
            hint = f"write {value or 'its value'} alone"
        else:
            known = [text for text in self._option_string_actions if text.startswith("--")]
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"{self.prog} --help says more"
        return f"there is no option {option}; {hint}"

    def parse_words(
        self, words: list[str], keys: Keys = lambda name: []
    ) -> tuple[argparse.Namespace, list[str]]:
        """The options, and all other words in order; --key=value, as W&B has it, is one of them.

        keys: the options of which somebody who writes --name may mean one, to be written as
        key=value.
        """
        options, others = self.parse_known_args(words)
        others = [word for word in others if word != "--"]
        for place, word in enumerate(others):
            is_flag = word.startswith("--") and "." in word  # of W&B, for an option that is true
            value = others[place + 1 : place + 2]
            if is_flag and value and "=" not in value[0] and keys(word[2:]):
                is_flag = False
            if word.startswith("-") and "=" not in word and not is_flag:
                raise ValueError(self._no_option(word, value, keys))
        return options, others

    def _get_value(self, action, text):
        """As argparse, but no number of any option is larger than a machine can count to."""
        from lcg.config.schema import COUNT, shown

        value = super()._get_value(action, text)
        if isinstance(value, int) and abs(value) > COUNT:
            raise argparse.ArgumentError(action, f"at most {shown(COUNT)} is possible, got {text}")
        return value

    def _print_message(self, message: str, file=None) -> None:
        """As argparse, but a full disk is an error."""
        print(message, end="", file=file, flush=True)


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
    from lcg.runs.run import Run
    from lcg.runs.wandb_reader import with_wandb

    if not options.runs and not options.wandb:
        raise ValueError("name run directories, or a W&B project with --wandb")
    runs = Run.find(options.runs, report=log.warning) if options.runs else []
    records = [run.record for run in runs]
    records = with_wandb(records, options.wandb, report=log.warning)
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
        log.warning(
            f"note: {name} {problem} since {trained[0]}{others} trained with it; "
            "what is shown is of the code then, which is in RUN/sources"
        )


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for what is under way, gone when done; called with its title, what is done, and all."""
    from tqdm import tqdm

    title = bar = None
    with ExitStack() as shown:

        def progress(name: str, done: int, total: int) -> None:
            nonlocal title, bar
            if name != title:
                shown.close()
                title = name
                bar = shown.enter_context(tqdm(total=total, desc=name, leave=False, disable=None))
            bar.update(done - bar.n)

        yield progress
