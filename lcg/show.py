"""Sequences of a task as people read them: source, target, and what is scored where."""

from __future__ import annotations

import textwrap

import numpy as np

from lcg.tasks.base import IGNORE, Task

INDENT = 11  # of the columns, after the name of their row


def introduction(task: Task, length: int, apart: bool = False) -> str:
    """What the lines of `sequence` are; apart: an encoder reads the source, a decoder the rest."""
    scored = "every symbol but <bos> is" if task.kind == "tagging" else "target and <eos> are"
    if task.partly_scored:
        scored = "the positions with a label are"
    most = "at most " if task.ragged else ""
    encoder = ["  encoder  what the encoder reads, all at once"] if apart else []
    return "\n".join(
        [
            f"{task.name}, nominal length {length}: {most}{task.source_length(length)} source "
            f"tokens, {most}{task.token_length(length)} in all; {scored} scored",
            *encoder,
            f"  reads    what the {'decoder' if apart else 'model'} is given, token by token",
            "  answers  what it must output when it has read the token above",
            "  ^        scored: the sequence is right if all of these are",
        ]
    )


def sequence(task: Task, length: int, seed: int, width: int = 100, apart: bool = False) -> str:
    """One sequence: source and target, then in columns what is read, answered and scored.

    Columns are broken into blocks of at most `width` characters.
    """
    batch = task.encode(np.random.default_rng(seed), np.array([length]), apart)
    inputs, labels = batch.inputs[0], batch.labels[0]
    scored = labels != IGNORE
    parts = []
    if batch.source is not None:
        parts = [_named("encoder", task.render(batch.source[0]), width)]
    elif task.kind == "seq2seq":
        source = inputs[1 : scored.argmax() + 1 - task.separator]  # from BOS to SEP or target
        target = labels[scored][:-1]  # before EOS
        parts = [_named("source", task.render(source), width)]
        parts += [_named("target", task.render(target), width)]
    columns = [
        (task.text(read), task.text(answer) if mark else "", "^" if mark else "")
        for read, answer, mark in zip(inputs, labels, scored, strict=True)
    ]
    blocks = [_rows(block) for block in in_blocks(columns, width - INDENT)]
    return "\n".join([*parts, "\n\n".join(blocks)])


def _named(name: str, text: str, width: int) -> str:
    first = f"  {name}".ljust(INDENT)
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * INDENT)


def in_blocks(columns: list[tuple[str, ...]], width: int) -> list[list[tuple[str, ...]]]:
    """Columns in blocks of at most `width` characters, at least one column in each."""
    blocks: list[list[tuple[str, ...]]] = []
    used = width
    for column in columns:
        taken = max(map(len, column)) + 1
        if not blocks or used + taken - 1 > width:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += taken
    return blocks


def _rows(block: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in block]
    lines = []
    for name, cells in zip(("reads", "answers", ""), zip(*block, strict=True), strict=True):
        if any(cells):
            row = " ".join(map(str.rjust, cells, widths))
            lines.append(f"  {name}".ljust(INDENT) + row.rstrip())
    return "\n".join(lines)
