"""Evaluate runs at more lengths."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lcg.commands.args import Parser, add_trust
from lcg.log import log

CHANGES = """\
Options of position and attention may be given too, as `lcg train` takes them, if the learned
tensors stay as they are: position.base=50000, attention.normalizer=topk, position=./yarn.py:YaRN
position.scale=8. An option that another class has by the same name stays as the run has it.
The results are kept beside the run's own, and have rows of their own in tables.

What is not given is as the run has it. Defaults:
"""


def run(words: list[str]) -> int:
    from lcg.config import ConfigError, with_changes, with_overrides
    from lcg.config.help import describe_fields
    from lcg.config.load import is_change
    from lcg.config.schema import Evaluation
    from lcg.runs.record import RunRecord
    from lcg.runs.run import Run
    from lcg.training.devices import evaluation_problem

    fields = [field.name for field in dataclasses.fields(Evaluation)]
    parser = Parser(
        "eval",
        "RUN … [key=value …] [--device NAME]",
        __doc__,
        epilog=CHANGES + describe_fields(Evaluation()),
        keys=lambda name: [name] if name in fields else [],
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add_trust(parser)
    options, words = parser.parse_known_args(words)
    runs = [Path(word) for word in words if "=" not in word or Path(word).exists()]
    overrides = [word for word in words if Path(word) not in runs]
    if not runs:
        raise ValueError("name a run directory to evaluate")
    for option in ("after_training", "also"):
        keys = (f"{option}=", f"evaluation.{option}=")
        if any(word.lstrip("-").startswith(keys) for word in overrides):
            raise ValueError(f"{option} is about `lcg train`; it changes nothing here")
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
            configs[run] = config, *with_changes(config, changed_words)
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
