"""Check a task, attention, position encoding, mixer or loop on small inputs before training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from lcg.commands.args import EXIT_CODES, Parser

GROUPS = ("task", "attention", "position", "mixer", "loop")
ABOUT = """Checks built-in classes and your own, file.py:Class or package.module:Class, from the
smallest inputs up: shapes, gradients, masked and padded rows, cached and chunked evaluation,
and the properties that a class declares. Each property is ok, fails (with the smallest input that
fails), or does not apply (with the reason). The exit code is 2 if any fails."""


def run(words: list[str]) -> int:
    from lcg.config.types import convert

    parser = Parser(
        "check",
        "task=NAME | attention=NAME | position=NAME | mixer=NAME | loop=NAME … "
        "[task.FIELD=VALUE …] [length=256]",
        __doc__,
        keys=lambda name: [name] if name in (*GROUPS, "length") else [],
        epilog=f"{ABOUT}\n\n{EXIT_CODES}",
    )
    _, words = parser.parse_known_args(words)
    longest, chosen = 256, {group: [] for group in GROUPS}
    for word in words:
        key, _, value = word.lstrip("-").partition("=")
        group = key.partition(".")[0]
        if key == "length":
            longest = convert(int, value, "length")
        elif group in GROUPS:
            chosen[group].append(word)
        else:
            raise ValueError(f"{word} has no effect here: give a {', '.join(GROUPS)} or length")
    if not any(chosen.values()):
        raise ValueError("name a task, an attention, a position, a mixer or a loop to check")
    from lcg.checks.properties import try_properties

    failed = 0
    for group, instance, subject, properties in _subjects(chosen, longest):
        print(f"{group} {instance.name} ({type(instance).__name__})")
        for result in try_properties(subject, properties):
            print(f"  {result}", flush=True)
            failed += result.state == "fails"
    if failed:
        print(
            f"lcg: {failed} {'property' if failed == 1 else 'properties'} failed", file=sys.stderr
        )
    return 2 if failed else 0


def _subjects(chosen: dict[str, list[str]], longest: int) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield group, instance, subject and properties of each class that was chosen."""
    from lcg.config import load_config, load_task

    if chosen["task"]:
        from lcg.checks import tasks

        task = load_task(chosen["task"])
        yield "task", task, tasks.Subject(task, chosen["task"], longest), tasks.PROPERTIES
    of_model = [word for group in GROUPS[1:] for word in chosen[group]]
    if not of_model:
        return
    import torch

    from lcg.checks import attention, mixers, positions

    torch.set_num_threads(1)  # two would wait for each other at these sizes
    config = load_config(of_model, fitting=False)
    if chosen["attention"]:
        for of_layer in _of_layers(config.attention):
            for kind, parts, properties in attention.subjects(of_layer):
                yield f"attention.{kind}", parts.owner, parts, properties
    if chosen["position"]:
        for position in _of_layers(config.position):
            yield "position", position, positions.subject(position), positions.PROPERTIES
    if chosen["mixer"]:
        yield "mixer", config.mixer, *mixers.of_mixer(config.mixer)
    if chosen["loop"]:
        yield "loop", config.loop, *mixers.of_loop(config.loop)


def _of_layers(choice: Any) -> list[Any]:
    """Return an attention or an encoding, or the different members of its pattern over layers."""
    pattern = getattr(choice, "pattern", None) or [choice]
    return [own for i, own in enumerate(pattern) if own not in pattern[:i]]
