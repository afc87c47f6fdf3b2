"""Predict the attention graph of a sparse model, and measure accuracy on the predicted graph."""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

from lcg.commands.args import Parser, add_trust, progress_bars
from lcg.config import Config
from lcg.config.schema import COUNT, shown
from lcg.diagnostics.columns import attention_layers
from lcg.log import log
from lcg.runs.files import RECORD, write_atomic
from lcg.runs.run import Run

RATIOS = (1, 4, 16)
LEAST = {"samples": 1, "rank": 1, "steps": 1, "seed": 0}


def run(words: list[str]) -> int:
    options = _parsed(words)
    directory = Path(options.run)
    config = _checked(directory, options)

    from lcg.evaluation.evaluate import choose_device, load_model
    from lcg.sparsefinder.metrics import check_identity
    from lcg.sparsefinder.study import run_study
    from lcg.sparsefinder.writing import SUMMARY, identity_text, summary

    plan = _plan(config, options)
    device = choose_device(options.device)
    model, step = load_model(directory, config, device)
    for layer in model.attention_layers().values():
        check_identity(layer.normalizer, layer.normalizer_state, layer.sizes.heads)
    log.info(
        f"{directory}: checkpoint of step {step}, predictors learned at length {plan.learned_at}"
    )
    with progress_bars() as progress:
        study = run_study(model, config, plan, progress)
    print(f"{SUMMARY}\n")
    print(summary(study))
    print(f"\n{identity_text(study)}")
    for result in study.lengths:
        if result.skipped is not None:
            log.info(f"length {result.length} skipped: {result.skipped}")
    name = f"sparsefinder_len_{'_'.join(map(str, plan.lengths))}"
    folder = Path(options.output) if options.output else Run(directory).plots / name
    _write(study, directory, step, folder)
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = Parser(
        "sparsefinder",
        "RUN [--length N,N,…] [--full] [--samples 16] [--rank 4] [--shared] [-o FOLDER]",
        __doc__,
        epilog=(
            "Writes table.md, results.json and two figures. Predictors are learned at the largest "
            "training length.\ndocs/sparsefinder.md explains the methods and the figures."
        ),
    )
    add, number = parser.add_argument, {"type": int}
    add("run", help="a run directory")
    add("--length", help="nominal lengths; default: 1, 4 and 16 times the largest training length")
    add("--full", action="store_true", help="use the whole grid of the paper's code")
    add("--samples", **number, default=16, help="test samples at the shortest length")
    add("--rank", **number, default=4, help="dimensions of the projections")
    add("--shared", action="store_true", help="share one projection between q and k")
    add("--steps", **number, default=300, help="training steps of a projection")
    add(
        "--windows",
        help="windows to add to predictors, 0 for none; default: 0,5, and 5 with 1 global",
    )
    add("--globals", help="numbers of global tokens to add, with each window")
    add("--cosine", action="store_true", help="also use cosine distances")
    add("--seed", **number, default=0, help="seed of everything that is learned or drawn")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("-o", "--output", help="folder; default: in RUN/plots")
    add_trust(parser)
    options = parser.parse_args(words)
    for name, least in {"length": 1, "windows": 0, "globals": 0}.items():
        setattr(options, name, _numbers(f"--{name}", getattr(options, name), least))
    return options


def _numbers(option: str, text: str | None, least: int) -> list[int] | None:
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} {text}: give whole numbers with commas") from None
    if max(numbers) > COUNT or min(numbers) < least:
        raise ValueError(
            f"{option} {text}: numbers must be at least {least}, at most {shown(COUNT)}"
        )
    return numbers


def _checked(directory: Path, options: argparse.Namespace) -> Config:
    """Return the config; raises ValueError before any work, and sets the default lengths."""
    from lcg.sparsefinder import check_sparse

    run = Run(directory, options.trust)
    config = run.config
    for name, least in LEAST.items():
        if getattr(options, name) < least:
            raise ValueError(f"--{name} must be at least {least}")
    if options.rank > config.model.width_of_head:
        raise ValueError(
            f"--rank {options.rank}: heads have {config.model.width_of_head} dimensions, "
            "a projection has no more"
        )
    if options.output and Path(options.output).is_file():
        raise ValueError(f"{options.output} is a file; -o takes a folder")
    config.task.check_evaluation("validation", config.data.max_length)
    if options.length is None:
        options.length = _default_lengths(config)
    for length in options.length:
        config.task.check_evaluation("test", length)
    run.check_selected()
    if not attention_layers(config):
        raise ValueError(f"mixer={config.mixer.name} has no attention whose graph to predict")
    for attention in config.attention.pattern or [config.attention]:
        check_sparse(attention.normalizer)
    return config


def _default_lengths(config: Config) -> list[int]:
    """Return the lengths that the test split has, or all if it has none, to be rejected; log
    those left out."""
    lengths, missing = [ratio * config.data.max_length for ratio in RATIOS], []
    for length in lengths:
        try:
            config.task.check_evaluation("test", length)
        except ValueError:
            missing.append(length)
    if missing and len(missing) < len(lengths):
        left_out = ", ".join(map(str, missing))
        log.info(f"lengths left out, because the test split has no samples that long: {left_out}")
        return [length for length in lengths if length not in missing]
    return lengths


def _plan(config: Config, options: argparse.Namespace):
    from lcg.sparsefinder.grid import Grid, full_grid
    from lcg.sparsefinder.study import Plan

    grid = full_grid(options.seed) if options.full else Grid(seed=options.seed)
    if options.windows or options.globals:
        alone = [window for window, count in grid.joined if not count]
        pairs = product(options.windows or alone, options.globals or [0])
        grid = replace(grid, joined=tuple(pairs))
    if options.cosine and not grid.cosine:
        grid = replace(grid, cosine=(0.1, 0.3, 0.6, 1.0, float("inf")))
    same = {name: getattr(options, name) for name in ("samples", "rank", "shared", "steps", "seed")}
    lengths = tuple(sorted(set(options.length)))
    return Plan(lengths, config.data.max_length, **same, grid=grid)


def _write(study, directory: Path, step: int, folder: Path) -> None:
    from lcg.results.labels import run_labels
    from lcg.sparsefinder.plots import draw
    from lcg.sparsefinder.writing import as_json, document

    name = directory.resolve().name
    (label,) = run_labels([Run(directory).record])
    log.info(str(write_atomic(folder / RECORD, as_json(study, name, step))))
    log.info(str(write_atomic(folder / "table.md", document(study, name))))
    if any(result.skipped is None for result in study.lengths):
        for value, file in (("recall", "recall"), ("token_accuracy", "accuracy")):
            log.info(str(draw(study, value, label, folder / f"sparsity_{file}.png")))
