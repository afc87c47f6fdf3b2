"""Print sequences of a task and its properties, or the effect of an encoding by distance."""

from __future__ import annotations

import shutil
import textwrap

import numpy as np

from lcg.commands.args import Parser
from lcg.tasks.base import IGNORE, Task
from lcg.text import align, in_blocks

MOST = 1_000_000  # tokens that are shown
LONGEST = 16_384  # tokens that an encoding is shown over
SHORTCUT_TOKENS = 2**17  # of the samples that shortcuts are tried on
INDENT = 11  # of the columns, after the name of their row


def run(words: list[str]) -> int:
    from lcg.config import load_task
    from lcg.config.compatibility import check_task
    from lcg.config.schema import Model, shown
    from lcg.config.types import build, convert

    if any(word.lstrip("-").partition("=")[0].partition(".")[0] == "position" for word in words):
        return show_position(words)
    numbers, chosen, model = {"length": 8, "count": 3, "seed": 0}, [], Model()
    keys = ("task", "experiment", *numbers)
    usage = (
        "task=NAME [task.FIELD=VALUE …] [length=8] [count=3] [seed=0] [model.kind=KIND]"
        " | position=NAME [position.FIELD=VALUE …] [heads=8] [length=1024] [-o FILE]"
    )
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
    print("\n" + "\n".join(known(task, length)))
    return 0


def known(task: Task, length: int) -> list[str]:
    """Return a line for each fact that a task states and each shortcut's accuracy."""
    from lcg.catalogue import task_facts
    from lcg.tasks.shortcuts import SHORTCUTS, shortcut_accuracy

    lines = list(task_facts(task, length))
    rows = min(1000, SHORTCUT_TOKENS // int(task.token_length(length)))
    if task.kind != "masked" and not task.path_fields and rows >= 100:
        lines.append(f"Labels right, EOS aside, by shortcuts learned from {rows} samples:")
        for name, feature in SHORTCUTS.items():
            lines.append(f"  {name}: {shortcut_accuracy(task, length, feature, rows):.1f} %")
    return lines


def show_position(words: list[str]) -> int:
    """Print what an encoding does to scores, by head and distance, or draw it."""
    from lcg.catalogue import against_distance, draw_against_distance
    from lcg.config import load_config
    from lcg.config.types import convert
    from lcg.runs.files import write_atomic

    numbers, chosen = {"heads": 8, "length": 1024}, []
    usage = "position=NAME [position.FIELD=VALUE …] [heads=8] [length=1024] [-o FILE]"
    parser = Parser("show", usage, __doc__, lambda name: [name] if name == "position" else [])
    parser.add_argument("-o", "--output", help="draw to this file instead: .png, .svg or .pdf")
    options, rest = parser.parse_known_args(words)
    for word in rest:
        key, _, value = word.lstrip("-").partition("=")
        if key in numbers:
            numbers[key] = convert(int, value, key)
        elif key.partition(".")[0] == "position":
            chosen.append(word)
        else:
            raise ValueError(
                f"{word} has no effect here: give a position, heads, length or --output"
            )
    heads, length = numbers.values()
    if not (1 <= heads <= 64 and 2 <= length <= LONGEST):
        raise ValueError(f"heads must lie in 1 to 64, and length in 2 to {LONGEST}")
    sizes = [f"model.heads={heads}", f"model.d_model={16 * heads}"]
    position = load_config(["task=copy", "attention=softmax", *chosen, *sizes]).position
    about, by_head = against_distance(position, heads, length)
    if options.output:
        print(
            write_atomic(
                options.output, draw_against_distance(position, about, by_head, options.output)
            )
        )
        return 0
    shown = [0, *(2**i for i in range(length.bit_length()) if 2**i < length)]
    if shown[-1] != length - 1:
        shown.append(length - 1)
    header = ("distance", *(f"head {head}" for head in range(heads)))
    rows = [(str(d), *(f"{column[d]:.4g}" for column in by_head)) for d in shown]
    print(f"{position.name}: {about}, of the last of {length} tokens")
    print("\n".join(align([header, *rows], justify=str.rjust)))
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
