"""Try a task, attention or position encoding on small inputs before training with it."""

from __future__ import annotations

import sys

from lcg.commands.args import EXIT_CODES, Parser

ABOUT = """Classes of your own, file.py:Class or package.module:Class, and built-in ones are tried
on inputs from the smallest up: shapes, gradients, masked and padded rows, cached and chunked
evaluation, and what a class promises. Each property is ok, fails (with the smallest input on
which it does), or does not apply (and why). Exits with 2 if any fails."""


def run(words: list[str]) -> int:
    from lcg.config.types import convert

    parser = Parser(
        "check",
        "task=NAME | attention=NAME | position=NAME … [task.FIELD=VALUE …] [length=256]",
        __doc__,
        epilog=f"{ABOUT}\n\n{EXIT_CODES}",
    )
    _, overrides = parser.parse_words(words)
    longest, chosen = 256, []
    for word in overrides:
        key, _, value = word.lstrip("-").partition("=")
        if key == "length":
            longest = convert(int, value, "length")
        elif key.partition(".")[0] in GROUPS:
            chosen.append(word)
        else:
            raise ValueError(f"{word} changes nothing here: give a {', '.join(GROUPS)} or length")
    named = {word.lstrip("-").partition("=")[0].partition(".")[0] for word in chosen}
    if not named:
        raise ValueError("name a task, an attention or a position to check")
    failed = sum(GROUPS[group](chosen, longest) for group in GROUPS if group in named)
    if failed:
        print(
            f"lcg: {failed} {'property' if failed == 1 else 'properties'} failed", file=sys.stderr
        )
    return 2 if failed else 0


def _task(words: list[str], longest: int) -> int:
    from lcg.checks import tasks
    from lcg.config import load_task

    own = [word for word in words if word.lstrip("-").startswith("task")]
    task = load_task(own)
    return _report("task", task, tasks.Subject(task, own, longest), tasks.PROPERTIES)


def _attention(words: list[str], longest: int) -> int:
    from lcg.checks import attention

    config = _config(words)
    return sum(
        _report(f"attention.{kind}", parts.owner, parts, properties)
        for kind, parts, properties in attention.subjects(config.attention)
    )


def _position(words: list[str], longest: int) -> int:
    from lcg.checks import positions

    position = _config(words).position
    return _report("position", position, positions.subject(position), positions.PROPERTIES)


def _config(words: list[str]):
    import torch

    from lcg.config import load_config

    torch.set_num_threads(1)  # two would wait for each other at these sizes

    own = [word for word in words if not word.lstrip("-").startswith("task")]
    return load_config(own, fitting=False)


def _report(group: str, instance, subject, properties) -> int:
    """Print a line for each property; returns how many failed."""
    from lcg.checks.properties import try_properties

    print(f"{group} {instance.name} ({type(instance).__name__})")
    failed = 0
    for result in try_properties(subject, properties):
        print(f"  {result}", flush=True)
        failed += result.state == "fails"
    return failed


GROUPS = {"task": _task, "attention": _attention, "position": _position}
