"""The catalogue: every built-in member of each kind, with what the code knows of it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lcg import registry
from lcg.attention import Attention
from lcg.attention.backends import FORMS, usable
from lcg.attention.normalizers.softmax import Softmax
from lcg.config import load_config
from lcg.config.help import field_help, first_sentence
from lcg.config.types import as_text
from lcg.positional.base import PositionEncoding, Sizes
from lcg.results.figure import FONTS, frame, image
from lcg.results.plot import SUFFIXES
from lcg.tasks.base import Task
from lcg.tasks.streams import eval_batch

KINDS = {
    "position": "Position encodings",
    "normalizer": "Normalizers",
    "scaling": "Query scalings",
    "output_norm": "Output norms",
    "task": "Tasks",
}
SIZES = Sizes(heads=8, kv_heads=8, head_dim=8, d_model=64)
"""The layer whose learned numbers are counted."""
LENGTH = 32  # nominal, of what is said of a task, or the least there is
MULTIPLES = (1, 4, 64)
QUANTILES = (0.1, 0.5, 0.9)
HEAD = f"""# Catalogue

Every built-in position encoding, normalizer, scaling, output norm and task: `lcg list catalogue` prints this page.
`lcg show task=NAME` and `lcg show position=NAME` show one of them at work. Learned numbers are those of a layer of
{SIZES.heads} heads of {SIZES.head_dim} dimensions and width {SIZES.d_model}.
"""  # noqa: E501


CHANGES = {
    "embed": "the embedding",
    "rotate_queries": "queries and keys",
    "rotate_keys": "queries and keys",
}
"""Hooks of an encoding that give no bias -> what they change."""


def catalogue() -> str:
    """The whole catalogue as markdown."""
    blocks = [HEAD.strip()]
    for kind, title in KINDS.items():
        blocks.append(f"## {title}")
        families = by_family(kind)
        for family, members in families.items():
            blocks += [f"**{family}**"] if len(families) > 1 else []
            blocks += [entry(kind, name, cls) for name, cls in members.items()]
    return "\n\n".join(blocks) + "\n"


def by_family(kind: str) -> dict[str, dict[str, type]]:
    """The members of a kind, by name, under what the docstring of their module says it has."""
    found: dict[str, dict[str, type]] = {}
    for name, cls in registry.available(kind).items():
        about = inspect.cleandoc(importlib.import_module(cls.__module__).__doc__ or "")
        family = first_sentence(" ".join(about.partition("\n\n")[0].split())).rstrip(".")
        found.setdefault(family, {})[name] = cls
    return dict(sorted(found.items()))


def entry(kind: str, name: str, cls: type) -> str:
    """A member: its docstring, its options, and what is measured of it."""
    text = re.sub(r"\n*^>>> .*\Z", "", inspect.cleandoc(cls.__doc__ or ""), flags=re.M | re.S)
    lines = [f"### `{name}`", "", *text.splitlines(), ""]
    lines += [f"- `{option}`: {about}" for option, about in _options(cls)]
    return "\n".join([*lines, *(f"- {fact}" for fact in facts(kind, _made(kind, cls)))]).rstrip()


def _made(kind: str, cls: type) -> Any:
    """A member as a config has it, which knows the training length."""
    if kind not in ("position", "scaling"):
        return cls()
    option = "position" if kind == "position" else "attention.scaling"
    words = [f"{option}={cls.name}", "task=copy", "evaluation.lengths=32", "validation.lengths=32"]
    words += [f"model.heads={SIZES.heads}", f"model.d_model={SIZES.d_model}"]
    config = load_config(words)
    return config.position if kind == "position" else config.attention.scaling


def _options(cls: type) -> Iterator[tuple[str, str]]:
    texts, made = field_help(cls), cls()
    for field in dataclasses.fields(cls):
        if field.init:
            value = getattr(made, field.name)
            shown = registry.name_of(type(value)) if dataclasses.is_dataclass(value) else None
            yield f"{field.name}={shown or as_text(value)}", texts[field.name]


def facts(kind: str, member: Any) -> Iterator[str]:
    """Lines of what follows from the code of a member."""
    if kind == "task":
        yield from task_facts(member)
        return
    if kind == "position":
        forms = [form for form in FORMS if member.has(form)]
        changed = dict.fromkeys(text for hook, text in CHANGES.items() if member.has(hook))
        also = f"; changes {' and '.join(changed)}" if changed else ""
        yield f"Form of bias: {', '.join(forms) or 'none'}{also}"
        yield f"Backends: {', '.join(usable(Softmax(), member))}"
    if kind in ("normalizer", "output_norm"):
        yield f"Backends: {', '.join(member.backends)}"
    count, of_model = learned_numbers(kind, member)
    model = f", and {of_model} per model" if of_model else ""
    yield f"Learned numbers: {count} per layer{model}"


def learned_numbers(kind: str, member: Any) -> tuple[int, int]:
    """Count the numbers a member learns in one layer, and an encoding once per model."""
    from lcg.attention.layer import MultiHeadAttention
    from lcg.positional.nope import NoPE

    parts = {"position": NoPE(), "normalizer": Softmax()} | {kind: member}
    position = parts.pop("position")
    layer = MultiHeadAttention(Attention(**parts), position, SIZES)
    state = getattr(layer, f"{kind}_state")
    of_model = position.learned_embedding(SIZES) if kind == "position" else {}
    return sum(t.numel() for t in state.values()), sum(t.numel() for t in of_model.values())


def task_facts(task: Task, length: int = LENGTH) -> Iterator[str]:
    """Tokens, chance level and distances to the evidence, at a length and its multiples."""
    yield f"Kind: {task.kind}"
    if task.path_fields:
        return
    length = max(length, task.min_length)
    most = "at most " if task.variable_length else ""
    yield f"Tokens at length {length}: {most}{int(task.token_length(length))}"
    if type(task).chance is not Task.chance:
        yield f"Chance at length {length}: {task.chance(length):.3g} % of sequences"
    for multiple in MULTIPLES:
        if (found := distances(task, multiple * length)) is not None:
            tokens = " / ".join(f"{value:.0f}" for value in found)
            yield f"Tokens to the evidence at {multiple}×, 10 / 50 / 90 %: {tokens}"


def distances(task: Task, length: int, rows: int = 8) -> np.ndarray | None:
    """Quantiles of the tokens between a scored position and its evidence; None: not stated, or no
    sequence of this length."""
    try:
        task.check_length(length)
    except ValueError:
        return None
    distance = task.evidence_distance(eval_batch(task, 0, "test", length, 0, rows))
    if distance is None or not (distance >= 0).any():
        return None
    return np.quantile(distance[distance >= 0], QUANTILES, method="nearest")


# ---- a position encoding against distance


def against_distance(position: PositionEncoding, heads: int, length: int) -> tuple[str, Any]:
    """What an encoding does to the scores of the last of `length` tokens: what is shown, and it
    [heads length] by distance.

    Its bias, where every input is 0; where it has none, the score of queries and keys that are 1 in
    every dimension. Raises ValueError for an encoding that changes embeddings alone.
    """
    import torch

    from lcg.attention.layer import MultiHeadAttention

    sizes = Sizes(heads, heads, 16, 16 * heads)
    torch.manual_seed(0)
    layer = MultiHeadAttention(Attention(Softmax()), position, sizes)
    last = torch.tensor([length - 1])
    with torch.no_grad():
        scores = layer.scores(torch.zeros(1, length, sizes.d_model), None, last)[0, :, 0]
        if scores[scores.isfinite()].any():
            return "bias where every input is 0", scores.flip(-1).numpy()
        for projection in (layer.query, layer.key):
            projection.weight.fill_(1 / sizes.d_model)
        scores = layer.scores(torch.ones(1, length, sizes.d_model), None, last)[0, :, 0]
    seen = scores[scores.isfinite()]
    if seen.numel() and (scores.isinf().any() or not torch.allclose(seen, seen[0])):
        return "score of queries and keys of ones", scores.flip(-1).numpy()
    raise ValueError(
        f"{position.name}: scores do not depend on distance, so there is nothing to draw"
    )


def draw_against_distance(position: PositionEncoding, about: str, by_head: Any, path: str) -> bytes:
    """The picture of `against_distance` as the content of a .png, .svg or .pdf file."""
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: cannot draw to {suffix!r}, use {', '.join(SUFFIXES)}")
    with matplotlib.rc_context(FONTS):
        figure = Figure(figsize=(6.3, 3.6), layout="constrained")
        panel = figure.subplots()
        for head, values in enumerate(by_head):
            shade = matplotlib.colormaps["viridis"](head / max(1, len(by_head)))
            panel.plot(np.arange(len(values)), values, color=shade, label=f"head {head}")
        panel.set_xscale("symlog", base=2, linthresh=1)
        panel.set(xlabel="distance in tokens", ylabel=about, title=position.name)
        frame(panel)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        return image(figure, suffix[1:])
