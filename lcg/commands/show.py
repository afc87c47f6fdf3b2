"""Print a few sequences of a task."""

from __future__ import annotations

import shutil

from lcg.commands.words import Parser


def run(words: list[str]) -> int:
    from lcg.config import load_task
    from lcg.config.convert import convert
    from lcg.show import introduction, sequence

    parser = Parser("show", "task=NAME [task.FIELD=VALUE …] [length=8] [count=3] [seed=0]", __doc__)
    _, overrides = parser.parse_words(words)
    numbers, chosen = {"length": 8, "count": 3, "seed": 0}, []
    for word in overrides:
        key, _, value = word.lstrip("-").partition("=")
        if key in numbers:
            numbers[key] = convert(int, value, key)
        elif key.partition(".")[0] in ("task", "experiment"):
            chosen.append(word)
        else:
            raise ValueError(f"{word} changes nothing here: give a task, length, count or seed")
    length, count, first = numbers.values()
    if count < 1 or first < 0:
        raise ValueError("count must be at least 1 and seed at least 0")
    task = load_task(chosen)
    task.check_length(length)
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    print(introduction(task, length))
    for seed in range(first, first + count):
        print("\n" + sequence(task, length, seed, width))
    return 0
