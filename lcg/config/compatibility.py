"""Checks, without torch, that the parts of a config are compatible and of a possible size; and
warnings about options without effect."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

from lcg import registry
from lcg.attention.backends import check_backend
from lcg.attention.mixers import AttentionMixer, FixedLoop, Loop
from lcg.config.errors import ConfigError, config_errors
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
from lcg.positional.base import ORDERING, PositionEncoding, Sizes
from lcg.positional.groups import Layers
from lcg.positional.nope import NoPE

TASKS = {
    "decoder": ("seq2seq", "tagging", "labelled"),
    "encoder": ("tagging", "masked"),
    "encoder_decoder": ("seq2seq",),
}
"""model.kind -> the kinds of tasks it learns."""

if TYPE_CHECKING:
    from lcg.tasks.base import Task


def check_config(config: Config) -> None:
    """Raise ConfigError, in one line, for incompatible parts of a config."""
    model, task, position = config.model, config.task, config.position
    evaluated = task.check_evaluation
    sizes = Sizes(model.heads, model.key_heads, model.width_of_head, model.d_model)
    with config_errors(type(position), "position"):
        position.check(sizes)
    for attention in config.attention.pattern or [config.attention]:
        normalizer = attention.normalizer
        with config_errors(type(normalizer), "attention.normalizer"):
            attention.weighting.check(sizes)
        with config_errors(type(attention.output_norm), "attention.output_norm"):
            attention.output_norm.check(sizes)
        with config_errors(type(position), "position"):
            check_backend(attention.backend, attention.weighting, position)
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
    check_ids(config, config.data.max_length, *config.validation.lengths)
    check_ids(config, *config.evaluation.lengths)
    with config_errors(type(task), ""):
        check_sizes(config)


def check_ids(config: Config, *lengths: int) -> None:
    """Raise ConfigError where the encoding has too few ids for sequences of a nominal length."""
    from lcg.tasks.streams import is_numbered  # numpy is imported by now: there is a task

    if is_numbered(config.task, None):  # its ids say how many there are, not its tokens
        return
    with config_errors(type(config.position), "position"):
        config.position.check_ids([max(int(config.task.token_length(n)) for n in lengths)])


def _clashes(config: Config) -> Iterator[str]:
    from lcg.tasks.streams import is_numbered  # numpy is imported by now: there is a task

    model, position, task = config.model, config.position, config.task
    trainer, batch_size = config.trainer, config.data.batch_size
    kind, has_encoder = f"model.kind={model.kind}", model.kind != "decoder"
    attentions = config.attention.pattern or [config.attention]
    normalizer = next((a.normalizer for a in attentions if a.normalizer.causal_only), None)
    if has_encoder and not isinstance(config.mixer, AttentionMixer):
        yield f"mixer={config.mixer.name} runs in model.kind=decoder only, not in {kind}"
    if model.separate_source and not _loops_once(config.loop):
        yield f"loop={config.loop.name} runs in model.kind=decoder or encoder only, not in {kind}"
    if model.separate_source and is_numbered(task, position):
        owner = task if is_numbered(task, None) else position
        yield f"{owner.name} sets position ids, which {kind} does not read; use model.kind=decoder"
    if has_encoder and normalizer is not None:
        yield (
            f"attention.normalizer={normalizer.name} runs in causal attention only and {kind} has "
            "other; use model.kind=decoder or another normalizer"
        )
    if has_encoder and any(attention.selective for attention in attentions):
        yield (
            f"attention.selective=true runs in causal attention only and {kind} has other; "
            "use model.kind=decoder"
        )
    if has_encoder and position.causal_only:
        yield (
            f"position={position.name} runs in causal attention only and {kind} has other; use "
            "model.kind=decoder or another position"
        )
    if has_encoder and not position.ordered and not model.allow_no_position:
        yield (
            f"position={position.name} gives {kind} no information about order: its encoder has no "
            "causal mask; use another position, or model.allow_no_position=true to force it"
        )
    if batch_size % trainer.processes:
        nodes = f" trainer.nodes={trainer.nodes}" if trainer.nodes > 1 else ""
        yield (
            f"data.batch_size={batch_size} cannot be divided among "
            f"trainer.devices={trainer.devices}{nodes}; use a multiple of {trainer.processes}"
        )
    if trainer.precision == "16-mixed" and trainer.accelerator == "cpu":
        yield (
            "trainer.precision=16-mixed does not run with trainer.accelerator=cpu; "
            "use bf16-mixed or 32-true"
        )


def _loops_once(loop: Loop) -> bool:
    return isinstance(loop, FixedLoop) and loop.loops == 1


def cross_encoding(model: Model, position: PositionEncoding) -> PositionEncoding:
    """Return the encoding of cross-attention: the model's with cross_position=same, else none."""
    return position if model.cross_position == "same" else NoPE()


