"""The Python API: the functions of `import lcg`, each the counterpart of a command.

Importing this does not import torch; a function imports what it needs when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lcg.attention.backends import check_installed
from lcg.config import Config, load_config, with_changes, with_overrides
from lcg.config.compatibility import warnings
from lcg.config.load import is_change
from lcg.config.types import as_text
from lcg.log import log
from lcg.ranks import is_rank_zero, run_alone
from lcg.runs import run as runs
from lcg.runs.record import Cell
from lcg.runs.sources import Trust

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from lcg.attention.layer import MultiHeadAttention
    from lcg.training.loop import Outcome

__all__ = [
    "Run",
    "attention_layer",
    "load",
    "load_runs",
    "plot",
    "records",
    "table",
    "train",
]


class Run(runs.Run):
    """A run directory, with the model of its selected checkpoint.

    `path`, `config`, `record`, `metrics` and `provenance` are the contents of the directory, each
    read on first access.
    """

    def model(self, device: str = "cpu") -> nn.Module:
        """Return the model with the weights of the selected checkpoint, in evaluation mode.

        A decoder or encoder maps ids [n t] to logits [n t vocabulary]; an encoder–decoder takes the
        source [n s] as well.

        Raises ValueError when there is no checkpoint, UnreadableCheckpoint when none can be used.
        """
        from lcg.evaluation.evaluate import load_model

        return load_model(self.path, self.config, device)[0]

    def evaluate(
        self, *overrides: str, lengths: Sequence[int] = (), device: str = "auto", **options: Any
    ) -> list[Cell]:
        """Evaluate the selected weights at nominal lengths, as `lcg eval` does.

        lengths: by default those of the run's config. options: further fields of `evaluation`, such
        as samples=200. Options of position and attention, such as "position.scale=8" among the
        overrides or position="./yarn.py:YaRN", change the run for this evaluation, if every learned
        tensor keeps its name and shape. Each result is merged into results.json as soon as it is
        computed; a length that was evaluated on the same samples before is not evaluated again.
        Returns a result per length, shortest first.

        Raises ValueError, in one line, for an invalid option or length.
        """
        from lcg.evaluation.evaluate import check_tensors, choose_device, evaluate_and_log

        words = [*overrides, *_words({"lengths": lengths} if lengths else {}), *_words(options)]
        changed_words = [word for word in words if is_change(word)]
        words = [word for word in words if not is_change(word)]
        asked = with_overrides(self.config.evaluation, words, "evaluation")
        for length in asked.lengths:
            self.config.task.check_evaluation("test", length)
        choose_device(device)
        self.config.evaluation = asked
        changed, changes = with_changes(self.config, changed_words)
        if changes:
            check_tensors(self.config, changed)
        cells = evaluate_and_log(self.path, changed, device, changes)
        self.__dict__.pop("record", None)  # what was read before
        return cells

    def attention(self, tokens: Any, source: Any = None) -> dict[str, Tensor]:
        """Return the attention weights of every layer, float32 [n h t k], on the CPU.

        tokens: ids [t] or [n t], as `config.task` encodes them; source: ids [s] or [n s], the input
        of the encoder of an encoder–decoder. A weight is 0 on keys that a query does not see.
        Layers have their usual names: layer_0, or encoder_0, decoder_0, cross_0.
        """
        import torch

        from lcg.diagnostics.capture import capture_inputs

        given = [torch.as_tensor(ids) for ids in (tokens, source) if ids is not None]
        model = self.model()
        with torch.no_grad(), capture_inputs(model) as layers:
            model(*(ids[None] if ids.dim() == 1 else ids for ids in given))
            return {layer.name: layer.weights() for layer in layers}


def train(*overrides: str, **options: Any) -> Run:
    """Train a run and evaluate it at longer lengths, as `lcg train` does; return the run.

    overrides: `key=value`, as on the command line. options: the same for keys without a dot, such
    as seed=3; a list is written `8,16`. The name of the run directory follows from the settings
    that affect the weights: a finished run is not trained again, and an interrupted run resumes.
    `record.training.status` tells whether the loss stayed finite.

    Raises ConfigError, in one line and before anything is written, for an invalid config;
    ValueError for more than one process (use `lcg train`); Busy when another process trains this
    run; KeyboardInterrupt after an interrupted run was saved.
    """
    config = load_config([*overrides, *_words(options)])
    if config.trainer.processes > 1:
        raise ValueError("lcg.train is one process; train this config with the command `lcg train`")
    run_alone()
    if problem := check_machine(config):
        raise ValueError(problem)
    outcome = train_and_evaluate(config)
    if outcome.status == "interrupted":
        raise KeyboardInterrupt(f"stopped at step {outcome.step}; the same call resumes")
    return Run(outcome.directory)


def check_machine(config: Config) -> str | None:
    """Check that a config can run here and that its directory can be created; log warnings.

    Returns a message if the run is too large for the memory of this machine, else None. Raises
    ValueError, in one line, for a config that cannot run here at all.
    """
    from lcg.training import devices

    check_installed(config.attention.backend)
    devices.check_machine(config.trainer)
    if config.evaluation.also:
        from lcg.evaluation.evaluate import check_tensors

        for words in config.evaluation.also:
            try:
                check_tensors(config, with_changes(config, words.split())[0])
            except ValueError as error:
                raise ValueError(f"evaluation.also={words}: {error}") from None
    Run.place(config)
    problem = devices.memory_problem(config)
    for remark in (*warnings(config), *([] if problem else devices.ladder_notes(config))):
        log.warning(f"note: {remark}")
    return problem


def train_and_evaluate(config: Config) -> Outcome:
    """Train a run to its end, then evaluate it if its config says so, under the same lock.

    Raises Busy when another process trains it.
    """
    from lcg.evaluation.evaluate import evaluate_and_log
    from lcg.training.loop import train

    def evaluate(outcome: Outcome) -> None:
        if outcome.already and outcome.status == "finished":
            log.info(f"{outcome.directory} is finished, {outcome.step} steps")
        if outcome.status == "finished" and config.evaluation.after_training:
            device = {"gpu": "cuda"}.get(config.trainer.accelerator, config.trainer.accelerator)
            for words in ("", *config.evaluation.also):
                asked, changes = with_changes(config, words.split())
                evaluate_and_log(outcome.directory, asked, device, changes)

    outcome = train(config, then=evaluate)
    if is_rank_zero() and outcome.status == "interrupted":
        log.info(f"stopped at step {outcome.step}; the same command resumes from there")
    elif is_rank_zero() and outcome.status == "not_finite":
        log.info(f"stopped: {outcome.reason}; see {outcome.directory}/metrics.csv")
    return outcome


def load(path: str | os.PathLike, trust: Trust = "own") -> Run:
    """Open a run directory.

    trust: "own" runs a user's class only if its copy in the run equals the user's original file,
    "any" runs the copy in any case (`--trust-source`).

    Raises ValueError, in one line, for a path that is not a run directory.
    """
    run = Run(path, trust)
    run.check()
    return run


def load_runs(*paths: str | os.PathLike) -> list[Run]:
    """Find every run at or below the paths (run directories, folders of runs, patterns).

    Runs that cannot be read are logged and left out. Raises RecordError when no run is left.
    """
    return Run.find(paths, log.warning)


def records(runs: Iterable[runs.Run]) -> list[dict[str, Any]]:
    """Return a row for each run and length, the columns of `lcg table --format csv`.

    For a data frame: `pandas.DataFrame(lcg.records(runs))`. Exact match and token accuracy are
    fractions in [0, 1].
    """
    from lcg.results.aggregate import group_runs
    from lcg.results.table import rows

    return rows(group_runs([run.record for run in runs]))


class Markdown(str):
    """Text in Markdown, which a notebook renders."""

    def _repr_markdown_(self) -> str:
        return self


def table(
    runs: Iterable[runs.Run],
    metric: str = "exact_match",
    baseline: str | None = None,
    by: str = "length",
) -> Markdown:
    """Return the tables of `lcg table`: best runs, seeds, paired differences, published rows.

    metric: exact_match, token_accuracy or another measure that the records hold. baseline: the
    method that the others are compared with. by: "summary" has one number per run over its lengths
    instead, "part" and "distance" token accuracy by part of the target, by distance to the
    evidence.

    Raises ValueError, in one line, for a metric or a baseline that the runs lack.
    """
    from lcg.results.table import table

    return Markdown(table([run.record for run in runs], metric=metric, baseline=baseline, by=by))


def plot(runs: Iterable[runs.Run], metric: str = "exact_match", facet: str = "task") -> Figure:
    """Draw a measure against length, as `lcg plot` does; a notebook shows the figure.

    facet: "task" has a panel for each task, "position" one for each encoding of each task.

    Raises ValueError, in one line, for a metric that the runs lack.
    """
    from lcg.results.plot import draw, image

    figure = draw([run.record for run in runs], metric, facet)
    figure._repr_png_ = lambda: image(figure, "png")  # without pyplot, which would do it
    return figure


def attention_layer(
    *overrides: str,
    d_model: int,
    heads: int,
    attention: str = "asentmax",
    position: str = "nape",
    causal: bool = True,
    **options: Any,
) -> MultiHeadAttention:
    """Create an attention layer for your own model: x [b t d_model] -> [b t d_model].

    attention, position: any name that `lcg list` prints, or your own class (./file.py:Class).
    overrides: their options, such as "attention.normalizer.alpha=2". options: further fields of
    `model` or `attention`, such as kv_heads=2. With causal=False a query sees all keys.

    Raises ConfigError, in one line, for an invalid option.
    """
    from lcg.attention import Attention
    from lcg.attention.layer import FullAttention, causal_attention
    from lcg.models.transformer import sizes_of

    of_attention = {f.name: options.pop(f.name) for f in fields(Attention) if f.name in options}
    model = {"d_model": d_model, "heads": heads, **options}
    words = [f"attention={attention}", f"position={position}", *overrides]
    words += [*_words(of_attention, "attention."), *_words(model, "model.")]
    config = load_config(words, fitting=False)
    kind = causal_attention if causal else FullAttention
    return kind(config.attention, config.position, sizes_of(config.model))


def _words(options: dict[str, Any], prefix: str = "") -> list[str]:
    """Return `key=value` for each option, with values as on a command line."""
    return [f"{prefix}{key}={as_text(value)}" for key, value in options.items()]
