"""The head analyses of `lcg inspect`: of a run, of other runs, and of other normalizers on its
scores, all on the same test samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import string
from pathlib import Path
from typing import Any, NamedTuple

from lcg.commands.words import trusted
from lcg.speaking import say

SAMPLES = 32
MOST = len(string.ascii_uppercase)  # columns, each with a letter
WEIGHTS = 2**26  # of all layers, runs and samples; with more, fewer samples must do


class Beside(NamedTuple):
    """What a run is shown beside: other runs, and normalizers by name."""

    runs: dict[Path, Any]
    normalizers: dict[str, Any]


def add_beside(parser: argparse.ArgumentParser) -> None:
    """The options that choose them."""
    parser.add_argument(
        "--beside", nargs="+", metavar="RUN", default=[], help="runs on the same task to compare"
    )
    parser.add_argument(
        "--as",
        dest="normalizers",
        metavar="NAME,…",
        help="what other normalizers make of the run's scores: softmax,entmax15,sparsemax,…",
    )


def checked_beside(directory: Path, config: Any, options: argparse.Namespace) -> Beside:
    """The configs asked for; raises ValueError, in one line, before any work."""
    from lcg.evaluation.files import check_selected, read_config

    if (options.beside or options.normalizers) and not whole(options):
        raise ValueError("--beside and --as compare all heads; leave out --layer and --heads")
    others = _each_once(directory, options.beside)
    names = options.normalizers.split(",") if options.normalizers else []
    if 1 + len(others) + len(names) > MOST:
        raise ValueError(
            f"a run can be compared with at most {MOST - 1} others, --beside and --as together; "
            f"got {len(others) + len(names)}"
        )
    runs = {}
    for other in others:
        runs[other] = read_config(other, trusted(options))
        if not _same_task(runs[other].task, config.task):
            raise ValueError(
                f"{other} was trained on another task than {directory} (or with other options of "
                f"{config.task.name}); --beside takes runs on the same one"
            )
        check_selected(other)
    return Beside(runs, {name: _normalizer(name, config) for name in names})


def _each_once(directory: Path, words: list[str]) -> list[Path]:
    """The other runs, each once; says so where one is named again, or is the run itself."""
    found: dict[Path, Path] = {}
    for other in map(Path, words):
        place = other.resolve()
        if place in found:
            say(f"{other} is named twice; it is shown once")
        elif place == directory.resolve():
            say(f"{other} is the run itself; its columns will be those of A")
        found.setdefault(place, other)
    return list(found.values())


def _same_task(one: Any, other: Any) -> bool:
    """Whether two tasks are one; where their files lie does not matter, a digest says what they
    hold."""
    if type(one) is not type(other):
        return False
    return all(
        getattr(one, field.name) == getattr(other, field.name)
        for field in dataclasses.fields(one)
        if field.name not in one.places
    )


def whole(options: argparse.Namespace) -> bool:
    """Whether all heads are looked at, which the analyses need."""
    return options.layer is None and options.heads is None


def _normalizer(name: str, config: Any) -> Any:
    from lcg.attention.normalizers.base import Normalizer
    from lcg.attention.scalings import NoScaling
    from lcg.config import load_config

    attention = load_config([f"attention={name}"]).attention
    found = attention.normalizer
    if type(found).learned is not Normalizer.learned:
        raise ValueError(f"--as {name}: what it learns needs training; use --beside with a run")
    if not isinstance(attention.scaling, NoScaling):  # an output norm changes no weight
        raise ValueError(
            f"--as {name}: it also scales the scores ({attention.scaling.name}), which needs "
            "training; use --beside with a run"
        )
    if found.sees_itself != config.attention.normalizer.sees_itself:
        raise ValueError(
            f"--as {name}: it sees other keys than {config.attention.normalizer.name}, whose "
            "scores would be used"
        )
    return found


def analysed(directory: Path, config: Any, model: Any, beside: Beside, options: Any) -> list[Any]:
    """The run, its scores under other normalizers, and the other runs: a list of Analysed."""
    from lcg.diagnostics.analysis import weights_by
    from lcg.evaluation.run import load_model
    from lcg.results.labels import run_labels
    from lcg.results.loading import load_run

    labels = iter(string.ascii_uppercase)
    places = [directory, *beside.runs]
    called = dict(zip(places, run_labels([load_run(place) for place in places]), strict=True))
    device = next(model.parameters()).device
    count = _sample_count(config, beside, options)
    say(f"head analyses: test samples 0 to {count - 1}")
    own = _analysed(next(labels), directory, config, model, count, options)
    found = [dataclasses.replace(own, attention=called[directory])]
    for name, normalizer in beside.normalizers.items():
        words = (next(labels), directory, config, model, count, options)
        its = _analysed(*words, weights_by(normalizer))
        on_scores = f"{name} on the scores of {called[directory]}"
        found.append(dataclasses.replace(its, name="", attention=on_scores))
    for other, its_config in beside.runs.items():
        its_model, _ = load_model(other, its_config, device)
        its = _analysed(next(labels), other, its_config, its_model, count, options)
        found.append(dataclasses.replace(its, attention=called[other]))
    return found


def _sample_count(config: Any, beside: Beside, options: argparse.Namespace) -> int:
    """As many samples as take well under a minute."""
    from lcg.diagnostics.headers import attention_layers
    from lcg.tasks.streams import samples_of

    configs = [config] * (1 + len(beside.normalizers)) + list(beside.runs.values())
    tokens = int(config.task.token_length(options.length))
    weights = 0
    for some in configs:
        side = tokens // 2 if some.model.apart else tokens  # source and target are read apart
        weights += len(attention_layers(some)) * some.model.heads * side**2
    most = min(options.samples, SAMPLES, max(1, WEIGHTS // weights))
    return samples_of(config.task, "test", options.length, most)


def _analysed(label, directory, config, model, count, options, weigh=None):
    """One Analysed; with `weigh`, of the weights it gives, which learn nothing."""
    from tqdm import tqdm

    from lcg.diagnostics.analysis import analyse_heads, own_weights
    from lcg.diagnostics.headers import attention_layers
    from lcg.diagnostics.side_by_side import Analysed
    from lcg.diagnostics.trajectories import alpha_trajectories

    reads = _reads(config, count, options.length, next(model.parameters()).device)
    with tqdm(desc=f"analysing {label}", unit="layer", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        layers = analyse_heads(model, reads, weigh or own_weights, progress=progress)
    if weigh is not None:
        layers = [dataclasses.replace(layer, alpha=None) for layer in layers]
        return Analysed(label, directory.name, config.labels["attention"], layers)
    kinds = {layer.name: layer.kind for layer in attention_layers(config)}
    trajectories = alpha_trajectories(directory, kinds)
    return Analysed(label, directory.name, config.labels["attention"], layers, trajectories)


def _reads(config: Any, count: int, length: int, device: Any) -> tuple[Any, ...]:
    """What the model reads of the first test samples."""
    from lcg.evaluation.samples import first_samples
    from lcg.models.reads import reads, tensors

    return reads(tensors(first_samples(config, "test", length, count), device))
