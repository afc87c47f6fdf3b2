"""A W&B sweep file and the runs it asks for: `wandb sweep` and `lcg sweep` take the same ones.

Every mistake is one line that names the file and the key. An impossible pair in a grid is one too:
W&B's agent gives up after a few runs that fail at once, and a table with holes misleads.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from lcg.config import Config, ConfigError, load_config, run_directory
from lcg.config.errors import one_line
from lcg.config.load import read_node, read_overrides, sweep_files
from lcg.config.schema import COUNT, TooLarge, shown
from lcg.config.types import as_text, read_text
from lcg.diagnostics.columns import columns
from lcg.log import log
from lcg.registry import nearest
from lcg.runs.run import check_folder
from lcg.sweeping.parameters import Choice, Range, read_parameter

KEYS = (
    *("program", "command", "method", "metric", "parameters", "early_terminate", "run_cap"),
    *("name", "description", "project", "entity"),
)
METHODS = ("grid", "random", "bayes")
MACROS = (
    *("${args_no_hyphens}", "${args}", "${args_no_boolean_flags}"),
    *("${args_json}", "${args_json_file}"),
)
"""The forms in which `wandb agent` hands a run its arguments; `lcg train` takes each of them."""
ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
MERGE = "tag:yaml.org,2002:merge"
MOST_RUNS = 10_000  # of a grid, or drawn
MANY_RUNS = 500  # to check which takes a few seconds
MOST_CHECKED = 2000  # combinations of a sweep that draws; checking one takes milliseconds
COMMAND = "command: [lcg, train, …, '${args_no_hyphens}']"


@dataclass(frozen=True)
class Metric:
    """A column of metrics.csv by which runs are compared, and whether more of it is better."""

    name: str
    maximize: bool

    @property
    def token_accuracy(self) -> Metric:
        """The metric that tells runs apart that tie in exact match."""
        return replace(self, name=self.name.replace("/exact_match", "/token_accuracy"))

    @property
    def worst(self) -> float:
        """The value that counts for a run without one."""
        return float("-inf") if self.maximize else float("inf")


@dataclass(frozen=True)
class EarlyStop:
    """Hyperband as W&B has it, counted in validations.

    After validations `first`, `first`·eta, `first`·eta², … and at most `last`, a run goes on only
    if it is in the best 1/eta of the runs that came so far.
    """

    first: int
    eta: int
    last: int | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep: the words that all runs share, and what is varied.

    content: the file, as it was read. fixed: `key=value` words of the command with the overrides of
    the command line laid over them. overrides: those alone. macro: how W&B hands over arguments.
    """

    path: Path
    content: dict[str, Any]
    method: str
    fixed: dict[str, str]
    parameters: dict[str, Choice | Range]
    metric: Metric | None = None
    early_stop: EarlyStop | None = None
    run_cap: int | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    macro: str = MACROS[0]

    @cached_property
    def name(self) -> str:
        """The file's name and a hash of what it varies: the same sweep goes on under it.

        More runs of a sweep that draws are the same sweep, and so are runs in another folder.
        """
        fixed = {key: text for key, text in self.fixed.items() if key != "runs"}
        varied = {key: repr(parameter) for key, parameter in self.parameters.items()}
        facts = [self.method, fixed, varied, repr(self.metric)]
        text = json.dumps([*facts, repr(self.early_stop)], sort_keys=True)
        return f"{self.path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @cached_property
    def runs(self) -> Path:
        """The folder of its run directories."""
        return Path(load_config(self.words(self.example), fitting=False).runs)

    @cached_property
    def directory(self) -> Path:
        """The folder of the study and the logs."""
        return self.runs / "sweeps" / self.name

    @property
    def example(self) -> dict[str, str]:
        """The first choice of everything."""
        return {key: parameter.first for key, parameter in self.parameters.items()}

    def words(self, chosen: dict[str, str]) -> list[str]:
        """The overrides of one run."""
        if self.macro == "${args_no_boolean_flags}":  # what is false is left out
            chosen = {key: text for key, text in chosen.items() if text != "false"}
        return [f"{key}={text}" for key, text in (self.fixed | chosen).items()]


