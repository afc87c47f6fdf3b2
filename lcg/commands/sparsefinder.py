"""Predict the attention graph of a sparse model, and see what that costs at longer lengths."""

from __future__ import annotations

import argparse
from pathlib import Path

from lcg.commands.args import Parser, add_trust, trusted
from lcg.log import log

RATIOS = (1, 4, 16)


def run(words: list[str]) -> int:
    options = _parsed(words)
    directory = Path(options.run)
    config = _checked(directory, options)

    from lcg.evaluation.evaluate import choose_device, load_model
    from lcg.sparsefinder.checking import check_identity
    from lcg.sparsefinder.restricting import attention_of
    from lcg.sparsefinder.study import run_study
    from lcg.sparsefinder.writing import SUMMARY, identity_text, summary

    plan = _plan(config, options)
    device = choose_device(options.device)
    model, step = load_model(directory, config, device)
    for layer in attention_of(model):
        normalizer = layer.attention.normalizer
        check_identity(normalizer, layer.normalizer_state, layer.sizes.heads)
    log.info(
        f"{directory}: checkpoint of step {step}, predictors learned at length {plan.learned_at}"
    )
    bars = _Bars()
    try:
        study = run_study(model, config, plan, bars)
    finally:
        bars.close()
    print(f"{SUMMARY}\n")
    print(summary(study))
    print(f"\n{identity_text(study)}")
    for result in study.lengths:
        if result.skipped is not None:
            log.info(f"length {result.length} skipped: {result.skipped}")
    _write(study, directory, step, _folder(directory, plan.lengths, options))
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = Parser(
        "sparsefinder",
        "RUN [--length N,N,…] [--full] [--samples 16] [--rank 4] [--shared] [-o FOLDER]",
        __doc__,
        epilog=(
            "Writes table.md, results.json and two pictures. Predictors are learned at the largest "
            "training length;\ndocs/sparsefinder.md says what is compared and how to read it."
        ),
    )
    parser.add_argument("run", help="a run directory")
    parser.add_argument(
        "--length", help="nominal lengths; default: 1, 4 and 16 times the largest of training"
    )
    parser.add_argument("--full", action="store_true", help="the whole grid of the paper's code")
    parser.add_argument(
        "--samples", type=int, default=16, help="test samples at the shortest length"
    )
    parser.add_argument("--rank", type=int, default=4, help="dimensions of the projections")
    parser.add_argument("--shared", action="store_true", help="one projection for q and k")
    parser.add_argument("--steps", type=int, default=300, help="steps that learn a projection")
    parser.add_argument(
        "--windows",
        help="windows joined to predictors, 0 for none; default: 0,5, and 5 with 1 global",
    )
    parser.add_argument(
        "--globals", help="global tokens joined to predictors, with each of the windows"
    )
    parser.add_argument("--cosine", action="store_true", help="cosine distances as well")
    parser.add_argument("--seed", type=int, default=0, help="of all that is learned or drawn")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    parser.add_argument("-o", "--output", help="folder; default: in RUN/plots")
    add_trust(parser)
    return parser.parse_args(words)


