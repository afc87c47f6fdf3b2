"""Show what a trained run gets wrong at a length, and what its heads do there."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import string
import sys
from pathlib import Path
from typing import Any, NamedTuple

from lcg.commands.args import Parser, add_trust, trusted
from lcg.log import log

STATISTICS = 2**28  # weights of a layer; with more, one sample must do


def run(words: list[str]) -> int:
    options = _parsed(words)
    directory = Path(options.run)
    config, layers, heads = _checked(directory, options)
    beside = checked_beside(directory, config, options)

    from lcg.evaluation.evaluate import choose_device, load_model

    device = choose_device(options.device)
    tokens = int(config.task.token_length(options.length))
    for some in (config, *beside.runs.values()):
        _check_memory(some, options.length, tokens, device)
    model, step = load_model(directory, config, device)
    log.info(f"{directory}: checkpoint of step {step}, test samples 0 to {options.samples - 1}")
    batch, target, predicted = _predictions(model, config, options)
    shown = _print_samples(config.task, batch["scored"], target, predicted, options)
    if config.task.kind == "seq2seq" and config.task.ragged:
        _print_written(model, config, options)

    count = min(4, options.samples, max(1, STATISTICS // (config.model.heads * tokens**2)))
    looked_at = list(dict.fromkeys([shown, *range(options.samples)]))[:count]
    facts = _inspected(
        model, [some[looked_at].to(device) for some in batch["reads"]], layers, heads
    )
    _print_heads(facts, looked_at)
    if whole(options):
        _compare(analysed(directory, config, model, beside, options), directory, options)
    tokens = [
        [config.task.text(token) for token in side[shown].tolist()] for side in batch["reads"]
    ]
    _draw(config, facts, directory, options, shown, tokens)
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = Parser(
        "inspect",
        "RUN --length N [--beside RUN …] [--as softmax,entmax15] [--samples 100] [--failed 3] "
        "[--layer L] [--heads H,H,…] [-o FOLDER]",
        __doc__,
        epilog="Attention maps are pictures of one sample, the first that failed if any did. "
        "docs/head-analyses.md has\nthe measures; with --layer or --heads there are only maps.",
    )
    parser.add_argument("run", help="a run directory")
    parser.add_argument("--length", type=int, required=True, help="nominal length")
    parser.add_argument("--samples", type=int, default=100, help="test samples to answer")
    parser.add_argument("--failed", type=int, default=3, help="failed samples to show")
    parser.add_argument("--layer", help="only this layer, counted from 0, or by its name")
    parser.add_argument("--heads", help="only these heads, counted from 0, with commas")
    add_beside(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    parser.add_argument("-o", "--output", help="folder; default: RUN/plots/inspect_len_N")
    add_trust(parser)
    return parser.parse_args(words)


def _checked(directory: Path, options: argparse.Namespace):
    """The config, and the layers and heads asked for; raises ValueError before any work."""
    from lcg.diagnostics.columns import attention_layers
    from lcg.runs.run import Run
    from lcg.training.devices import TOKEN_BYTES, too_much

    run = Run(directory, trusted(options))
    config = run.config
    config.task.check_evaluation("test", options.length)
    if options.samples < 1 or options.failed < 0:
        raise ValueError("--samples must be at least 1 and --failed at least 0")
    tokens = int(config.task.token_length(options.length))
    larger = "samples" if options.samples > tokens else "length"
    asked = f"--{larger} {getattr(options, larger)}"
    if problem := too_much("reading it", {asked: TOKEN_BYTES * options.samples * tokens}):
        raise ValueError(problem)
    model = config.model
    layers = _chosen_layer(options.layer, [layer.name for layer in attention_layers(config)])
    heads = _chosen("--heads", options.heads, model.heads, "heads")
    if options.output and Path(options.output).is_file():
        raise ValueError(f"{options.output} is a file; -o takes a folder")
    run.check_selected()
    return config, layers, heads


def _chosen_layer(asked: str | None, names: list[str]) -> list[int]:
    """The place of the layer that is asked for by its name, or its number if all have one."""
    if asked in names:
        return [names.index(asked)]
    if asked is not None and names[0] != "layer_0":
        raise ValueError(f"--layer {asked}: the model has {', '.join(names)}")
    return _chosen("--layer", asked, len(names), "layers")


def _chosen(option: str, asked: str | int | None, count: int, what: str) -> list[int]:
    if asked is None:
        return list(range(count))
    try:
        chosen = [int(part) for part in str(asked).split(",")]
    except ValueError:
        raise ValueError(f"{option} {asked}: give numbers from 0 to {count - 1}") from None
    for number in chosen:
        if not 0 <= number < count:
            raise ValueError(f"{option} {number}: the model has {count} {what}, 0 to {count - 1}")
    return list(dict.fromkeys(chosen))


def _check_memory(config, length: int, tokens: int, device) -> None:
    from lcg.diagnostics.inspection import check_fits

    targets = config.task.target_length(length)
    check_fits(config, tokens, int(targets) + 1, device)


def _predictions(model, config, options):
    """What was read, as tensors and at the scored positions, then targets and best symbols.

    Targets and best symbols are arrays, with IGNORE where a sample is not scored.
    """
    import torch
    from tqdm import tqdm

    from lcg.evaluation import memory
    from lcg.evaluation.scoring import scored_positions
    from lcg.evaluation.test_sets import TestSet
    from lcg.models.transformer import batch_tensors, model_inputs
    from lcg.tasks.base import IGNORE

    test_set = TestSet(config, "test", options.length, options.samples)
    batch = batch_tensors(test_set.batch())
    select = scored_positions(batch["labels"])
    target = batch["labels"][:, select]
    device = next(model.parameters()).device
    count = len(target)
    size = memory.batch_size(config, *test_set.sample_size, count, device)
    best = []
    bar = tqdm(total=count, desc="answering", unit="sample", leave=False, disable=None)
    with bar, torch.no_grad():
        portions = (tokens.split(max(1, size)) for tokens in model_inputs(batch))
        for some in zip(*portions, strict=True):
            on_device = (tokens.to(device) for tokens in some)
            best.append(model(*on_device, select=select.to(device)).argmax(dim=-1).cpu())
            bar.update(len(some[0]))
    predicted = torch.cat(best).masked_fill(target == IGNORE, IGNORE)
    read = {"reads": model_inputs(batch), "scored": batch["inputs"][:, select].numpy()}
    return read, target.numpy(), predicted.numpy()


def _print_samples(task, read, target, predicted, options) -> int:
    """Say which samples failed and how; returns the sample whose maps are drawn."""
    from lcg.diagnostics.errors import comparison, first_errors, histogram
    from lcg.tasks.base import IGNORE

    first = first_errors(target, predicted)
    failed = (first >= 0).nonzero()[0]
    count = len(target)
    print(f"{task.name} at length {options.length}: {count - len(failed)} of {count} samples right")
    if not len(failed):
        print("no sample failed, so there is none to show")
        return 0
    print(histogram(first, target.shape[1]))
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    for sample in failed[: options.failed]:
        wrong = int((target[sample] != predicted[sample]).sum())
        print(
            f"\nsample {sample}: {wrong} of {(target[sample] != IGNORE).sum()} wrong (^), "
            f"the first (!) at position {first[sample] + 1}"
        )
        rows = (read[sample], target[sample], predicted[sample])
        print(comparison(task, *rows, width, colour=sys.stdout.isatty()))
    return int(failed[0])


def _print_written(model, config, options) -> None:
    """The first samples as text, and what the model makes of them when it writes by itself."""
    from lcg.evaluation.generation_metrics import generated, references, sources
    from lcg.evaluation.test_sets import TestSet

    task, count = config.task, min(options.samples, max(1, options.failed))
    batch = TestSet(config, "test", options.length, count).batch()
    rows = (sources(task, batch), references(task, batch), generated(model, task, batch))
    for sample, texts in enumerate(zip(*rows, strict=True)):
        print(f"\nsample {sample}, written by the model until <eos>")
        for name, tokens in zip(("source", "target", "written"), texts, strict=True):
            print(f"  {name.ljust(9)}{task.render(tokens)}")


def _inspected(model, given, layers, heads):
    from tqdm import tqdm

    from lcg.diagnostics.inspection import inspect_layers

    with tqdm(desc="heads", unit="query", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return list(inspect_layers(model, tuple(given), 0, layers, heads, progress))


def _print_heads(facts, looked_at) -> None:
    from lcg.diagnostics.tables import head_table

    names = ", ".join(map(str, looked_at))
    counts = {layer.queries for layer in facts}
    queries = f"{counts.pop():,} queries" if len(counts) == 1 else "queries"
    print(f"\nheads over all {queries} of sample{'s' * (len(looked_at) > 1)} {names}")
    print(head_table(facts))


def _folder(directory: Path, options) -> Path:
    from lcg.runs.run import Run

    folder = Run(directory).plots / f"inspect_len_{options.length}"
    return Path(options.output) if options.output else folder


def _compare(runs, directory: Path, options) -> None:
    """Print the head analyses and draw them."""
    from lcg.diagnostics.plots import draw_analyses
    from lcg.diagnostics.side_by_side import analyses_text

    print(f"\nhead analyses at length {options.length}\n{analyses_text(runs)}")
    for path in draw_analyses(runs, options.length, _folder(directory, options)):
        log.info(str(path))


def _draw(config, facts, directory: Path, options, shown: int, tokens) -> None:
    """Write the maps of a layer as a picture, for each layer."""
    from lcg.diagnostics.columns import attention_layers, head_text
    from lcg.diagnostics.inspection import SIDE
    from lcg.diagnostics.maps import Map, draw_maps, tokens_of
    from lcg.diagnostics.plots import write_png
    from lcg.results.labels import run_labels
    from lcg.runs.run import Run

    (label,) = run_labels([Run(directory).record])
    inputs, source = tokens[0], tokens[-1]
    for layer in facts:
        queries, keys = tokens_of(layer.name, inputs, source)
        place = attention_layers(config)[layer.layer]
        maps = [
            Map(
                f"{head_text(config, place, head.head)}, {head.support:.1f} keys",
                weights.numpy(),
                layer.kind,
                queries[: layer.queries],
                keys[: layer.keys],
            )
            for head, weights in zip(layer.heads, layer.pictures, strict=True)
        ]
        name = layer.name.replace("_", " ")
        title = f"{label}: {name}, length {options.length}, sample {shown}"
        figure = draw_maps(maps, title, 4, 2.7, float(layer.pictures.max()), SIDE)
        log.info(str(write_png(figure, _folder(directory, options) / f"{layer.name}.png")))


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
    from lcg.runs.run import Run

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
        run = Run(other, trusted(options))
        runs[other] = run.config
        if not _same_task(runs[other].task, config.task):
            raise ValueError(
                f"{other} was trained on another task than {directory} (or with other options of "
                f"{config.task.name}); --beside takes runs on the same one"
            )
        run.check_selected()
    return Beside(runs, {name: _normalizer(name, config) for name in names})


def _each_once(directory: Path, words: list[str]) -> list[Path]:
    """The other runs, each once; says so where one is named again, or is the run itself."""
    found: dict[Path, Path] = {}
    for other in map(Path, words):
        place = other.resolve()
        if place in found:
            log.info(f"{other} is named twice; it is shown once")
        elif place == directory.resolve():
            log.info(f"{other} is the run itself; its columns will be those of A")
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
    from lcg.diagnostics.heads import weights_by
    from lcg.evaluation.evaluate import load_model
    from lcg.results.labels import run_labels
    from lcg.runs.run import Run

    labels = iter(string.ascii_uppercase)
    places = [directory, *beside.runs]
    called = dict(zip(places, run_labels([Run(place).record for place in places]), strict=True))
    device = next(model.parameters()).device
    count = _sample_count(config, beside, options)
    log.info(f"head analyses: test samples 0 to {count - 1}")
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
    from lcg.diagnostics.columns import attention_layers
    from lcg.evaluation.test_sets import TestSet

    configs = [config] * (1 + len(beside.normalizers)) + list(beside.runs.values())
    tokens = int(config.task.token_length(options.length))
    weights = 0
    for some in configs:
        side = tokens // 2 if some.model.apart else tokens  # source and target are read apart
        weights += len(attention_layers(some)) * some.model.heads * side**2
    most = min(options.samples, SAMPLES, max(1, WEIGHTS // weights))
    return TestSet(config, "test", options.length, most).samples


def _analysed(label, directory, config, model, count, options, weigh=None):
    """One Analysed; with `weigh`, of the weights it gives, which learn nothing."""
    from tqdm import tqdm

    from lcg.diagnostics.columns import attention_layers
    from lcg.diagnostics.heads import analyse_heads, own_weights
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
    from lcg.evaluation.test_sets import TestSet
    from lcg.models.transformer import batch_tensors, model_inputs

    return model_inputs(batch_tensors(TestSet(config, "test", length, count).batch(), device))
