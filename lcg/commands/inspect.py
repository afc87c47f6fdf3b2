"""Show what a trained run gets wrong at a length, and what its heads do there."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import string
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lcg.commands.args import Parser, add_trust
from lcg.log import log
from lcg.runs.run import Run

STATISTICS = 2**28  # weights of a layer; with more, one sample must do
SAMPLES = 32
WEIGHTS = 2**26  # of all layers, runs and samples; with more, fewer samples must do
MOST = len(string.ascii_uppercase)  # runs and normalizers, each with a letter


def run(words: list[str]) -> int:
    options = _parsed(words)
    directory = Path(options.run)
    config, layers, heads = _checked(directory, options)
    others, normalizers = _compared(directory, config, options)

    from lcg.diagnostics.capture import obstacle
    from lcg.diagnostics.heads import HEADS, measure
    from lcg.diagnostics.tables import analyses_text, facts_text
    from lcg.evaluation.evaluate import choose_device, load_model

    device = choose_device(options.device)
    tokens = int(config.task.token_length(options.length))
    scored = int(config.task.target_length(options.length)) + 1
    for some in (config, *others.values()):
        if problem := obstacle(some, tokens, scored, device):
            raise ValueError(f"{problem}; inspect a shorter length")
    model, step = load_model(directory, config, device)
    log.info(f"{directory}: checkpoint of step {step}, test samples 0 to {options.samples - 1}")
    answers = _answers(model, config, options)
    shown = _print_samples(config.task, answers, options)
    if config.task.kind == "seq2seq" and config.task.variable_length:
        _print_written(model, config, options)

    count = min(4, options.samples, max(1, STATISTICS // (config.model.heads * tokens**2)))
    samples = list(dict.fromkeys([shown, *range(options.samples)]))[:count]
    reads = [some[samples].to(device) for some in answers.reads]
    with _bar("heads", "layer") as progress:
        chosen = {"layers": layers, "heads": heads, "mapped": 0, "progress": progress}
        found = measure(model, reads, HEADS, **chosen)
    rows = {layer.map.queries for layer in found}
    queries = f"{rows.pop():,} queries" if len(rows) == 1 else "queries"
    numbers = f"sample{'s' * (count > 1)} {', '.join(map(str, samples))}"
    print(f"\nheads over all {queries} of {numbers}\n{facts_text(found)}")
    folder = Run(directory).plots / f"inspect_len_{options.length}"
    folder = Path(options.output) if options.output else folder
    if _is_whole(options):
        from lcg.diagnostics.plots import draw_analyses

        runs = _analysed(directory, config, model, others, normalizers, options)
        print(f"\nhead analyses at length {options.length}\n{analyses_text(runs)}")
        for path in draw_analyses(runs, options.length, folder):
            log.info(str(path))
    texts = [[config.task.text(t) for t in side[shown].tolist()] for side in answers.reads]
    _draw_maps(directory, config, found, texts, shown, options.length, folder)
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = Parser(
        "inspect",
        "RUN --length N [--compare RUN …] [--normalizers softmax,entmax15] [--samples 100] "
        "[--failed 3] [--layer L] [--heads H,H,…] [-o FOLDER]",
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
    parser.add_argument(
        "--compare", nargs="+", metavar="RUN", default=[], help="runs on the same task to compare"
    )
    parser.add_argument(
        "--normalizers",
        metavar="NAME,…",
        help="what other normalizers make of the run's scores: softmax,entmax15,sparsemax,…",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    parser.add_argument("-o", "--output", help="folder; default: RUN/plots/inspect_len_N")
    add_trust(parser)
    return parser.parse_args(words)


def _checked(directory: Path, options: argparse.Namespace):
    """The config, and the layers and heads asked for; raises ValueError before any work."""
    from lcg.diagnostics.columns import attention_layers
    from lcg.training.devices import TOKEN_BYTES, too_much

    run = Run(directory, options.trust)
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


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar while inside; called with what is done, and with all there is."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _answers(model, config, options):
    from lcg.diagnostics.errors import answer
    from lcg.evaluation.test_sets import TestSet

    with _bar("answering", "sample") as progress:
        return answer(model, TestSet(config, "test", options.length, options.samples), progress)


def _print_samples(task, answers, options) -> int:
    """Say which samples failed and how; returns the sample whose maps are drawn."""
    from lcg.diagnostics.errors import comparison, first_errors, histogram
    from lcg.tasks.base import IGNORE

    target, predicted = answers.target, answers.predicted
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
        rows = (answers.inputs[sample], target[sample], predicted[sample])
        print(comparison(task, *rows, width, colour=sys.stdout.isatty()))
    return int(failed[0])


def _print_written(model, config, options) -> None:
    """The first samples as text, and what the model makes of them when it writes by itself."""
    from lcg.evaluation.scoring import generated, references, sources
    from lcg.evaluation.test_sets import TestSet

    task, count = config.task, min(options.samples, max(1, options.failed))
    batch = TestSet(config, "test", options.length, count).batch()
    rows = (sources(task, batch), references(task, batch), generated(model, task, batch))
    for sample, texts in enumerate(zip(*rows, strict=True)):
        print(f"\nsample {sample}, written by the model until <eos>")
        for name, tokens in zip(("source", "target", "written"), texts, strict=True):
            print(f"  {name.ljust(9)}{task.render(tokens)}")


def _draw_maps(directory, config, found, texts, shown: int, length: int, folder: Path) -> None:
    """Draw the maps of a sample: a picture per layer."""
    from lcg.diagnostics.columns import attention_layers, head_text
    from lcg.diagnostics.plots import Map, draw_maps, tokens_of, write_png
    from lcg.results.labels import run_labels

    (label,) = run_labels([Run(directory).record])
    every = {layer.name: layer for layer in attention_layers(config)}
    for layer in found:
        queries, keys = tokens_of(layer.name, texts[0], texts[-1])
        maps = [
            Map(
                f"{head_text(config, every[layer.name], head)}, {support:.1f} keys",
                weights.numpy(),
                layer.kind,
                queries[: layer.map.queries],
                keys[: layer.map.keys],
            )
            for head, support, weights in zip(
                layer.heads, layer.means["support"], layer.map.blocks, strict=True
            )
        ]
        name = layer.name.replace("_", " ")
        title = f"{label}: {name}, length {length}, sample {shown}"
        figure = draw_maps(maps, title, 4, 2.7, float(layer.map.blocks.max()))
        log.info(str(write_png(figure, folder / f"{layer.name}.png")))


def _compared(directory: Path, config: Any, options: argparse.Namespace) -> tuple[dict, dict]:
    """Configs of the other runs by directory, and normalizers by name; raises ValueError, in one
    line, before any work."""
    if (options.compare or options.normalizers) and not _is_whole(options):
        raise ValueError(
            "--compare and --normalizers compare all heads; leave out --layer and --heads"
        )
    others = _each_once(directory, options.compare)
    names = options.normalizers.split(",") if options.normalizers else []
    if 1 + len(others) + len(names) > MOST:
        raise ValueError(
            f"a run can be compared with at most {MOST - 1} others, --compare and --normalizers "
            f"together; got {len(others) + len(names)}"
        )
    runs = {}
    for other in others:
        run = Run(other, options.trust)
        runs[other] = run.config
        if not _same_task(runs[other].task, config.task):
            raise ValueError(
                f"{other} was trained on another task than {directory} (or with other options of "
                f"{config.task.name}); --compare takes runs on the same one"
            )
        run.check_selected()
    return runs, {name: _normalizer(name, config) for name in names}


def _is_whole(options: argparse.Namespace) -> bool:
    """Return whether all heads are looked at, which the analyses need."""
    return options.layer is None and options.heads is None


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
    """Compare two tasks by all but where their files lie: a digest says what these hold."""
    return type(one) is type(other) and all(
        getattr(one, field.name) == getattr(other, field.name)
        for field in dataclasses.fields(one)
        if field.name not in one.path_fields
    )


def _normalizer(name: str, config: Any) -> Any:
    """The normalizer of that name, which can be laid over the scores of a run of this config."""
    from lcg.attention.normalizers.base import Normalizer
    from lcg.attention.scalings import NoScaling
    from lcg.config import load_config

    attention = load_config([f"attention={name}"]).attention
    found, problem = attention.normalizer, ""
    if type(found).learned is not Normalizer.learned:
        problem = "what it learns needs training; use --compare with a run"
    elif not isinstance(attention.scaling, NoScaling):  # an output norm changes no weight
        problem = f"it also scales the scores ({attention.scaling.name}), which needs training; "
        problem += "use --compare with a run"
    elif found.sees_itself != config.attention.normalizer.sees_itself:
        problem = f"it sees other keys than {config.attention.normalizer.name}, whose scores would "
        problem += "be used"
    if problem:
        raise ValueError(f"--normalizers {name}: {problem}")
    return found


def _analysed(directory, config, model, others, normalizers, options) -> list[Any]:
    """The run, its scores under other normalizers, and the other runs: a list of Analysed."""
    from lcg.diagnostics.columns import attention_layers
    from lcg.diagnostics.heads import ANALYSES, measure, own_weights, weights_by
    from lcg.diagnostics.probe import alpha_trajectories
    from lcg.diagnostics.tables import Analysed
    from lcg.evaluation.evaluate import load_model
    from lcg.evaluation.test_sets import TestSet
    from lcg.models.transformer import batch_tensors, model_inputs
    from lcg.results.labels import run_labels

    labels = iter(string.ascii_uppercase)
    places = [directory, *others]
    called = dict(zip(places, run_labels([Run(place).record for place in places]), strict=True))
    device = next(model.parameters()).device
    count = _sample_count([config] * (1 + len(normalizers)) + list(others.values()), options)
    log.info(f"head analyses: test samples 0 to {count - 1}")

    def measured(label: str, config: Any, model: Any, weigh=own_weights) -> list[Any]:
        batch = TestSet(config, "test", options.length, count).batch()
        with _bar(f"analysing {label}", "layer") as progress:
            samples = model_inputs(batch_tensors(batch, device))
            return measure(model, samples, ANALYSES, weigh=weigh, progress=progress)

    def of_run(run: Path, config: Any, model: Any) -> Any:
        label, kinds = next(labels), {layer.name: layer.kind for layer in attention_layers(config)}
        layers = measured(label, config, model)
        return Analysed(label, run.name, called[run], layers, alpha_trajectories(run, kinds))

    found = [of_run(directory, config, model)]
    for name, normalizer in normalizers.items():
        label, on_scores = next(labels), f"{name} on the scores of {called[directory]}"
        layers = measured(label, config, model, weights_by(normalizer))
        found.append(Analysed(label, "", on_scores, layers))
    for other, its in others.items():
        found.append(of_run(other, its, load_model(other, its, device)[0]))
    return found


def _sample_count(configs: list[Any], options: argparse.Namespace) -> int:
    """As many samples as take well under a minute."""
    from lcg.diagnostics.columns import attention_layers
    from lcg.evaluation.test_sets import TestSet

    weights = 0
    for config in configs:
        tokens = int(configs[0].task.token_length(options.length))
        side = tokens // 2 if config.model.separate_source else tokens
        weights += len(attention_layers(config)) * config.model.heads * side**2
    most = min(options.samples, SAMPLES, max(1, WEIGHTS // weights))
    return TestSet(configs[0], "test", options.length, most).samples
