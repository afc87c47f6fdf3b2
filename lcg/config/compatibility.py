"""Checks, without torch, that the parts of a config fit together and that all of it counts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from lcg.attention.backends import check_backend
from lcg.config.errors import ConfigError, config_errors
from lcg.config.schema import Config, Model
from lcg.config.sizes import check_sizes
from lcg.positional.base import PositionEncoding, Sizes
from lcg.positional.nope import NoPE

TASKS = {
    "decoder": ("seq2seq", "tagging", "labelled"),
    "encoder": ("tagging", "masked"),
    "encoder_decoder": ("seq2seq",),
}
"""model.kind -> the kinds of tasks it learns."""


def check_config(config: Config) -> None:
    """Raise ConfigError, in one line, for parts that cannot work together, before any work."""
    model, task, position = config.model, config.task, config.position
    normalizer, evaluated = config.attention.normalizer, task.check_evaluation
    sizes = Sizes(model.heads, model.key_heads, model.width_of_head, model.d_model)
    with config_errors(type(position), "position"):
        position.check(sizes)
    with config_errors(type(normalizer), "attention.normalizer"):
        normalizer.check(sizes)
    with config_errors(type(position), "position"):
        check_backend(config.attention.backend, normalizer, position)
    with config_errors(type(task), ""):
        check_task(model, task)
    for clash in _clashes(config):
        raise ConfigError(clash)
    for where, values, check in (
        ("data.min_length", [config.data.min_length], task.check_length),
        ("data.max_length", [config.data.max_length], task.check_length),
        ("validation.lengths", config.validation.lengths, partial(evaluated, "validation")),
        ("evaluation.lengths", config.evaluation.lengths, partial(evaluated, "test")),
    ):
        with config_errors(type(task), where):
            for length in values:
                check(length)
    with config_errors(type(task), ""):
        check_sizes(config)


def _clashes(config: Config) -> Iterator[str]:
    model, normalizer, position = config.model, config.attention.normalizer, config.position
    trainer, batch_size = config.trainer, config.data.batch_size
    kind, has_encoder = f"model.kind={model.kind}", model.kind != "decoder"
    if has_encoder and normalizer.causal_only:
        yield (
            f"attention.normalizer={normalizer.name} runs in causal attention only and {kind} has "
            "other; use model.kind=decoder or another normalizer"
        )
    if has_encoder and not position.ordered and not model.allow_no_position:
        yield (
            f"position={position.name} tells {kind} nothing of order, since its encoder has no "
            "causal mask; use another position, or model.allow_no_position=true to force it"
        )
    if batch_size % trainer.processes:
        nodes = f" trainer.nodes={trainer.nodes}" if trainer.nodes > 1 else ""
        yield (
            f"data.batch_size={batch_size} cannot be shared by trainer.devices={trainer.devices}"
            f"{nodes}; use a multiple of {trainer.processes}"
        )
    if trainer.precision == "16-mixed" and trainer.accelerator == "cpu":
        yield (
            "trainer.precision=16-mixed does not run with trainer.accelerator=cpu; "
            "use bf16-mixed or 32-true"
        )


def cross_encoding(model: Model, position: PositionEncoding) -> PositionEncoding:
    """The encoding of cross-attention: that of the model with cross_position=same, else none."""
    return position if model.cross_position == "same" else NoPE()


def check_task(model: Model, task: Any) -> None:
    """Raise ValueError, in one line, for a task that this kind of model does not learn."""
    if task.kind in TASKS[model.kind]:
        return
    able = [kind for kind, tasks in TASKS.items() if task.kind in tasks]
    in_stream = task.kind == "masked" and model.kind == "decoder"
    more = ', or declare kind = "labelled" if labels follow from what was read' if in_stream else ""
    raise ValueError(
        f"{task.name} is a {task.kind} task and model.kind={model.kind} learns "
        f"{' and '.join(TASKS[model.kind])} tasks only; use model.kind={' or '.join(able)}{more}"
    )


def remarks(config: Config) -> list[str]:
    """One line for each option that has no effect; none where everything that is set counts."""
    return [*_without_effect(config), *config.task.remarks()]


def _without_effect(config: Config) -> Iterator[str]:
    data, model, heads, steps = config.data, config.model, config.model.heads, config.trainer.steps
    normalizer, position, task = config.attention.normalizer, config.position, config.task
    kind = f"model.kind={model.kind}"
    if data.lengths_per == "batch" and data.min_length == data.max_length:
        yield f"data.lengths_per=batch has no effect: all lengths are {data.min_length}"
    if config.evaluation.decode == "greedy" and task.kind != "seq2seq":
        yield f"evaluation.decode=greedy has no effect: {task.name} is a {task.kind} task"
    if not model.separate_source and (model.encoder_layers or model.cross_position != "none"):
        yield f"model.encoder_layers and model.cross_position have no effect with {kind}"
    if model.allow_no_position and (model.kind == "decoder" or position.ordered):
        yield f"model.allow_no_position=true has no effect with position={position.name} and {kind}"
    drawn_alpha = normalizer.name == "entmax_learned" and normalizer.init == "normal"
    if drawn_alpha and normalizer.alpha != type(normalizer).alpha:
        yield "attention.normalizer.alpha has no effect with attention.normalizer.init=normal"
    interleaved = position.name == "alibi" and position.variant == "interleaved"
    if interleaved and heads.bit_count() == 1:
        yield f"position.variant=interleaved has no effect: model.heads={heads} is a power of two"
    if (warmup := config.optimizer.warmup_steps) >= steps:
        yield (
            f"the learning rate never reaches optimizer.lr={config.optimizer.lr:g}: trainer.steps="
            f"{steps} end within optimizer.warmup_steps={warmup}"
        )
