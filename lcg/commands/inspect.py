"""Show what a trained run gets wrong at a length, and what its heads do there."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from lcg.commands.words import Parser, say

STATISTICS = 2**28  # weights of a layer; with more, one sample must do


def run(words: list[str]) -> int:
    options = _parsed(words)
    directory = Path(options.run)
    config, layers, heads = _checked(directory, options)

    import torch

    from lcg.evaluation.run import choose_device, load_model

    device = choose_device(options.device)
    tokens = int(config.task.token_length(options.length))
    _check_memory(config, options.length, tokens, device)
    model, step = load_model(directory, config, device)
    say(f"{directory}: checkpoint of step {step}, test samples 0 to {options.samples - 1}")
    inputs, target, predicted = _predictions(model, config, options)
    shown = _print_samples(config.task, inputs, target, predicted, options)

    count = min(4, options.samples, max(1, STATISTICS // (config.model.heads * tokens**2)))
    looked_at = list(dict.fromkeys([shown, *range(options.samples)]))[:count]
    batch = torch.from_numpy(inputs["all"][looked_at]).to(device)
    facts = _inspected(model, batch, layers, heads)
    _print_heads(facts, looked_at, batch.shape[1])
    _draw(facts, directory, options, shown, batch.shape[1])
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = Parser(
        "inspect",
        "RUN --length N [--samples 100] [--failed 3] [--layer L] [--heads H,H,…] [-o FOLDER]",
        __doc__,
        epilog="Attention maps are pictures of one sample, the first that failed if any did.",
    )
    parser.add_argument("run", help="a run directory")
    parser.add_argument("--length", type=int, required=True, help="nominal length")
    parser.add_argument("--samples", type=int, default=100, help="test samples to answer")
    parser.add_argument("--failed", type=int, default=3, help="failed samples to show")
    parser.add_argument("--layer", type=int, help="only this layer, counted from 0")
    parser.add_argument("--heads", help="only these heads, counted from 0, with commas")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    parser.add_argument("-o", "--output", help="folder; default: RUN/plots/inspect_len_N")
    return parser.parse_args(words)


def _checked(directory: Path, options: argparse.Namespace):
    """The config, and the layers and heads asked for; raises ValueError before any work."""
    from lcg.evaluation.files import check_selected, read_config

    config = read_config(directory)
    config.task.check_evaluation("test", options.length)
    if options.samples < 1 or options.failed < 0:
        raise ValueError("--samples must be at least 1 and --failed at least 0")
    model = config.model
    layers = _chosen("--layer", options.layer, model.layers, "layers")
    heads = _chosen("--heads", options.heads, model.heads, "heads")
    if options.output and Path(options.output).is_file():
        raise ValueError(f"{options.output} is a file; -o takes a folder")
    check_selected(directory)
    return config, layers, heads


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
    """Inputs of all tokens and at the scored positions, targets and best symbols: arrays."""
    import torch
    from tqdm import tqdm

    from lcg.evaluation import memory
    from lcg.evaluation.scoring import scored_positions
    from tasks.streams import EvalStream

    stream = EvalStream(config.task, config.evaluation.seed, "test", options.length)
    batch = stream.batch(0, options.samples)
    inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
    select = scored_positions(labels)
    device = next(model.parameters()).device
    size = memory.batch_size(config, inputs.shape[1], len(select), options.samples, device)
    best = []
    bar = tqdm(total=options.samples, desc="answering", unit="sample", leave=False, disable=None)
    with bar, torch.no_grad():
        for some in inputs.split(max(1, size)):
            best.append(model(some.to(device), select.to(device)).argmax(dim=-1).cpu())
            bar.update(len(some))
    scored = {"all": inputs.numpy(), "scored": inputs[:, select].numpy()}
    return scored, labels[:, select].numpy(), torch.cat(best).numpy()


def _print_samples(task, inputs, target, predicted, options) -> int:
    """Say which samples failed and how; returns the sample whose maps are drawn."""
    from lcg.diagnostics.failures import comparison, first_errors, histogram

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
            f"\nsample {sample}: {wrong} of {target.shape[1]} wrong (^), "
            f"the first (!) at position {first[sample] + 1}"
        )
        rows = (inputs["scored"][sample], target[sample], predicted[sample])
        print(comparison(task, *rows, width, colour=sys.stdout.isatty()))
    return int(failed[0])


def _inspected(model, batch, layers, heads):
    from tqdm import tqdm

    from lcg.diagnostics.inspection import inspect_layers

    with tqdm(desc="heads", unit="query", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return list(inspect_layers(model, batch, 0, layers, heads, progress))


def _print_heads(facts, looked_at, tokens: int) -> None:
    from lcg.diagnostics.tables import head_table

    names = ", ".join(map(str, looked_at))
    print(f"\nheads over all {tokens:,} queries of sample{'s' * (len(looked_at) > 1)} {names}")
    print(head_table(facts))


def _draw(facts, directory: Path, options, shown: int, tokens: int) -> None:
    from lcg.diagnostics.maps import draw_layer

    folder = directory / "plots" / f"inspect_len_{options.length}"
    folder = Path(options.output) if options.output else folder
    for layer in facts:
        title = f"{directory.name}, layer {layer.layer}, length {options.length}, sample {shown}"
        say(str(draw_layer(layer, title, tokens, folder / f"layer_{layer.layer}.png")))
