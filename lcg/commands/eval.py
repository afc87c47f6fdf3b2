"""Evaluate runs at more lengths."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lcg.commands.args import Parser, add_trust
from lcg.log import log

CHANGES = """\
Options of position and attention can change too, if every learned tensor keeps its name and shape:

  lcg eval RUN position.base=50000
  lcg eval RUN attention.normalizer=topk
  lcg eval RUN position=./yarn.py:YaRN position.scale=8

A class that replaces another takes over the run's values of the options that both have. The results
are added to results.json and get rows of their own in tables.

Options that are not given keep the values of the run. Options of the evaluation, with the defaults
of `lcg train`:
"""
TRAINING_ONLY = ("after_training", "also")


def run(words: list[str]) -> int:
    from lcg.config import ConfigError, with_changes, with_overrides
    from lcg.config.compatibility import check_ids
    from lcg.config.help import describe_fields
    from lcg.config.load import is_change
    from lcg.config.schema import Evaluation
    from lcg.runs.record import RunRecord
    from lcg.runs.run import Run
    from lcg.training.devices import evaluation_problem

    names = (field.name for field in dataclasses.fields(Evaluation))
    fields = tuple(name for name in names if name not in TRAINING_ONLY)
    parser = Parser(
        "eval",
        "RUN … [key=value …] [--device NAME]",
        __doc__,
        epilog=CHANGES + describe_fields(Evaluation(), fields),
        keys=lambda name: [name] if name in fields else [],
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add_trust(parser)
    options, words = parser.parse_known_args(words)
    runs = [Path(word) for word in words if "=" not in word or Path(word).exists()]
    overrides = [word for word in words if Path(word) not in runs]
    if not runs:
        raise ValueError("name a run directory to evaluate")
    for option in TRAINING_ONLY:
        keys = (f"{option}=", f"evaluation.{option}=")
        if any(word.lstrip("-").startswith(keys) for word in overrides):
            raise ValueError(f"{option} is an option of `lcg train` and has no effect here")
    changed_words = [word for word in overrides if is_change(word)]
    overrides = [word for word in overrides if not is_change(word)]
    configs, problems = {}, []
    for run in runs:  # what was typed is checked before any run is evaluated
        Run(run).check()
    for run in runs:
        try:
            config = Run(run, options.trust).config
        except ValueError as error:  # of this run; the others are evaluated
            problems.append(str(error))
            continue
        config.evaluation = with_overrides(config.evaluation, overrides, "evaluation")
        for length in config.evaluation.lengths:
            config.task.check_evaluation("test", length)
        if problem := evaluation_problem(config):
            raise ValueError(problem)
        try:
            Run(run).check_selected()
            RunRecord.load(run)
            changed, changes = with_changes(config, changed_words)
            check_ids(changed, *config.evaluation.lengths)
            configs[run] = config, changed, changes
        except ValueError as error:
            problems.append(f"{run}: {error}" if isinstance(error, ConfigError) else str(error))
    if not configs:
        raise ValueError(" | ".join(problems))
    from lcg.evaluation.evaluate import check_tensors, choose_device, evaluate_and_log
    from lcg.runs.wandb_logger import send_record

    choose_device(options.device)
    for run, (config, changed, _) in list(configs.items()) if changed_words else ():
        try:
            check_tensors(config, changed)
        except ValueError as error:
            problems.append(f"{run}: {error}")
            del configs[run]
    if not configs:
        raise ValueError(" | ".join(problems))

    for run, (config, changed, changes) in configs.items():
        try:
            before = RunRecord.load(run)
            evaluate_and_log(run, changed, options.device, changes)
        except ValueError as error:
            if len(runs) == 1:
                raise
            problems.append(str(error))
            continue
        if RunRecord.load(run) != before:
            send_record(config, run)
    for problem in problems:
        log.warning(f"lcg: {problem}")
    return 2 if problems else 0