def _checked(directory: Path, options: argparse.Namespace):
    """The config; raises ValueError before any work."""
    from lcg.runs.run import Run
    from lcg.sparsefinder.checking import check_sparse

    run = Run(directory, trusted(options))
    config = run.config
    for name in ("samples", "rank", "steps"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1")
    if options.seed < 0:
        raise ValueError(f"--seed {options.seed} must not be negative")
    if options.rank > config.model.width_of_head:
        raise ValueError(
            f"--rank {options.rank}: heads have {config.model.width_of_head} dimensions, "
            "a projection has no more"
        )
    if options.output and Path(options.output).is_file():
        raise ValueError(f"{options.output} is a file; -o takes a folder")
    config.task.check_evaluation("validation", config.data.max_length)
    _check_lengths(config, options)
    for name in ("windows", "globals"):
        _numbers(name, getattr(options, name), 0)
    run.check_selected()
    check_sparse(config.attention.normalizer)
    return config


def _check_lengths(config, options: argparse.Namespace) -> None:
    """Refuse a length asked for that the test split lacks; say which default is left out."""
    lengths = _lengths(config, options)
    for length in lengths or _defaults(config):
        config.task.check_evaluation("test", length)
    if options.length is None:
        missing = [length for length in _defaults(config) if length not in lengths]
        if missing:
            log.info(
                f"left out, for the test split has nothing so long: {', '.join(map(str, missing))}"
            )


def _defaults(config) -> list[int]:
    return [ratio * config.data.max_length for ratio in RATIOS]


def _has(task, length: int) -> bool:
    try:
        task.check_evaluation("test", length)
    except ValueError:
        return False
    return True


def _lengths(config, options: argparse.Namespace) -> tuple[int, ...]:
    if options.length is None:
        return tuple(length for length in _defaults(config) if _has(config.task, length))
    return tuple(sorted(set(_numbers("length", options.length, 1))))


def _numbers(name: str, text: str | None, least: int) -> list[int]:
    from lcg.config.schema import COUNT, shown

    try:
        numbers = [int(part) for part in (text or "").split(",") if part or text]
    except ValueError:
        raise ValueError(f"--{name} {text}: give whole numbers with commas") from None
    if text is not None and not numbers:
        raise ValueError(f"--{name}: give whole numbers with commas")
    if any(number > COUNT for number in numbers):
        raise ValueError(f"--{name} {text}: numbers must be at most {shown(COUNT)}")
    if any(number < least for number in numbers):
        raise ValueError(f"--{name} {text}: numbers must be at least {least}")
    return numbers


def _plan(config, options: argparse.Namespace):
    from dataclasses import replace
    from itertools import product

    from lcg.sparsefinder.grid import Grid, full_grid
    from lcg.sparsefinder.study import Plan

    grid = full_grid(options.seed) if options.full else Grid(seed=options.seed)
    windows, counts = (_numbers(n, getattr(options, n), 0) for n in ("windows", "globals"))
    if windows or counts:
        alone = [window for window, count in grid.joined if not count]
        grid = replace(grid, joined=tuple(product(windows or alone, counts or [0])))
    if options.cosine and not grid.cosine:
        grid = replace(grid, cosine=(0.1, 0.3, 0.6, 1.0, float("inf")))
    return Plan(
        lengths=_lengths(config, options),
        learned_at=config.data.max_length,
        samples=options.samples,
        rank=options.rank,
        shared=options.shared,
        steps=options.steps,
        seed=options.seed,
        grid=grid,
    )


def _folder(directory: Path, lengths: tuple[int, ...], options: argparse.Namespace) -> Path:
    from lcg.runs.run import Run

    if options.output:
        return Path(options.output)
    return Run(directory).plots / f"sparsefinder_len_{'_'.join(map(str, lengths))}"


def _write(study, directory: Path, step: int, folder: Path) -> None:
    from lcg.results.labels import run_labels
    from lcg.runs.files import RECORD, write_atomic
    from lcg.runs.run import Run
    from lcg.sparsefinder.plots import draw
    from lcg.sparsefinder.writing import as_json, document

    name = directory.resolve().name
    (label,) = run_labels([Run(directory).record])
    log.info(str(write_atomic(folder / RECORD, as_json(study, name, step))))
    log.info(str(write_atomic(folder / "table.md", document(study, name))))
    if any(result.skipped is None for result in study.lengths):
        for value, file in (("recall", "recall"), ("token_accuracy", "accuracy")):
            log.info(str(draw(study, value, label, folder / f"sparsity_{file}.png")))


class _Bars:
    """A progress bar for what is under way, gone when it is done."""

    def __init__(self) -> None:
        self._bar, self._title = None, None

    def __call__(self, title: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if title != self._title:
            self.close()
            self._title = title
            self._bar = tqdm(total=total, desc=title, leave=False, disable=None)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._title = None
