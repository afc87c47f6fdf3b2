"""Print a few sequences of a task."""

from __future__ import annotations

import shutil
import textwrap

import numpy as np

from lcg.commands.args import Parser
from lcg.tasks.base import IGNORE, Task
from lcg.text import align, in_blocks

MOST = 1_000_000  # tokens that are shown
INDENT = 11  # of the columns, after the name of their row


def run(words: list[str]) -> int:
    from lcg.config import load_task
    from lcg.config.compatibility import check_task
    from lcg.config.schema import Model, shown
    from lcg.config.types import build, convert

    numbers, chosen, model = {"length": 8, "count": 3, "seed": 0}, [], Model()
    keys = ("task", "experiment", *numbers)
    usage = "task=NAME [task.FIELD=VALUE …] [length=8] [count=3] [seed=0] [model.kind=KIND]"
    parser = Parser("show", usage, __doc__, lambda name: [name] if name in keys else [])
    for word in parser.parse_known_args(words)[1]:
        key, _, value = word.lstrip("-").partition("=")
        if key in numbers:
            numbers[key] = convert(int, value, key)
        elif key == "model.kind":
            model = build(Model, {"kind": value}, "model")
        elif key.partition(".")[0] in ("task", "experiment"):
            chosen.append(word)
        else:
            raise ValueError(
                f"{word} has no effect here: give a task, length, count, seed or model.kind"
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
    if model.separate_source:  # what other kinds read does not depend on them
        check_task(model, task)
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    print(introduction(task, length, model.separate_source))
    for seed in range(first, first + count):
        print("\n" + sequence(task, length, seed, width, model.separate_source))
    return 0


def introduction(task: Task, length: int, separate_source: bool = False) -> str:
    """Explain the lines of `sequence`.

    separate_source: an encoder reads the source, a decoder the rest.
    """
    scored = "every symbol but <bos> is" if task.kind == "tagging" else "target and <eos> are"
    if task.partly_scored:
        scored = "the positions with a label are"
    most = "at most " if task.variable_length else ""
    reader = "decoder" if separate_source else "model"
    encoder = "\n  encoder  input of the encoder, all at once" if separate_source else ""
    return (
        f"{task.name}, nominal length {length}: {most}{task.source_length(length)} source "
        f"tokens, {most}{task.token_length(length)} in all; {scored} scored{encoder}\n"
        f"  input    tokens that the {reader} reads\n"
        "  label    correct output after the token above\n"
        "  ^        scored: the sequence is right if all of these are"
    )


def sequence(
    task: Task, length: int, seed: int, width: int = 100, separate_source: bool = False
) -> str:
    """One sequence: source and target, then in columns inputs, labels and which are scored.

    Columns are broken into blocks of at most `width` characters.
    """
    batch = task.encode(np.random.default_rng(seed), np.array([length]), separate_source)
    inputs, labels = batch.inputs[0], batch.labels[0]
    scored = labels != IGNORE
    whole = {}
    if batch.source is not None:
        whole["encoder"] = batch.source[0]
    elif task.kind == "seq2seq":
        end = scored.argmax() + 1 - task.separator  # from BOS to SEP or target
        whole["source"] = inputs[1:end]
        whole["target"] = labels[scored][:-1]  # before EOS
    parts = [
        textwrap.fill(
            task.render(tokens),
            width,
            initial_indent=f"  {name}".ljust(INDENT),
            subsequent_indent=" " * INDENT,
        )
        for name, tokens in whole.items()
    ]
    columns = [
        (task.text(token), task.text(label) if mark else "", "^" if mark else "")
        for token, label, mark in zip(inputs, labels, scored, strict=True)
    ]
    blocks = [_rows(block) for block in in_blocks(columns, width - INDENT)]
    return "\n".join([*parts, "\n\n".join(blocks)])


def _rows(block: list[tuple[str, ...]]) -> str:
    named = zip(("input", "label", ""), zip(*block, strict=True), strict=True)
    rows = [(f"  {name}".ljust(INDENT - 1), *cells) for name, cells in named if any(cells)]
    return "\n".join(line.rstrip() for line in align(rows, " "))
