"""Sizes of a model and a batch, by arithmetic, before any work and without torch."""

from __future__ import annotations

import copy
import dataclasses
from numbers import Integral
from typing import TYPE_CHECKING, Any

from lcg.config.schema import (
    COUNT,
    HEADS,
    PARAMETERS,
    SHORTEST,
    VOCABULARY,
    Config,
    Model,
    TooLarge,
    shown,
)

if TYPE_CHECKING:
    from lcg.tasks.base import Task


def parameter_count(model: Model, vocabulary: int) -> int:
    """Count a model's matrices, embeddings and norms.

    These are all parameters but those that encoding, normalizer, scaling and output norm learn,
    which are few beside them.
    """
    width = model.d_model
    heads_width = model.heads * model.width_of_head
    keys_width = model.key_heads * model.width_of_head
    gemma = model.block == "gemma2"
    norms = width * (2 if gemma else 1)  # of one sublayer
    attention = 2 * width * (heads_width + keys_width) + norms
    block = attention + width * model.d_ff * (3 if gemma else 2) + norms
    ends = 2 * vocabulary * width + width
    if not model.separate_source:
        return ends + model.layers * block
    return ends + width + model.source_layers * block + model.layers * (block + attention)


def largest_option(config: Config) -> str:
    """`option=value` of what makes the model as large as it is: least is left with a 1 there."""
    model, vocabulary, left = config.model, config.task.vocabulary, {}
    for name in ("layers", "encoder_layers", "d_model", "heads", "head_dim", "kv_heads", "d_ff"):
        if getattr(model, name) is not None:
            smaller = copy.copy(model)
            setattr(smaller, name, 1)
            left[_option("model", model, name)] = parameter_count(smaller, vocabulary)
    left[_largest_of_task(config.task)] = parameter_count(model, 1)
    return min(left, key=left.get)


def _option(section: str, instance: Any, name: str) -> str:
    return f"{section}.{name}={shown(getattr(instance, name))}"


def _largest_of_task(task: Any) -> str:
    """The option of a task that most likely makes its vocabulary large."""
    names = [f.name for f in dataclasses.fields(task) if type(getattr(task, f.name)) is int]
    if not names:
        return f"the vocabulary of {task.name}"
    return _option("task", task, max(names, key=lambda name: getattr(task, name)))


def check_task_sizes(task: Task) -> None:
    """Raise ValueError for a task whose vocabulary or shortest length is beyond any machine."""
    if task.vocabulary > VOCABULARY:
        _refuse(_largest_of_task(task), "a vocabulary of {} tokens", task.vocabulary, VOCABULARY)
    least, name = task.min_length, f"{type(task).__name__}.min_length"
    if isinstance(least, bool) or not isinstance(least, Integral) or least < 0:
        raise ValueError(f"{name} is {least!r:.40}, expected a whole number")
    if least > SHORTEST:
        raise ValueError(
            f"{name} is {shown(least)}: the shortest length of a task is at most {shown(SHORTEST)}"
        )


def check_sizes(config: Config) -> None:
    """Raise TooLarge, naming the option to change, for a model or a batch beyond any machine."""
    model, data, task = config.model, config.data, config.task
    heads = model.heads * (
        2 * model.layers + model.source_layers if model.separate_source else model.layers
    )
    more_heads = "heads" if model.heads > model.layers else "layers"
    tokens = data.batch_size * int(task.token_length(data.max_length))
    longer = "batch_size" if data.batch_size > data.max_length else "max_length"
    count = parameter_count(model, task.vocabulary)
    if count > PARAMETERS:
        _refuse(largest_option(config), "a model of {} parameters", count, PARAMETERS)
    if heads > HEADS:
        _refuse(_option("model", model, more_heads), "{} heads in all layers", heads, HEADS)
    if tokens > COUNT:
        _refuse(_option("data", data, longer), "batches of {} tokens", tokens, COUNT)


def _refuse(option: str, made: str, count: int, most: int) -> None:
    made = made.format(shown(count))
    raise TooLarge(f"{option} makes {made}; at most {shown(most)} are possible")
