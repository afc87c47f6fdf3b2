"""Print a few sequences of a task."""

from __future__ import annotations

import shutil

from lcg.commands.words import Parser

MOST = 1_000_000  # tokens that are shown


def run(words: list[str]) -> int:
    from lcg.config import load_task
    from lcg.config.convert import build, convert
    from lcg.config.kinds import check_task
    from lcg.config.limits import shown
    from lcg.config.schema import Model
    from lcg.show import introduction, sequence

    parser = Parser(
        "show",
        "task=NAME [task.FIELD=VALUE …] [length=8] [count=3] [seed=0] [model.kind=KIND]",
        __doc__,
    )
    numbers, chosen, model = {"length": 8, "count": 3, "seed": 0}, [], Model()
    keys = ("task", "experiment", *numbers)
    _, overrides = parser.parse_words(words, lambda name: [name] if name in keys else [])
    for word in overrides:
        key, _, value = word.lstrip("-").partition("=")
        if key in numbers:
            numbers[key] = convert(int, value, key)
        elif key == "model.kind":
            model = build(Model, {"kind": value}, "model")
        elif key.partition(".")[0] in ("task", "experiment"):
            chosen.append(word)
        else:
            raise ValueError(
                f"{word} changes nothing here: give a task, length, count, seed or model.kind"
            )
    length, count, first = numbers.values()
    if count < 1 or first < 0:
        raise ValueError("count must be at least 1 and seed at least 0")
    task = load_task(chosen)
    task.check_length(length)
    tokens = count * int(task.token_length(length))
    if tokens > MOST:
        option = f"count={count}" if count > length else f"length={length}"
        raise ValueError(f"{option} shows {shown(tokens)} tokens; at most {shown(MOST)} are shown")
    if model.apart:  # what other kinds read does not depend on them
        check_task(model, task)
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    print(introduction(task, length, model.apart))
    for seed in range(first, first + count):
        print("\n" + sequence(task, length, seed, width, model.apart))
    return 0
