"""Show the errors of a trained run at a length, and analyse its heads there."""

from __future__ import annotations

import argparse
import shutil
import string
import sys
from functools import partial
from pathlib import Path
from typing import Any

from lcg.attention.normalizers.base import Normalizer
from lcg.attention.scalings import NoScaling
from lcg.commands.args import Parser, add_trust, progress_bars
from lcg.config import Config, load_config
from lcg.config.identity import task_tree
from lcg.diagnostics.columns import attention_layers, head_text
from lcg.log import log
from lcg.results.labels import run_labels
from lcg.runs.run import Run

STATISTICS = 2**28  # weights of a layer; with more, one sample must do
SAMPLES = 32
WEIGHTS = 2**26  # of all layers, runs and samples; with more, fewer samples must do
MOST = len(string.ascii_uppercase)  # runs and normalizers, each with a letter


def run(words: list[str]) -> int:
    options = _parsed(words)
    inspected = Run(Path(options.run), options.trust)
    layers, heads = _checked(inspected, options)
    whole = options.layer is None and options.heads is None  # which the analyses need
    if (options.compare or options.normalizers) and not whole:
        raise ValueError(
            "--compare and --normalizers compare all heads; leave out --layer and --heads"
        )
    runs, normalizers = _compared(inspected, options)

    from lcg.diagnostics.capture import obstacle
    from lcg.diagnostics.errors import answer
    from lcg.diagnostics.heads import HEADS, measure
    from lcg.diagnostics.plots import draw_analyses
    from lcg.diagnostics.tables import analyses_text, facts_text
    from lcg.evaluation.evaluate import choose_device, load_model
    from lcg.evaluation.test_sets import TestSet

    device, config = choose_device(options.device), inspected.config
    test_set = TestSet(config, "test", options.length, options.samples)
    scored = int(config.task.target_length(options.length)) + 1
    for each in runs:
        if problem := obstacle(each.config, test_set.token_length, scored, device):
            raise ValueError(f"{problem}; inspect a shorter length")
    model, step = load_model(inspected.path, config, device)
    last = options.samples - 1
    log.info(f"{inspected.path}: checkpoint of step {step}, test samples 0 to {last}")
    with progress_bars() as progress:
        answers = answer(model, test_set, partial(progress, "answering"))
    shown = _print_samples(config.task, answers, options)
    if config.task.kind == "seq2seq" and config.task.variable_length:
        _print_written(model, config, options)
    if not layers:
        log.info(f"mixer={config.mixer.name} has no heads to look at")
        return 0

    row = config.model.heads * test_set.token_length**2
    count = min(4, options.samples, max(1, STATISTICS // row))
    samples = list(dict.fromkeys([shown, *range(options.samples)]))[:count]
    reads = [some[samples].to(device) for some in answers.reads]
    with progress_bars() as progress:
        chosen = {"layers": layers, "heads": heads, "mapped": 0}
        found = measure(model, reads, HEADS, **chosen, progress=partial(progress, "heads"))
    rows = {layer.map.queries for layer in found}
    queries = f"{rows.pop():,} queries" if len(rows) == 1 else "queries"
    numbers = f"sample{'s' * (count > 1)} {', '.join(map(str, samples))}"
    print(f"\nheads over all {queries} of {numbers}\n{facts_text(found)}")
    folder = inspected.plots / f"inspect_len_{options.length}"
    folder = Path(options.output) if options.output else folder
    if whole:
        analysed = _analysed(runs, model, normalizers, options)
        print(f"\nhead analyses at length {options.length}\n{analyses_text(analysed)}")
        for path in draw_analyses(analysed, options.length, folder):
            log.info(str(path))
    sides = answers.reads[: 1 + config.model.separate_source]  # without position ids
    texts = [[config.task.text(t) for t in side[shown].tolist()] for side in sides]
    (label,) = run_labels([inspected.record])
    title = f"{label}: {{}}, length {options.length}, sample {shown}"
    _draw_maps(config, found, texts, title, folder)
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = Parser(
        "inspect",
        "RUN --length N [--compare RUN …] [--normalizers softmax,entmax15] [--samples 100] "
        "[--failed 3] [--layer L] [--heads H,H,…] [-o FOLDER]",
        __doc__,
        epilog="Attention maps show one sample, the first that failed if any did. With --layer or "
        "--heads only maps\nare drawn. docs/head-analyses.md explains the measures.",
    )
    add = parser.add_argument
    add("run", help="a run directory")
    add("--length", type=int, required=True, help="nominal length")
    add("--samples", type=int, default=100, help="number of test samples")
    add("--failed", type=int, default=3, help="failed samples to show")
    add("--layer", help="only this layer: its number, from 0, or its name")
    add("--heads", help="only these heads: numbers from 0, separated by commas")
    same = "other runs on the same task"
    add("--compare", nargs="+", metavar="RUN", default=[], help=same)
    others = "normalizers to apply to the run's scores: softmax,entmax15,sparsemax,…"
    add("--normalizers", metavar="NAME,…", help=others)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("-o", "--output", help="folder; default: RUN/plots/inspect_len_N")
    add_trust(parser)
    return parser.parse_args(words)


def _checked(inspected: Run, options: argparse.Namespace) -> tuple[list[int], list[int]]:
    """Return the chosen layers and heads; raises ValueError before any work."""
    from lcg.training.devices import TOKEN_BYTES, too_much

    config = inspected.config
    config.task.check_evaluation("test", options.length)
    if options.samples < 1 or options.failed < 0:
        raise ValueError("--samples must be at least 1 and --failed at least 0")
    tokens = int(config.task.token_length(options.length))
    larger = "samples" if options.samples > tokens else "length"
    asked = f"--{larger} {getattr(options, larger)}"
    if problem := too_much("reading it", {asked: TOKEN_BYTES * options.samples * tokens}):
        raise ValueError(problem)
    names = [layer.name for layer in attention_layers(config)]
    of_heads = (options.layer, options.heads, options.compare, options.normalizers)
    if not names and any(of_heads):
        raise ValueError(
            f"mixer={config.mixer.name} has no heads; leave out --layer, --heads, --compare and "
            "--normalizers"
        )
    if options.layer in names:
        options.layer = str(names.index(options.layer))
    elif options.layer is not None and names[0] != "layer_0":
        raise ValueError(f"--layer {options.layer}: the model has {', '.join(names)}")
    layers = _chosen("--layer", options.layer, len(names), "layers")
    heads = _chosen("--heads", options.heads, config.model.heads, "heads")
    if options.output and Path(options.output).is_file():
        raise ValueError(f"{options.output} is a file; -o takes a folder")
    inspected.check_selected()
    return layers, heads


def _chosen(option: str, asked: str | None, count: int, what: str) -> list[int]:
    if asked is None:
        return list(range(count))
    try:
        chosen = [int(part) for part in asked.split(",")]
    except ValueError:
        raise ValueError(f"{option} {asked}: give numbers from 0 to {count - 1}") from None
    for number in chosen:
        if not 0 <= number < count:
            raise ValueError(f"{option} {number}: the model has {count} {what}, 0 to {count - 1}")
    return list(dict.fromkeys(chosen))


def _compared(inspected: Run, options: argparse.Namespace) -> tuple[list[Run], dict[str, Any]]:
    """Return the run, those to compare it with, each once, and normalizers by name; raises
    ValueError, in one line, before any work."""
    config, others = inspected.config, {}
    for place in map(Path, options.compare):
        if place.resolve() in others:
            log.info(f"{place} is given twice; it is shown once")
        elif place.resolve() == inspected.path.resolve():
            log.info(f"{place} is the inspected run; its columns equal those of A")
        others.setdefault(place.resolve(), Run(place, options.trust))
    names = options.normalizers.split(",") if options.normalizers else []
    if 1 + len(others) + len(names) > MOST:
        raise ValueError(
            f"a run can be compared with at most {MOST - 1} others, --compare and --normalizers "
            f"together; got {len(others) + len(names)}"
        )
    for other in others.values():
        if not attention_layers(other.config):
            raise ValueError(f"{other.path}: mixer={other.config.mixer.name} has no heads")
        if not _same_task(other.config, config):
            raise ValueError(
                f"{other.path} was trained on another task than {inspected.path} (or with other "
                f"options of {config.task.name}); --compare takes runs on the same one"
            )
        other.check_selected()
    return [inspected, *others.values()], {name: _normalizer(name, config) for name in names}


def _same_task(*configs: Config) -> bool:
    """Compare two tasks by everything but the location of their files, which have digests, and
    of copies of users' classes."""
    one, other = (
        {key: value for key, value in task_tree(own).items() if key not in own.task.path_fields}
        for own in configs
    )
    return one == other


def _normalizer(name: str, config: Config) -> Any:
    """Return the normalizer of that name, which can be applied to the scores of a run of this
    config."""
    attention = load_config([f"attention={name}"]).attention
    normalizer, own, problem = attention.normalizer, config.attention.normalizer, ""
    if type(normalizer).learned is not Normalizer.learned:
        problem = "what it learns needs training; use --compare with a run"
    elif not isinstance(attention.scaling, NoScaling):  # an output norm changes no weight
        problem = f"it also scales the scores ({attention.scaling.name}), which needs training; "
        problem += "use --compare with a run"
    elif normalizer.sees_itself != own.sees_itself:
        problem = f"it sees other keys than {own.name}, whose scores would be used"
    if problem:
        raise ValueError(f"--normalizers {name}: {problem}")
    return normalizer


def _print_samples(task: Any, answers: Any, options: argparse.Namespace) -> int:
    """Print which samples failed and how; return the sample whose maps are drawn."""
    from lcg.diagnostics.errors import comparison, first_errors, histogram
    from lcg.tasks.base import IGNORE

    target, predicted = answers.target, answers.predicted
    first = first_errors(target, predicted)
    wrong = (first >= 0).nonzero()[0]
    right = len(target) - len(wrong)
    print(f"{task.name} at length {options.length}: {right} of {len(target)} samples right")
    if not len(wrong):
        print("no sample failed")
        return 0
    print(histogram(first, target.shape[1]))
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    for sample in wrong[: options.failed]:
        rows = (answers.inputs[sample], target[sample], predicted[sample])
        print(
            f"\nsample {sample}: {(rows[1] != rows[2]).sum()} of {(rows[1] != IGNORE).sum()} wrong "
            f"(^), the first (!) at position {first[sample] + 1}"
        )
        print(comparison(task, *rows, width, colour=sys.stdout.isatty()))
    return int(wrong[0])


def _print_written(model: Any, config: Config, options: argparse.Namespace) -> None:
    """Print the first samples as text, and the text that the model generates."""
    from lcg.evaluation.scoring import generated, references, sources
    from lcg.evaluation.test_sets import TestSet

    task, count = config.task, min(options.samples, max(1, options.failed))
    batch = TestSet(config, "test", options.length, count).batch()
    rows = (sources(task, batch), references(task, batch), generated(model, task, batch))
    for sample, texts in enumerate(zip(*rows, strict=True)):
        print(f"\nsample {sample}, written by the model until <eos>")
        for name, tokens in zip(("source", "target", "written"), texts, strict=True):
            print(f"  {name.ljust(9)}{task.render(tokens)}")


def _draw_maps(
    config: Config, layers: list[Any], texts: list[list[str]], title: str, folder: Path
) -> None:
    """Draw the maps of a sample: one figure per layer, named in its title."""
    from lcg.diagnostics.plots import Map, draw_maps, tokens_of, write_png

    every = {layer.name: layer for layer in attention_layers(config)}
    for layer in layers:
        queries, keys = tokens_of(layer.name, texts[0], texts[-1])
        tokens = (queries[: layer.map.queries], keys[: layer.map.keys])
        heads = zip(layer.heads, layer.means["support"], layer.map.blocks.numpy(), strict=True)
        maps = [
            Map(
                f"{head_text(config, every[layer.name], head)}, {support:.1f} keys",
                weights,
                layer.kind,
                *tokens,
            )
            for head, support, weights in heads
        ]
        named = title.format(layer.name.replace("_", " "))
        figure = draw_maps(maps, named, 4, 2.7, float(layer.map.blocks.max()))
        log.info(str(write_png(figure, folder / f"{layer.name}.png")))


def _analysed(
    runs: list[Run], model: Any, normalizers: dict[str, Any], options: argparse.Namespace
) -> list[Any]:
    """Return the run, its scores under other normalizers, and the other runs: a list of
    Analysed."""
    from lcg.diagnostics.heads import ANALYSES, measure
    from lcg.diagnostics.probe import alpha_trajectories
    from lcg.diagnostics.tables import Analysed
    from lcg.evaluation.evaluate import load_model
    from lcg.evaluation.test_sets import TestSet
    from lcg.models.transformer import batch_tensors, model_inputs

    device = next(model.parameters()).device
    names = run_labels([run.record for run in runs])
    shown = [(run, name, None) for run, name in zip(runs, names, strict=True)]
    shown[1:1] = [
        (runs[0], f"{name} on the scores of {names[0]}", normalizer)
        for name, normalizer in normalizers.items()
    ]
    weights = 0
    for run, *_ in shown:
        config, tokens = run.config, int(run.config.task.token_length(options.length))
        side = tokens // 2 if config.model.separate_source else tokens
        weights += len(attention_layers(config)) * config.model.heads * side**2
    most = min(options.samples, SAMPLES, max(1, WEIGHTS // weights))  # well under a minute
    count = TestSet(runs[0].config, "test", options.length, most).samples
    log.info(f"head analyses: test samples 0 to {count - 1}")
    analysed = []
    with progress_bars() as progress:
        for label, (run, name, normalizer) in zip(string.ascii_uppercase, shown, strict=False):
            config, own = run.config, normalizer is None
            if run is not runs[0]:
                model, _ = load_model(run.path, config, device)
            batch = TestSet(config, "test", options.length, count).batch()
            samples = model_inputs(batch_tensors(batch, device))
            keywords = {
                "normalizer": normalizer,
                "progress": partial(progress, f"analysing {label}"),
            }
            layers = measure(model, samples, ANALYSES, **keywords)
            kinds = {layer.name: layer.kind for layer in attention_layers(config)} if own else {}
            curves = alpha_trajectories(run.path, kinds)
            analysed.append(Analysed(label, run.path.name * own, name, layers, curves))
    return analysed
