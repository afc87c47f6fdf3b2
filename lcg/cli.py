"""The `lcg` command. Results go to stdout, everything else to stderr.

Torch, lightning, wandb and matplotlib are imported by the commands that need them: help, lists and
the mistakes in a config must not wait for them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from lcg import __version__

COMMANDS = {
    "train": "train a run, or go on with it, and evaluate it at longer lengths",
    "eval": "evaluate runs at more lengths",
    "table": "print runs as a table",
    "plot": "draw accuracy against length",
    "list": "list what there is: tasks, attentions, positions, experiments, …",
    "show": "print a few sequences of a task",
    "demo": "train softmax and ASEntmax on copy, and see how far each carries",
}
EXIT_CODES = """exit codes:
  0    done
  1    the machine refused (disk, memory, permission), or a fault in the code, with its traceback
  2    bad input; nothing was written
  3    the run is busy: another process trains it
  4    loss, gradient or weights were not finite
  130  stopped by Ctrl-C, 143 by SIGTERM; training has saved, the same command goes on"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    # Threads that spin while they wait slow torch down many times over on a machine that others
    # use too; OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _say("lcg: stopped")
        return 130
    except BrokenPipeError:  # | head; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        _say(f"lcg: {' '.join(str(error).split())}")
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        _say(f"lcg: {error.filename}: {error.strerror}")
        return 1


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(__version__)
        return 0
    if words[0] not in COMMANDS:
        raise ValueError(f"there is no command {words[0]}; {_nearest(words[0], COMMANDS)}")
    return globals()[f"_{words[0]}"](words[1:])


def _overview() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "Train short, evaluate long.",
            "",
            *(f"  lcg {name:<{width}}  {text}" for name, text in COMMANDS.items()),
            "",
            "lcg COMMAND --help says more.",
            "",
            "  lcg train experiment=quick/copy attention=asentmax position=rope seed=3",
            "  lcg eval runs/copy-* lengths=1024,2048",
            "  lcg table runs/copy-*",
            "",
            EXIT_CODES,
        ]
    )


# ---- train ------------------------------------------------------------------------------------


def _train(words: list[str]) -> int:
    from lcg.config import load_config
    from lcg.config.remarks import remarks
    from lcg.training.processes import is_first_process

    parser = _Parser("train", "[experiment=NAME] [key=value …] [--dry-run]", add_help=False)
    parser.add_argument("--dry-run", action="store_true", help="print config, time, memory, disk")
    parser.add_argument("-h", "--help", action="store_true", help="print this and all options")
    options, overrides = parser.parse_words(words)
    config = load_config(overrides, fitting=not options.help)
    if options.help:
        from lcg.config.help import describe

        print(f"{parser.format_help()}\n{EXIT_CODES}\n\n{describe(config)}")
        return 0
    for remark in remarks(config):
        _say(f"note: {remark}")
    if options.dry_run:
        from lcg.training.projection import project

        print(project(config))
        return 0
    outcome = _train_and_evaluate(config)
    if outcome is None:
        return 3
    if is_first_process():
        print(outcome.directory)
    return outcome.exit_code


def _train_and_evaluate(config):
    """How training ended; None when the run is busy."""
    from lcg.terminal import evaluate_and_say
    from lcg.training.processes import is_first_process
    from lcg.training.run import Busy, train

    try:
        outcome = train(config)
    except Busy as error:
        _say(f"lcg: {error}")
        return None
    if not is_first_process():
        return outcome
    if outcome.status == "interrupted":
        _say(f"stopped at step {outcome.step}; the same command goes on from there")
    elif outcome.status == "not_finite":
        _say(f"stopped: {outcome.reason}; see {outcome.directory}/metrics.csv")
    elif outcome.already:
        _say(f"{outcome.directory} is finished, {outcome.step} steps")
    if outcome.status == "finished" and config.evaluation.after_training:
        device = {"gpu": "cuda"}.get(config.trainer.accelerator, config.trainer.accelerator)
        evaluate_and_say(outcome.directory, config, device)
    return outcome


# ---- eval -------------------------------------------------------------------------------------


