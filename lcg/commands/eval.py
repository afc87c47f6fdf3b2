"""Evaluate runs at more lengths."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lcg.commands.args import Parser, add_trust
from lcg.log import log


def run(words: list[str]) -> int:
    from lcg.config import with_overrides
    from lcg.config.help import describe_fields
    from lcg.config.schema import Evaluation
    from lcg.runs.record import RunRecord
    from lcg.runs.run import Run
    from lcg.training.devices import evaluation_problem

    fields = [field.name for field in dataclasses.fields(Evaluation)]
    parser = Parser(
        "eval",
        "RUN … [key=value …] [--device NAME]",
        __doc__,
        epilog="What is not given is as the run has it. Defaults:\n"
        + describe_fields(Evaluation()),
        keys=lambda name: [name] if name in fields else [],
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add_trust(parser)
    options, words = parser.parse_known_args(words)
    runs = [Path(word) for word in words if "=" not in word or Path(word).exists()]
    overrides = [word for word in words if Path(word) not in runs]
    if not runs:
        raise ValueError("name a run directory to evaluate")
    if any(word.lstrip("-").startswith("after_training=") for word in overrides):
        raise ValueError("after_training is about `lcg train`; it changes nothing here")
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
        except ValueError as error:
            problems.append(str(error))
            continue
        configs[run] = config
    if not configs:
        raise ValueError(" | ".join(problems))
    from lcg.evaluation.evaluate import choose_device, evaluate_and_log
    from lcg.runs.wandb_logger import send_record

    choose_device(options.device)

    for run, config in configs.items():
        try:
            before = RunRecord.load(run)
            evaluate_and_log(run, config, options.device)
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
