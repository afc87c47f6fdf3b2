"""Train a run, or go on with it, and evaluate it at longer lengths."""

from __future__ import annotations

from lcg.commands.words import EXIT_CODES, Parser, say


def run(words: list[str]) -> int:
    from lcg.config import load_config
    from lcg.config.remarks import remarks
    from lcg.training.processes import is_first_process

    parser = Parser("train", "[experiment=NAME] [key=value …] [--dry-run]", __doc__, add_help=False)
    parser.add_argument("--dry-run", action="store_true", help="print config, time, memory, disk")
    parser.add_argument("-h", "--help", action="store_true", help="print this and all options")
    options, overrides = parser.parse_words(words)
    config = load_config(overrides, fitting=not options.help)
    if options.help:
        from lcg.config.help import describe

        print(f"{parser.format_help()}\n{EXIT_CODES}\n\n{describe(config)}")
        return 0
    for remark in remarks(config):
        say(f"note: {remark}")
    if options.dry_run:
        from lcg.training.projection import project

        print(project(config))
        return 0
    outcome = train_and_evaluate(config)
    if outcome is None:
        return 3
    if is_first_process():
        print(outcome.directory)
    return outcome.exit_code


def train_and_evaluate(config):
    """How training ended; None when the run is busy."""
    from lcg.terminal import evaluate_and_say
    from lcg.training.processes import is_first_process
    from lcg.training.run import Busy, train

    try:
        outcome = train(config)
    except Busy as error:
        say(f"lcg: {error}")
        return None
    if not is_first_process():
        return outcome
    if outcome.status == "interrupted":
        say(f"stopped at step {outcome.step}; the same command goes on from there")
    elif outcome.status == "not_finite":
        say(f"stopped: {outcome.reason}; see {outcome.directory}/metrics.csv")
    elif outcome.already:
        say(f"{outcome.directory} is finished, {outcome.step} steps")
    if outcome.status == "finished" and config.evaluation.after_training:
        device = {"gpu": "cuda"}.get(config.trainer.accelerator, config.trainer.accelerator)
        evaluate_and_say(outcome.directory, config, device)
    return outcome
