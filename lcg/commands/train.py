"""Train a run, or resume it, and evaluate it at longer lengths."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from lcg.commands.args import EXIT_CODES, Parser
from lcg.log import log
from lcg.ranks import is_rank_zero, take_rank


def run(words: list[str]) -> int:
    from lcg.api import check_machine, train_and_evaluate
    from lcg.config import load_config, run_directory, to_yaml
    from lcg.config.errors import options_called
    from lcg.config.load import is_for_wandb
    from lcg.runs.run import Run

    usage = "[experiment=NAME] [key=value …] [--dry-run]"
    parser = Parser("train", usage, __doc__, options_called, add_help=False)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the config and an estimate of time, memory and disk; train nothing",
    )
    parser.add_argument("-h", "--help", action="store_true", help="print this help and all options")
    options, overrides = parser.parse_known_args(words)
    for word in filter(is_for_wandb, overrides):
        log.warning(f"note: {word.partition('=')[0]} is an option of W&B and is ignored")
    config = load_config(overrides, fitting=not options.help)
    if options.help:
        from lcg.config.help import describe

        print(f"{parser.format_help()}\n{EXIT_CODES}\n\n{describe(config)}")
        return 0
    trainer = config.trainer
    if ignored := take_rank(trainer.devices, trainer.nodes):
        log.warning(
            f"note: {', '.join(ignored)} ignored: trainer.devices=1 and trainer.nodes=1 make a run "
            "of one process"
        )
    problem = check_machine(config)
    if problem and not options.dry_run:
        raise ValueError(problem)
    if options.dry_run:
        print(to_yaml(config), flush=True)
    if problem:
        from lcg.config.compatibility import parameter_count

        log.warning(f"warning: {problem}; no step is timed")
        count = parameter_count(config.model, config.task.vocabulary)
        print(f"run         {run_directory(config)}\nparameters  {count:,}")
        return 0
    if options.dry_run:
        from lcg.training.timing import project

        print(project(config, overrides))
        return 0
    with suppress(OSError):  # as `train` does, which has words for folders that cannot be read,
        Run.place(config).check_is_of(config)  # but before torch is imported, which takes seconds
    outcome = train_and_evaluate(config)
    if is_rank_zero():
        print(outcome.directory)
        if outcome.signal and os.environ.get("WANDB_SWEEP_ID"):
            # `wandb agent` takes an exit code above 0 for a failure, and gives up on a sweep of
            # which the first runs fail: three stop requests, or an early termination of the first
            # five runs, would end it. A death by signal it does not count, and a shell says
            # 128 + number of it as well.
            sys.stdout.flush()
            signal.signal(outcome.signal, signal.SIG_DFL)
            os.kill(os.getpid(), outcome.signal)
    return outcome.exit_code