def read_sweep(path: str | Path, overrides: list[str] | None = None) -> Sweep:
    """A sweep file with `key=value` overrides laid over every run of it.

    An override of something that is varied fixes it. Raises ConfigError, in one line, for a file
    that is not a sweep, a metric that is no column of the runs, or runs that are not possible.
    """
    file = find_sweep(str(path))
    fixed = read_overrides(overrides or [])
    try:
        sweep = _sweep(file, _read_yaml(file))
        varied = {key: p for key, p in sweep.parameters.items() if key not in fixed}
        sweep = replace(sweep, fixed=sweep.fixed | fixed, parameters=varied, overrides=fixed)
        _check_runs(sweep)
        check_folder(f"runs={sweep.runs}", sweep.runs)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error.__cause__
    except ValueError as error:
        raise ConfigError(f"{file}: {one_line(error)}") from None
    return sweep


def find_sweep(name: str) -> Path:
    """The file of that path, or of that name in ./sweeps or among the built-in ones."""
    path = Path(name)
    if path.is_file():
        return path
    known = sweep_files()
    if path.name == name and (found := known.get(name.removesuffix(".yaml"))):
        return found
    raise ConfigError(f"there is no sweep file {name}; {nearest(path.stem, list(known))}")


# ---- the content of the file


class _Loader(yaml.SafeLoader):
    """As W&B reads YAML, but a key that stands twice is a mistake."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE:  # <<: *anchor
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: {key} is given twice")
            seen.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    node = read_node(file, _Loader)
    try:
        content = None if node is None else _Loader("").construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(getattr(error, "problem", None) or one_line(error)) from None
    if not isinstance(content, dict):
        raise ConfigError("expected a mapping of keys to values")
    return content


def _sweep(file: Path, content: dict[str, Any]) -> Sweep:
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{key} is not a key of a sweep; {nearest(str(key), list(KEYS))}")
    method = content.get("method")
    if method not in METHODS:
        given = "is missing" if method is None else f"{method} is not known"
        raise ConfigError(f"method {given}; choose from {', '.join(METHODS)}")
    (fixed, macro), parameters = _command(content), _parameters(content.get("parameters"), method)
    for key in parameters.keys() & fixed.keys():
        raise ConfigError(f"parameters.{key}: command has {key}={fixed[key]} already")
    sweep = Sweep(
        path=file,
        content=content,
        method=method,
        fixed=fixed,
        parameters=parameters,
        metric=_metric(content.get("metric")),
        early_stop=_early_stop(content.get("early_terminate")),
        run_cap=_run_cap(content, method),
        macro=macro,
    )
    if sweep.metric is None and (method == "bayes" or sweep.early_stop):
        needs = "method bayes" if method == "bayes" else "early_terminate"
        raise ConfigError(f"{needs} needs metric: {{name: …, goal: maximize}}")
    return sweep


def _command(content: dict[str, Any]) -> tuple[dict[str, str], str]:
    """The fixed words of a command that is `lcg train`, and the macro that its arguments are."""
    program, command = content.get("program", "lcg"), content.get("command")
    if program != "lcg":
        raise ConfigError(f"program is {program}; it must be lcg, with {COMMAND}")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        given = "is missing" if command is None else "is not a list of words"
        raise ConfigError(f"command {given}; write {COMMAND}")
    # As W&B: a variable that is not set is its own name.
    words = [ENVIRONMENT.sub(lambda m: os.environ.get(m[1], m[1]), word) for word in command]
    words = words[1:] if words[:1] == ["${env}"] else words
    if words[:1] in (["${interpreter}"], ["python"], ["python3"]):
        words = words[2:] if words[1:2] == ["-m"] else words[1:]
    if words[:1] == ["${program}"]:
        words[0] = "lcg"
    if words[:2] != ["lcg", "train"]:
        raise ConfigError(f"command is {' '.join(command)}, not lcg train; write {COMMAND}")
    rest = words[2:]
    macros = [word for word in rest if word in MACROS]
    if len(macros) != 1:
        raise ConfigError("command must hold ${args_no_hyphens} once, where the arguments go")
    rest = [word for word in rest if word not in MACROS]
    for word in rest:
        if "${" in word:
            raise ConfigError(f"command: {word} is not supported; use {' or '.join(MACROS)}")
    try:
        return read_overrides(rest), macros[0]
    except ConfigError as error:
        raise ConfigError(f"command: {error}") from None


def _parameters(node: Any, method: str) -> dict[str, Choice | Range]:
    if not isinstance(node, dict) or not node:
        given = "is missing" if node is None else f"holds nothing to vary: {node!r}"
        raise ConfigError(f"parameters {given}; write KEY: {{values: [A, B]}}")
    found: dict[str, Choice | Range] = {}
    for key, inner in node.items():
        name = str(key).removesuffix(".name")
        try:
            parameter = read_parameter(inner)
            if method == "grid" and isinstance(parameter, Range):
                parameter = Choice(parameter.texts())
        except ValueError as error:
            raise ConfigError(f"parameters.{key}: {error}") from None
        if name in found:
            raise ConfigError(f"parameters.{key}: {name} is given twice")
        found[name] = parameter
    return found


def _metric(node: Any) -> Metric | None:
    if node is None:
        return None
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        raise ConfigError(f"metric: expected {{name: …, goal: maximize}}, got {node!r}")
    for key in node:
        if key in ("target", "impute"):
            raise ConfigError(f"metric.{key} is W&B's own and not possible here; leave it out")
        if key not in ("name", "goal"):
            raise ConfigError(f"metric.{key} is not known; {nearest(str(key), ['name', 'goal'])}")
    goal = node.get("goal", "minimize")
    if goal not in ("maximize", "minimize"):
        raise ConfigError(f"metric.goal={goal} is neither maximize nor minimize")
    if goal == "minimize" and node["name"].endswith(("/exact_match", "/token_accuracy")):
        said = "metric.goal is" if "goal" in node else "without metric.goal it is"
        raise ConfigError(f"{said} minimize, but more of {node['name']} is better; say maximize")
    return Metric(node["name"], goal == "maximize")


def _early_stop(node: Any) -> EarlyStop | None:
    if node is None:
        return None
    if not isinstance(node, dict) or node.get("type") != "hyperband":
        kind = node.get("type") if isinstance(node, dict) else node
        raise ConfigError(f"early_terminate: type {kind} is not possible here; only hyperband is")
    known = ("type", "min_iter", "max_iter", "eta", "s", "strict")
    for key in node:
        if key not in known:
            raise ConfigError(f"early_terminate.{key} is not known; {nearest(str(key), [*known])}")
    if node.get("strict"):
        raise ConfigError("early_terminate.strict cannot be mapped to Optuna; leave it out")
    numbers = {"eta": 3} | {k: node[k] for k in ("min_iter", "max_iter", "eta", "s") if k in node}
    for key, value in numbers.items():
        least = 2 if key == "eta" else 1
        if type(value) is not int or value < least:
            raise ConfigError(
                f"early_terminate.{key}={value!r} must be a whole number from {least}"
            )
    if ("min_iter" in numbers) == ("max_iter" in numbers):
        raise ConfigError("early_terminate needs either min_iter or max_iter with s")
    eta = numbers["eta"]
    if "min_iter" in numbers:
        if "s" in numbers:
            raise ConfigError("early_terminate.s has no meaning beside min_iter; leave it out")
        return EarlyStop(numbers["min_iter"], eta)
    if numbers.get("s", 0) > 64:
        raise ConfigError(f"early_terminate.s={numbers['s']} must be at most 64")
    if "s" not in numbers:
        raise ConfigError("early_terminate.max_iter needs s, how many times runs are compared")
    first = numbers["max_iter"] // eta ** numbers["s"]
    if first < 1:
        raise ConfigError(
            f"early_terminate: max_iter={numbers['max_iter']} is too small for s={numbers['s']} "
            f"with eta={eta}"
        )
    return EarlyStop(first, eta, last=numbers["max_iter"] // eta)


def _run_cap(content: dict[str, Any], method: str) -> int | None:
    cap = content.get("run_cap")
    if cap is None:
        if method != "grid":
            raise ConfigError(f"run_cap is missing: method {method} needs how many runs to make")
        return None
    if type(cap) is not int or cap < 1:
        raise ConfigError(f"run_cap={cap!r} must be a whole number from 1")
    most = COUNT if method == "grid" else MOST_RUNS
    if cap > most:
        raise ConfigError(f"run_cap must be at most {shown(most)}, got {shown(cap)}")
    return cap


# ---- the runs of a sweep


def _check_count(sweep: Sweep) -> None:
    """Raise ConfigError for a grid of more runs than anybody trains, before any is listed."""
    sizes = (len(p.texts) for p in sweep.parameters.values() if isinstance(p, Choice))
    count = min(math.prod(sizes), sweep.run_cap or COUNT**2)
    if sweep.method == "grid" and count > MOST_RUNS:
        raise ConfigError(
            f"the grid has {shown(count)} runs; at most {shown(MOST_RUNS)} are possible, so vary "
            "less or set run_cap"
        )


def combinations(sweep: Sweep) -> list[dict[str, str]]:
    """The choices of each run of a grid, first parameter slowest, at most `run_cap` of them."""
    return list(itertools.islice(_choices(sweep), sweep.run_cap))


def _choices(sweep: Sweep) -> Iterator[dict[str, str]]:
    """Every combination; a range is stood for by its lower end."""
    options = [
        parameter.texts if isinstance(parameter, Choice) else (parameter.first,)
        for parameter in sweep.parameters.values()
    ]
    for texts in itertools.product(*options):
        yield dict(zip(sweep.parameters, texts, strict=True))


def configs(sweep: Sweep) -> list[list[str]]:
    """The overrides of every run of a grid, first parameter slowest."""
    return [sweep.words(chosen) for chosen in combinations(sweep)]


def _check_runs(sweep: Sweep) -> None:
    """Raise ConfigError for runs that are not possible, or that would share a directory."""
    _check_count(sweep)
    grid = sweep.method == "grid"
    runs = list(itertools.islice(_choices(sweep), sweep.run_cap if grid else MOST_CHECKED))
    if len(runs) > MANY_RUNS:
        log.info(f"{sweep.path}: {len(runs):,} runs to check")
    places: dict[str, dict[str, str]] = {}
    impossible: dict[str, list[str]] = {}
    for chosen in tqdm(runs, "checked", unit=" runs", leave=False, disable=None, delay=2):
        named = " ".join(f"{key}={text}" for key, text in chosen.items()) or "the one run"
        try:
            config = load_config(sweep.words(chosen))
        except ConfigError as error:
            impossible.setdefault(str(error), []).append(named)
            continue
        _check_metric(sweep, config)
        other = places.setdefault(str(run_directory(config)), chosen)
        if other is not chosen:
            differ = [
                f"{key}={other[key]} and {chosen[key]}"
                for key in chosen
                if chosen[key] != other[key]
            ]
            raise ConfigError(
                f"two runs would share the directory {run_directory(config)}: they differ only in "
                f"{', '.join(differ)}"
            )
    for reason, which in impossible.items():
        more = f" (and {len(which) - 1} more)" if len(which) > 1 else ""
        everywhere = not places and len(impossible) == 1
        where = "" if everywhere else f"{which[0]}{more} is not possible: "
        advice = "" if everywhere else "; leave it out of the file"
        raise ConfigError(f"{where}{reason}{advice}")
    _check_ranges(sweep)


def _check_ranges(sweep: Sweep) -> None:
    """Raise ConfigError for a range whose upper end is more than an option takes."""
    for key, parameter in sweep.parameters.items():
        if isinstance(parameter, Choice):
            continue
        high = as_text(parameter.high)
        try:
            load_config(sweep.words(sweep.example | {key: high}))
        except ConfigError as error:
            if isinstance(error.__context__, TooLarge):
                raise ConfigError(f"parameters.{key}: max={high}: {error}") from None


def _check_metric(sweep: Sweep, config: Config) -> None:
    if sweep.metric is None:
        return
    known = columns(config)
    if sweep.metric.name not in known:
        raise ConfigError(
            f"metric.name={sweep.metric.name} is no column of metrics.csv; "
            f"{nearest(sweep.metric.name, known)}"
        )


# ---- the sweep as a file with its overrides


def for_wandb(sweep: Sweep) -> dict[str, Any]:
    """The content of the file with the overrides in it, for W&B to hand out."""
    content = copy.deepcopy(sweep.content)
    fixed = dict(sweep.fixed)
    for key in content["parameters"]:
        name = str(key).removesuffix(".name")
        if name in sweep.overrides:
            content["parameters"][key] = {"value": read_text(fixed.pop(name))}
    words = [f"{key}={text}" for key, text in fixed.items()]
    content["command"] = ["lcg", "train", *words, sweep.macro]
    return content


def as_yaml(sweep: Sweep) -> str:
    """The sweep with its overrides, as a file that W&B and `lcg sweep` take."""
    return yaml.safe_dump(for_wandb(sweep), sort_keys=False, allow_unicode=True)
