"""Train the runs of a W&B sweep file, several at a time, without an account or a network."""

from __future__ import annotations

import os

from lcg.commands.args import EXIT_CODES, Parser
from lcg.log import plain

USAGE = "FILE [--workers N] [--storage URL] [--dry-run] [--wandb] [key=value …]"
ABOUT = """FILE is a path, or the name of a built-in sweep such as quick_copy.
key=value overrides every run; for a parameter that the file varies, it fixes one value.

The study and the logs are in RUNS/sweeps/FILE-HASH. Finished runs are not trained again. The same
command resumes a sweep that was stopped or killed."""


def run(words: list[str]) -> int:
    from lcg.config.errors import options_called
    from lcg.config.schema import Processes
    from lcg.config.types import convert

    parser = Parser("sweep", USAGE, __doc__, epilog=f"{ABOUT}\n\n{EXIT_CODES}", keys=options_called)
    parser.add_argument("file", help="a W&B sweep file")
    parser.add_argument("--workers", type=int, help="runs at a time; default: one, or one per GPU")
    parser.add_argument("--storage", help="URL of a database or proxy that several hosts share")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the runs and estimate their time"
    )
    parser.add_argument(
        "--wandb", action="store_true", help="register the sweep with W&B without training"
    )
    options, overrides = parser.parse_known_args(words)
    convert(Processes | None, options.workers, "--workers")

    from lcg.sweeping import read_sweep

    if options.wandb and (options.dry_run or options.workers or options.storage):
        raise ValueError(
            "--wandb only registers the sweep; leave out --dry-run, --workers and --storage"
        )
    sweep = read_sweep(options.file, overrides)
    if options.wandb:
        return register(sweep)
    if options.dry_run:
        from lcg.sweeping.estimate import project_sweep

        for text in project_sweep(sweep, options.workers):
            print(text, flush=True)
        return 0
    from lcg.sweeping.launcher import Launcher

    summary = Launcher(sweep, options.workers, options.storage).launch()
    print(plain(summary.as_text()))
    return summary.exit_code


def register(sweep) -> int:
    """Register the sweep with W&B, and print the command that starts an agent.

    Raises ValueError when W&B cannot be reached, or rejects it.
    """
    from lcg.config import load_config
    from lcg.runs.wandb_logger import choose_mode
    from lcg.sweeping.file import for_wandb

    mode, why = choose_mode("auto")
    if mode != "online":
        raise ValueError(f"--wandb needs W&B: {why or f'its mode is {mode}'}")
    import wandb

    asked = load_config(sweep.words(sweep.example)).wandb
    entity = asked.entity or sweep.content.get("entity")
    named = "wandb.project" in sweep.fixed
    project = asked.project if named else sweep.content.get("project") or asked.project
    try:
        name = wandb.sweep(for_wandb(sweep), entity=entity, project=project)
        entity = entity or os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"--wandb: W&B rejected the sweep: {reason}") from None
    print(f"wandb agent {entity}/{project}/{name}")
    return 0