def _eval(words: list[str]) -> int:
    from lcg.config import with_overrides
    from lcg.config.help import describe_fields
    from lcg.config.schema import Evaluation
    from lcg.evaluation.files import check_selected, read_config
    from lcg.terminal import evaluate_and_say

    parser = _Parser(
        "eval",
        "RUN … [key=value …] [--device NAME]",
        epilog="What is not given is as the run has it. Defaults:\n"
        + describe_fields(Evaluation()),
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    options, words = parser.parse_words(words)
    runs = [Path(word) for word in words if "=" not in word or Path(word).exists()]
    overrides = [word for word in words if Path(word) not in runs]
    if not runs:
        raise ValueError("name a run directory to evaluate")
    configs = []
    for run in runs:  # every one is checked before any is evaluated
        config = read_config(run)
        config.evaluation = with_overrides(config.evaluation, overrides, "evaluation")
        for length in config.evaluation.lengths:
            config.task.check_length(length)
        check_selected(run)
        configs.append(config)
    for run, config in zip(runs, configs, strict=True):
        evaluate_and_say(run, config, options.device)
    return 0


# ---- table, plot ------------------------------------------------------------------------------


def _table(words: list[str]) -> int:
    from lcg.results import load_runs, table, write_atomic

    parser = _Parser("table", "RUN … [--format markdown|csv|json] [-o FILE]")
    parser.add_argument("runs", nargs="+", help="run directories, or folders that hold some")
    parser.add_argument("--format", choices=("markdown", "csv", "json"), default="markdown")
    parser.add_argument("-o", "--output", help="write to this file instead of stdout")
    options = parser.parse_intermixed_args(words)
    text = table(load_runs(options.runs), options.format)
    if options.output:
        write_atomic(options.output, text)
        _say(f"wrote {options.output}")
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return 0


def _plot(words: list[str]) -> int:
    from lcg.results import load_runs, plot

    parser = _Parser("plot", "RUN … [-o FILE.png|FILE.svg]")
    parser.add_argument("runs", nargs="+", help="run directories, or folders that hold some")
    parser.add_argument(
        "-o", "--output", help="default: RUN/plots/ for one run, else accuracy_vs_length.png here"
    )
    options = parser.parse_intermixed_args(words)
    records = load_runs(options.runs)
    single = Path(options.runs[0]) / "plots" / "accuracy_vs_length.png"
    alone = len(records) == 1 and single.parent.is_dir()
    path = options.output or (single if alone else "accuracy_vs_length.png")
    print(plot(records, path))
    return 0


# ---- list, show -------------------------------------------------------------------------------

LISTS = {
    "tasks": ("task", "task=NAME"),
    "attentions": ("attention", "attention=NAME"),
    "normalizers": ("normalizer", "attention=NAME or attention.normalizer=NAME"),
    "scalings": ("scaling", "attention.scaling=NAME"),
    "output_norms": ("output_norm", "attention.output_norm=NAME"),
    "positions": ("position", "position=NAME"),
    "experiments": ("experiment", "experiment=NAME"),
}


def _list(words: list[str]) -> int:
    from lcg.config.listing import backends, difference, listing

    parser = _Parser("list", "[WHAT] | --diff A B")
    named = ", ".join([*LISTS, "backends"])
    parser.add_argument("what", nargs="?", help=f"{named}; default: all but the last")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="how two experiments differ")
    options = parser.parse_intermixed_args(words)
    if options.what not in (None, "backends", *LISTS):
        nearest = _nearest(options.what, [*LISTS, "backends"])
        raise ValueError(f"there is no list of {options.what}; {nearest}")
    if options.diff:
        print(difference(*options.diff))
        return 0
    if options.what == "backends":
        print(backends())
        return 0
    blocks = []
    for title in [options.what] if options.what else LISTS:
        kind, usage = LISTS[title]
        rows = listing(kind)
        width = max((len(name) for name, _ in rows), default=0)
        lines = [f"{title} ({usage})", *(f"  {name:<{width}}  {text}" for name, text in rows)]
        blocks.append("\n".join(line.rstrip() for line in lines))
    print("\n\n".join(blocks))
    return 0


def _show(words: list[str]) -> int:
    from lcg.config import load_task
    from lcg.config.convert import convert
    from lcg.show import introduction, sequence

    parser = _Parser("show", "task=NAME [task.FIELD=VALUE …] [length=8] [count=3] [seed=0]")
    _, overrides = parser.parse_words(words)
    numbers, chosen = {"length": 8, "count": 3, "seed": 0}, []
    for word in overrides:
        key, _, value = word.lstrip("-").partition("=")
        if key in numbers:
            numbers[key] = convert(int, value, key)
        elif key.partition(".")[0] in ("task", "experiment"):
            chosen.append(word)
        else:
            raise ValueError(f"{word} changes nothing here: give a task, length, count or seed")
    length, count, first = numbers.values()
    if count < 1 or first < 0:
        raise ValueError("count must be at least 1 and seed at least 0")
    task = load_task(chosen)
    task.check_length(length)
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    print(introduction(task, length))
    for seed in range(first, first + count):
        print("\n" + sequence(task, length, seed, width))
    return 0


# ---- demo -------------------------------------------------------------------------------------


def _demo(words: list[str]) -> int:
    from lcg.config import load_config
    from lcg.results import load_runs, plot, table

    parser = _Parser("demo", "[key=value …]", epilog="key=value is laid over both runs.")
    _, overrides = parser.parse_words(words)
    sides = ("demo/softmax", "demo/asentmax")
    configs = [load_config([f"experiment={side}", *overrides]) for side in sides]
    _say("Two transformers learn to copy short sequences; then each is asked for longer ones.")
    _say("Each trains at the learning rate that validation chose from one grid for both, over")
    _say("three seeds. What follows is one seed of each, and seeds differ widely at this size:")
    _say("docs/results.md has the whole grid and says what survives all three.\n")
    directories = []
    for config in configs:
        outcome = _train_and_evaluate(config)
        if outcome is None or outcome.exit_code:
            return 3 if outcome is None else outcome.exit_code
        directories.append(outcome.directory)
    records = load_runs(directories)
    picture = plot(records, Path(configs[0].runs) / "accuracy_vs_length.png")
    print("\n" + table(records))
    _say(f"picture: {picture}")
    for directory in directories:
        _say(f"run:     {directory}  (config.yaml, metrics.csv, results.json, checkpoints/)")
    return 0


# ---- words ------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Raises ValueError, in one line, where argparse would print its usage and exit."""

    def __init__(self, command: str, usage: str, **options) -> None:
        super().__init__(
            prog=f"lcg {command}",
            usage=f"lcg {command} {usage}",
            description=COMMANDS[command][0].upper() + COMMANDS[command][1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str):
        raise ValueError(f"{message}; {self.prog} --help says more")

    def parse_words(self, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """The options, and all other words in order; --key=value, as W&B has it, is one of them."""
        options, others = self.parse_known_args(words)
        for word in others:
            if word.startswith("-") and "=" not in word:
                raise ValueError(f"there is no option {word}; {self.prog} --help says more")
        return options, others


def _nearest(name: str, valid) -> str:
    from lcg.registry import nearest

    return nearest(name, list(valid))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
