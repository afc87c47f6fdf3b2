"""Checks, without torch, that the parts of a config fit together and that all of it counts."""

from __future__ import annotations

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
    normalizer, data, trainer = config.attention.normalizer, config.data, config.trainer
    sizes = Sizes(model.heads, model.key_heads, model.width_of_head, model.d_model)
    with config_errors(type(position), "position"):
        position.check(sizes)
    with config_errors(type(normalizer), "attention.normalizer"):
        normalizer.check(sizes)
    with config_errors(type(position), "position"):
        check_backend(config.attention.backend, normalizer, position)
    with config_errors(type(task), ""):
        check_parts(model, normalizer, position)
        check_task(model, task)
    of_split = task.check_evaluation
    lengths = [
        ("data.min_length", [data.min_length], task.check_length),
        ("data.max_length", [data.max_length], task.check_length),
        ("validation.lengths", config.validation.lengths, partial(of_split, "validation")),
        ("evaluation.lengths", config.evaluation.lengths, partial(of_split, "test")),
    ]
    for where, values, check in lengths:
        for length in values:
            with config_errors(type(task), where):
                check(length)
    with config_errors(type(task), ""):
        check_sizes(config)
    if data.batch_size % trainer.processes:
        nodes = f" trainer.nodes={trainer.nodes}" if trainer.nodes > 1 else ""
        raise ConfigError(
            f"data.batch_size={data.batch_size} cannot be shared by "
            f"trainer.devices={trainer.devices}{nodes}; use a multiple of {trainer.processes}"
        )
    if trainer.precision == "16-mixed" and trainer.accelerator == "cpu":
        raise ConfigError(
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


def check_parts(model: Model, normalizer: Any, position: PositionEncoding) -> None:
    """Raise ValueError, in one line, for parts that this kind of model cannot have."""
    if model.kind == "decoder":
        return
    if normalizer.causal_only:
        raise ValueError(
            f"attention.normalizer={normalizer.name} runs in causal attention only and "
            f"model.kind={model.kind} has other; use model.kind=decoder or another normalizer"
        )
    if not position.ordered and not model.allow_no_position:
        raise ValueError(
            f"position={position.name} tells model.kind={model.kind} nothing of order, since its "
            "encoder has no causal mask; use another position, or "
            "model.allow_no_position=true to force it"
        )


def remarks(config: Config) -> list[str]:
    """One line for each; none for a config in which everything that is set counts."""
    data, optimizer, trainer = config.data, config.optimizer, config.trainer
    normalizer, position, heads = config.attention.normalizer, config.position, config.model.heads
    drawn_alpha = normalizer.name == "entmax_learned" and normalizer.init == "normal"
    interleaved = position.name == "alibi" and position.variant == "interleaved"
    cases = [
        (
            data.lengths_per == "batch" and data.min_length == data.max_length,
            "data.lengths_per=batch has no effect: all lengths are data.min_length="
            f"{data.min_length}",
        ),
        (
            config.evaluation.decode == "greedy" and config.task.kind != "seq2seq",
            f"evaluation.decode=greedy has no effect: {config.task.name} is a {config.task.kind} "
            "task, so nothing is decoded",
        ),
        (
            config.model.kind != "encoder_decoder"
            and (config.model.encoder_layers is not None or config.model.cross_position != "none"),
            f"model.encoder_layers and model.cross_position have no effect with model.kind="
            f"{config.model.kind}",
        ),
        (
            config.model.allow_no_position and (config.model.kind == "decoder" or position.ordered),
            f"model.allow_no_position=true has no effect with position={position.name} and "
            f"model.kind={config.model.kind}",
        ),
        (
            drawn_alpha and normalizer.alpha != type(normalizer).alpha,
            "attention.normalizer.alpha has no effect with attention.normalizer.init=normal",
        ),
        (
            interleaved and heads & (heads - 1) == 0,
            f"position.variant=interleaved has no effect: model.heads={heads} is a power of two",
        ),
        (
            optimizer.warmup_steps >= trainer.steps,
            f"the learning rate never reaches optimizer.lr={optimizer.lr:g}: trainer.steps="
            f"{trainer.steps} end within optimizer.warmup_steps={optimizer.warmup_steps}",
        ),
    ]
    return [*(text for applies, text in cases if applies), *config.task.remarks()]
