"""What was set and has no effect, and a budget that ends before it began."""

from __future__ import annotations

from lcg.config.schema import Config


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
            config.model.unordered and (config.model.kind == "decoder" or position.ordered),
            f"model.unordered=true has no effect with position={position.name} and model.kind="
            f"{config.model.kind}",
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
