"""Shared arguments of commands, their parser, the exit codes, and progress bars."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from lcg.log import log
from lcg.runs.sources import FLAG, HELP, Trust

if TYPE_CHECKING:
    from lcg.runs.record import RunRecord


EXIT_CODES = """exit codes:
  0    done
  1    system error (disk, memory, permission), a bug, with its traceback, or a failed run
       of a sweep
  2    bad input, found before anything was written, or an error in your own class
       (see `lcg check`)
  3    busy: another process trains the run
  4    loss, gradient or weights were not finite
  130  stopped by Ctrl-C; 143: by SIGTERM; 129: by a closed terminal. Training saved first;
       the same command resumes"""


def first_line(docstring: str | None) -> str:
    """Return the first line of a docstring; empty if Python runs without docstrings (-OO)."""
    return (docstring or "").partition("\n")[0]


def add_trust(parser: Parser, otherwise: Trust = "own") -> None:
    """Add the option that allows all copies of users' classes to run."""
    option = {"dest": "trust", "action": "store_const", "const": "any", "default": otherwise}
    parser.add_argument(FLAG, help=HELP, **option)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ValueError, in one line, instead of printing usage and
    exiting.

    about: the command's module docstring; its first line is the description. keys: for a command
    that takes key=value, returns the options that --name may mean.
    """

    def __init__(
        self,
        command: str,
        usage: str,
        about: str | None,
        keys: Callable[[str], list[str]] | None = None,
        **options,
    ) -> None:
        self.keys = keys
        super().__init__(
            prog=f"lcg {command}",
            usage=f"lcg {command} {usage}",
            description=first_line(about),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_known_args(self, args=None, namespace=None):
        """Return the options, and all other words in order, among them --key=value, as W&B
        passes it."""
        self._given = list(args or ())
        options, words = super().parse_known_args(args, namespace)
        words = [word for word in words if word != "--"]
        for word, following in pairwise([*words, ""]):
            option, equals, value = word.partition("=")
            if not equals and not following.startswith("-"):
                value = following
            # An option that is true is a flag to W&B, and one that is known needs its value.
            needs_value = value and "=" not in value and self.keys and self.keys(option[2:])
            is_flag = option.startswith("--") and "." in option and not needs_value
            if word.startswith("-") and not (self.keys and (equals or is_flag)):
                raise ValueError(f"there is no option {option}; {self._hint(option, value)}")
        return options, words

    def error(self, message: str):
        for word in self._given:
            key, equals, value = word.partition("=")
            if equals and f"--{key}" in self._option_string_actions:
                raise ValueError(f"{word} is not an argument of {self.prog}; write --{key} {value}")
        raise ValueError(f"{message}; {self.prog} --help says more")

    def _hint(self, option: str, value: str) -> str:
        """Return what to write instead of an unknown option."""
        name = option.lstrip("-").replace("-", "_")
        arguments = [action.dest for action in self._actions if not action.option_strings]
        if meant := self.keys and self.keys(name):
            return "write " + " or ".join(f"{key}={value or 'VALUE'}" for key in meant)
        if name in arguments or f"{name}s" in arguments:
            return f"write {value or 'its value'} alone"
        long_options = [text for text in self._option_string_actions if text.startswith("--")]
        close = difflib.get_close_matches(option, long_options, n=1)
        return f"did you mean {close[0]}?" if close else f"{self.prog} --help says more"

    def _get_value(self, action, text):
        """Like argparse, with an upper limit on whole numbers."""
        from lcg.config.schema import COUNT, shown

        value = super()._get_value(action, text)
        if isinstance(value, int) and abs(value) > COUNT:
            raise argparse.ArgumentError(action, f"at most {shown(COUNT)} is possible, got {text}")
        return value

    def _print_message(self, message: str, file=None) -> None:
        """Like argparse, but raise an error for a full disk."""
        print(message, end="", file=file, flush=True)


WANDB_HELP = "a W&B project, ENTITY/PROJECT, or a folder with W&B's files; repeatable"


def add_sources(parser: Parser) -> None:
    """Add the arguments that name runs."""
    parser.add_argument("runs", nargs="*", help="run directories, or folders that contain them")
    parser.add_argument("--wandb", action="append", default=[], metavar="PLACE", help=WANDB_HELP)


def add_metric(parser: Parser) -> None:
    """Add the option that names a metric."""
    parser.add_argument(
        "--metric",
        default="exact_match",
        metavar="NAME",
        help="exact_match, token_accuracy, prefix, oracle_length (EOS not scored), edit_distance "
        "(of decoded targets) or a metric of the task such as bleu, if the runs have it; default: "
        "exact_match",
    )


def add_baseline(parser: Parser) -> None:
    """Add the option that names the baseline."""
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="method to compare the others with: a label, an attention or a part of a label; "
        "default: softmax, or the first method if there is no softmax",
    )


def read_sources(options) -> list:
    """Return the records of the named runs; log those that cannot be read. Raises ValueError for
    none."""
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
    """Log which users' classes changed since runs were trained with them; import none."""
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
            problem = "no longer exists, or cannot be read,"
        others = f" and {len(trained) - 1} more were" if len(trained) > 1 else " was"
        log.warning(
            f"note: {name} {problem} since {trained[0]}{others} trained with it; "
            "results are of the old code, kept in RUN/sources"
        )


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Return a function that shows a bar for one task at a time: called with title, done and
    total."""
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
