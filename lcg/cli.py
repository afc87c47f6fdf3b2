"""The `lcg` command. Results go to stdout, everything else to stderr.

Exit codes: 0 done, 2 bad input (nothing was written), 3 the run is busy, 4 the loss was not finite,
128 + n stopped by signal n after saving.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# torch, lightning, wandb and matplotlib are imported by the commands that need them: help, lists
# and config errors must not wait for them.
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


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(__version__)
        return 0
    command, rest = words[0], words[1:]
    try:
        if command not in COMMANDS:
            from lcg.registry import nearest

            raise ValueError(f"there is no command {command!r}; {nearest(command, list(COMMANDS))}")
        return globals()[f"_{command}"](rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # | head
        return 0
    except ValueError as error:
        _say(f"lcg: {error}")
        return 2


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  lcg {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    examples = [
        "  lcg train experiment=quick/copy attention=asentmax position=rope seed=3",
        "  lcg eval runs/copy-* lengths=1024,2048",
        "  lcg table runs/copy-*",
    ]
    return "\n".join(
        ["Train short, evaluate long.", "", *lines, "", "lcg COMMAND --help says more.", "", *examples]
    )


def _parser(command: str, usage: str, **options) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"lcg {command}",
        usage=f"lcg {command} {usage}",
        description=COMMANDS[command][0].upper() + COMMANDS[command][1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


# ---- train ------------------------------------------------------------------------------------


def _train(words: list[str]) -> int:
    from lcg.config import load_config

    parser = _parser("train", "[experiment=NAME] [key=value …] [--dry-run]", add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    options = parser.parse_intermixed_args(words)
    config = load_config(options.overrides)
    if options.help:
        from lcg.config.help import describe

        print(parser.format_usage() + "\n" + describe(config))
        return 0
    if options.dry_run:
        from lcg.training.projection import project

        print(project(config))
        return 0
    return _train_and_evaluate(config)[1]


def _train_and_evaluate(config) -> tuple[Path, int]:
    from lcg.training.run import Busy, is_first_process, train

    try:
        outcome = train(config)
    except Busy as error:
        _say(f"lcg: {error}")
        return Path(), 3
    if not is_first_process():
        return outcome.directory, outcome.exit_code
    if outcome.status == "interrupted":
        _say(f"stopped at step {outcome.step}; the same command goes on from there")
    elif outcome.status == "not_finite":
        _say(f"stopped: {outcome.reason}; see {outcome.directory}/metrics.csv")
    elif outcome.already:
        _say(f"{outcome.directory} is finished, {outcome.step} steps")
    if outcome.status == "finished" and config.evaluation.after_training:
        _evaluate_run(outcome.directory, config)
    print(outcome.directory)
    return outcome.directory, outcome.exit_code


# ---- eval -------------------------------------------------------------------------------------


def _eval(words: list[str]) -> int:
    parser = _parser("eval", "RUN … [lengths=64,128] [samples=1000] [seed=0] [decode=greedy]")
    parser.add_argument("words", nargs="*", metavar="RUN or field=value", help=_evaluation_help())
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    options = parser.parse_intermixed_args(words)
    from lcg.config import with_overrides
    from lcg.evaluation.files import read_config

    overrides = [word for word in options.words if "=" in word]
    runs = [Path(word) for word in options.words if "=" not in word]
    if not runs:
        raise ValueError("name a run directory to evaluate")
    configs = []
    for run in runs:  # every one is checked before any is evaluated
        config = read_config(run)
        config.evaluation = with_overrides(config.evaluation, overrides, "evaluation")
        for length in config.evaluation.lengths:
            config.task.check_length(length)
        configs.append(config)
    for run, config in zip(runs, configs, strict=True):
        _evaluate_run(run, config, options.device)
    return 0


def _evaluation_help() -> str:
    from lcg.config.help import field_help
    from lcg.config.schema import Evaluation

    return " | ".join(f"{name}: {text}" for name, text in field_help(Evaluation).items())


def _evaluate_run(run: Path, config, device: str = "auto") -> None:
    """Evaluate one run, a bar and then a line per length."""
    from lcg.evaluation.run import evaluate
    from lcg.results import wilson

    _say(f"{run}: test ladder, {config.evaluation.samples} samples per length")
    with _bars() as progress:
        for cell in evaluate(run, config, device, progress):
            if cell.state == "value":
                low, high = wilson(cell.correct, cell.samples)
                shown = f"exact match {100 * cell.exact_match:5.1f} % "
                shown += f"[{100 * low:.1f}, {100 * high:.1f}]"
                shown += f"   tokens {100 * cell.token_accuracy:5.1f} %   {cell.seconds:.1f} s"
            else:
                shown = f"{cell.state.replace('_', ' ')}: {cell.reason}"
            progress.close()
            _say(f"  {cell.length:>7,}  {shown}")


class _bars:
    """A progress bar per length, gone when the length is done."""

    def __enter__(self):
        self._bar = None
        return self

    def __call__(self, length: int, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, desc=f"  {length:>7,}", unit="sample", leave=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def __exit__(self, *exception) -> None:
        self.close()


# ---- table, plot ------------------------------------------------------------------------------


def _table(words: list[str]) -> int:
    from lcg.results import load_runs, table, write_atomic

    parser = _parser("table", "RUN … [--format markdown|csv|json] [-o FILE]")
    parser.add_argument("runs", nargs="+", help="run directories, or folders that hold some")
    parser.add_argument("--format", choices=("markdown", "csv", "json"), default="markdown")
    parser.add_argument("-o", "--output", help="write to this file instead of stdout")
    options = parser.parse_args(words)
    text = table(load_runs(options.runs), options.format)
    if options.output:
        write_atomic(options.output, text)
        _say(f"wrote {options.output}")
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return 0


def _plot(words: list[str]) -> int:
    from lcg.results import load_runs, plot

    parser = _parser("plot", "RUN … [-o FILE.png|FILE.svg]")
    parser.add_argument("runs", nargs="+", help="run directories, or folders that hold some")
    parser.add_argument(
        "-o", "--output", help="default: RUN/plots/ for one run, else accuracy_vs_length.png here"
    )
    options = parser.parse_args(words)
    records = load_runs(options.runs)
    single = Path(options.runs[0]) / "plots" / "accuracy_vs_length.png"
    alone = len(records) == 1 and single.parent.is_dir()
    path = options.output or (single if alone else "accuracy_vs_length.png")
    print(plot(records, path))
    return 0


# ---- list, show -------------------------------------------------------------------------------

LISTS = {
    "tasks": "task",
    "attentions": "attention",
    "positions": "position",
    "normalizers": "normalizer",
    "scalings": "scaling",
    "output_norms": "output_norm",
    "experiments": "experiment",
}


def _list(words: list[str]) -> int:
    from lcg.config.listing import difference, listing

    parser = _parser("list", "[tasks|attentions|positions|experiments|…] [--diff A B]")
    parser.add_argument("what", nargs="?", choices=list(LISTS), help="default: everything")
    parser.add_argument(
        "--diff", nargs=2, metavar=("A", "B"), help="how two experiments differ, field by field"
    )
    options = parser.parse_intermixed_args(words)
    if options.diff:
        print(difference(*options.diff))
        return 0
    for title in [options.what] if options.what else LISTS:
        print(f"{title}:")
        for name, text in listing(LISTS[title]):
            print(f"  {name:<22} {text}".rstrip())
    return 0


def _show(words: list[str]) -> int:
    from lcg.config import load_config

    parser = _parser("show", "task=NAME [task.field=value …] [length=8] [count=3] [seed=0]")
    parser.add_argument("overrides", nargs="*", help="a task, its fields, length, count and seed")
    options = parser.parse_intermixed_args(words)
    numbers, rest = {"length": 8, "count": 3, "seed": 0}, []
    for word in options.overrides:
        key, _, value = word.partition("=")
        if key in numbers:
            if not value.isdigit():
                raise ValueError(f"{key}={value} is not a whole number")
            numbers[key] = int(value)
        else:
            rest.append(word)
    task = load_config(rest).task
    length = numbers["length"]
    task.check_length(length)
    print(f"{task.name}, nominal length {length}, {task.token_length(length)} tokens")
    print("labels: what must be output at each position; . is not scored\n")
    for i in range(numbers["count"]):
        print(task.example(length, numbers["seed"] + i), end="\n\n")
    return 0


# ---- demo -------------------------------------------------------------------------------------


def _demo(words: list[str]) -> int:
    from lcg.config import load_config
    from lcg.results import load_runs, plot, table

    parser = _parser("demo", "[key=value …]")
    parser.add_argument("overrides", nargs="*", help="laid over both runs, as for lcg train")
    options = parser.parse_intermixed_args(words)
    sides = ("demo/softmax", "demo/asentmax")
    configs = [load_config([f"experiment={side}", *options.overrides]) for side in sides]
    _say("Two transformers learn to copy short sequences; then each is asked for longer ones.")
    _say("Each trains at the learning rate that validation chose from one grid for both, over")
    _say("three seeds: docs/results.md has the whole grid. This is one seed of each.\n")
    directories = []
    for config in configs:
        directory, code = _train_and_evaluate(config)
        if code:
            return code
        directories.append(directory)
    records = load_runs(directories)
    picture = plot(records, Path(configs[0].runs) / "accuracy_vs_length.png")
    print("\n" + table(records))
    _say(f"picture: {picture}")
    for directory in directories:
        _say(f"run:     {directory}  (config.yaml, metrics.csv, results.json, checkpoints/)")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