def check_task(model: Model, task: Any) -> None:
    """Raise ValueError, in one line, for a task that this kind of model does not support."""
    if task.kind in TASKS[model.kind]:
        return
    able = [kind for kind, tasks in TASKS.items() if task.kind in tasks]
    in_stream = task.kind == "masked" and model.kind == "decoder"
    hint = ', or declare kind = "labelled" if a label depends only on the tokens up to it'
    more = hint if in_stream else ""
    raise ValueError(
        f"{task.name} is a {task.kind} task and model.kind={model.kind} trains on "
        f"{' and '.join(TASKS[model.kind])} tasks only; use model.kind={' or '.join(able)}{more}"
    )


CHANGING = (*ORDERING, "slopes")
"""Hooks of an encoding by which it changes anything."""


def warnings(config: Config) -> list[str]:
    """Return a line for each option that has no effect, and the warnings of the task."""
    return [*_without_effect(config), *config.task.warnings()]


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
    if not isinstance(config.mixer, AttentionMixer) and not position.has("embed"):
        yield (
            f"mixer={config.mixer.name} has no attention: attention={normalizer.name} and position="
            f"{position.name} have no effect"
        )
    drawn_alpha = normalizer.name == "entmax_learned" and normalizer.init == "normal"
    if drawn_alpha and normalizer.alpha != type(normalizer).alpha:
        yield "attention.normalizer.alpha has no effect with attention.normalizer.init=normal"
    for option, pattern in (
        ("position", getattr(position, "pattern", ())),
        ("attention", config.attention.pattern),
    ):
        if len(pattern) > model.layers:
            yield (
                f"{option} has a pattern of {len(pattern)} layers; model.layers={model.layers}: "
                "the rest of it has no effect"
            )
    if registry.user_module_of(type(position)) and not any(map(position.has, CHANGING)):
        yield (
            f"position={position.name} defines no hook that changes embeddings, products or "
            "scores: it is the same as nope"
        )
    if isinstance(position, Layers) and (alone := position.embedding_alone):
        yield (
            f"position={config.labels.get('position', position.name)} is the same model as position"
            f"={alone.name}, which changes the embedding alone, and all layers share that"
        )
    interleaved = position.name == "alibi" and position.variant == "interleaved"
    if interleaved and heads.bit_count() == 1:
        yield f"position.variant=interleaved has no effect: model.heads={heads} is a power of two"
    if (warmup := config.optimizer.warmup_steps) >= steps:
        yield (
            f"the learning rate never reaches optimizer.lr={config.optimizer.lr:g}: trainer.steps="
            f"{steps} end within optimizer.warmup_steps={warmup}"
        )


# ---- sizes of a model and a batch, by arithmetic


def parameter_count(model: Model, vocabulary: int) -> int:
    """Count a model's matrices, embeddings and norms.

    These are all parameters except the few that encoding, normalizer, scaling and output norm
    learn.
    """
    width = model.d_model
    heads_width = model.heads * model.width_of_head
    keys_width = model.key_heads * model.width_of_head
    gemma, gpt = model.block == "gemma2", model.block == "gpt2"
    norm = width * (2 if gpt else 1)
    norms = norm * (2 if gemma else 1)  # of one sublayer
    attention = 2 * width * (heads_width + keys_width) + norms
    block = attention + width * model.d_ff * (3 if gemma else 2) + norms
    if gpt:
        biases = heads_width + 2 * keys_width + width
        attention, block = attention + biases, block + biases + model.d_ff + width
    ends = vocabulary * width * (1 if gpt else 2) + norm
    if not model.separate_source:
        return ends + model.layers * block
    return ends + norm + model.source_layers * block + model.layers * (block + attention)


def largest_option(config: Config) -> str:
    """Return `option=value` of the option that makes the model largest."""
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
    """Return the option of a task that most likely makes its vocabulary large."""
    names = [f.name for f in dataclasses.fields(task) if type(getattr(task, f.name)) is int]
    if not names:
        return f"the vocabulary of {task.name}"
    return _option("task", task, max(names, key=lambda name: getattr(task, name)))


def check_definition(task: Task) -> None:
    """Raise ConfigError for a task with an invalid definition, or too large for any machine."""
    with config_errors(type(task), "task"):
        task.check_definition()
    with config_errors(type(task), ""):
        _check_task_sizes(task)


def _check_task_sizes(task: Task) -> None:
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
    """Raise TooLarge, naming the option to change, for a model or a batch too large for any
    machine."""
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
