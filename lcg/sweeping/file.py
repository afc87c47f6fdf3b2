"""A W&B sweep file and its runs: `wandb sweep` and `lcg sweep` accept the same files.

Every error is one line that names the file and the key. An invalid combination in a grid is an
error too: W&B's agent gives up after a few runs that fail at once, and a table with holes misleads.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from tqdm import tqdm

from lcg.config import ConfigError, load_config, run_directory
from lcg.config.errors import one_line
from lcg.config.load import read_node, read_overrides, sweep_files
from lcg.config.schema import COUNT, Count, TooLarge, at_least, at_most, shown
from lcg.config.types import as_text, build, read_text
from lcg.diagnostics.columns import columns
from lcg.log import log
from lcg.registry import nearest
from lcg.runs.run import check_folder
from lcg.sweeping.parameters import Choice, Range, read_parameter

MACROS = (
    *("${args_no_hyphens}", "${args}", "${args_no_boolean_flags}"),
    *("${args_json}", "${args_json_file}"),
)
"""The forms in which `wandb agent` hands a run its arguments; `lcg train` takes each of them."""
ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
LCG_TRAIN = re.compile(
    r"(\$\{env\}\n)?((\$\{interpreter\}|python3?)\n(-m\n)?)?(lcg|\$\{program\})\ntrain\n"
)  # a word a line
TEXT = "tag:yaml.org,2002:str"
MOST_RUNS = 10_000  # of a grid, or drawn
MANY_RUNS = 500  # to check which takes a few seconds
MOST_CHECKED = 2000  # combinations of a sweep that draws; checking one takes milliseconds
COMMAND = "command: [lcg, train, …, '${args_no_hyphens}']"
REQUIRED = {
    "method": "choose from grid, random, bayes",
    "parameters": "write KEY: {values: [A, B]}",
    "command": f"write {COMMAND}",
}


# ---- the keys of the file, which `lcg.config.types.build` reads


@dataclass(frozen=True)
class Metric:
    """A column of metrics.csv by which runs are compared."""

    name: str
    goal: Literal["maximize", "minimize"] = "minimize"
    target: Any = None
    impute: Any = None

    def __post_init__(self) -> None:
        if self.target is not None or self.impute is not None:
            raise ValueError("only W&B supports target and impute; leave them out")
        accuracy = self.name.endswith(("/exact_match", "/token_accuracy"))
        if accuracy and not self.maximize:
            raise ValueError(
                f"goal is minimize, W&B's default, but higher {self.name} is better; write maximize"
            )

    @property
    def maximize(self) -> bool:
        """True if higher is better."""
        return self.goal == "maximize"

    @property
    def token_accuracy(self) -> Metric:
        """The metric that breaks ties in exact match."""
        return replace(self, name=self.name.replace("/exact_match", "/token_accuracy"))

    @property
    def worst(self) -> float:
        """The value of a run without one."""
        return float("-inf") if self.maximize else float("inf")


@dataclass(frozen=True)
class EarlyStop:
    """W&B's Hyperband, counted in validations.

    After validations `first`, `first`·eta, `first`·eta² … and at most `last`, a run continues only
    if it is in the best 1/eta of the runs so far.
    """

    type: Literal["hyperband"]
    eta: Annotated[int, at_least(2), at_most(COUNT)] = 3
    min_iter: Count | None = None
    max_iter: Count | None = None
    s: Annotated[int, at_least(1), at_most(64)] | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        given = [key for key in ("min_iter", "max_iter", "s") if getattr(self, key) is not None]
        if given not in (["min_iter"], ["max_iter", "s"]):
            got = ", ".join(given) or "neither"
            raise ValueError(f"needs either min_iter, or max_iter together with s; got {got}")
        if self.first < 1:
            raise ValueError(
                f"max_iter={self.max_iter} is too small for s={self.s}, eta={self.eta}"
            )
        if self.strict:
            raise ValueError("strict cannot be mapped to Optuna; leave it out")

    @property
    def first(self) -> int:
        """The validation after which runs are first compared."""
        return self.min_iter or self.max_iter // self.eta**self.s

    @property
    def last(self) -> int | None:
        """The validation after which runs are last compared; None: no last one."""
        return self.max_iter and self.max_iter // self.eta


@dataclass(frozen=True)
class Keys:
    """The keys of a sweep file."""

    method: Literal["grid", "random", "bayes"]
    parameters: dict[str, Any]
    command: list[str]
    program: Literal["lcg"] = "lcg"
    metric: Metric | None = None
    early_terminate: EarlyStop | None = None
    run_cap: Count | None = None
    name: Any = None
    description: Any = None
    project: Any = None
    entity: Any = None

    def __post_init__(self) -> None:
        if self.run_cap is None and self.method != "grid":
            raise ValueError(f"run_cap is missing: method {self.method} needs the number of runs")
        if self.method != "grid":
            at_most(MOST_RUNS).check("run_cap", self.run_cap)
        if self.metric is None and (self.method == "bayes" or self.early_terminate):
            needs = "method bayes" if self.method == "bayes" else "early_terminate"
            raise ValueError(f"{needs} needs metric: {{name: …, goal: maximize}}")


@dataclass(frozen=True)
class Sweep:
    """A sweep: the overrides that all runs share, and the parameters that vary.

    content: the file, as it was read. fixed: `key=value` words of the command, with command-line
    overrides applied. overrides: only the latter. macro: the form in which W&B passes arguments.
    """

    path: Path
    content: dict[str, Any]
    method: str
    fixed: dict[str, str]
    parameters: dict[str, Choice | Range]
    metric: Metric | None
    early_stop: EarlyStop | None
    run_cap: int | None
    overrides: dict[str, str]
    macro: str

    @cached_property
    def name(self) -> str:
        """The file's name and a hash of what it varies, under which the same sweep resumes.

        The number of draws and the folder of the runs are not part of it.
        """
        fixed = {key: text for key, text in self.fixed.items() if key != "runs"}
        varied = {key: repr(parameter) for key, parameter in self.parameters.items()}
        metric, early = self.metric, self.early_stop
        judged = metric and f"Metric(name={metric.name!r}, maximize={metric.maximize})"
        stops = early and f"EarlyStop(first={early.first}, eta={early.eta}, last={early.last})"
        facts = [self.method, fixed, varied, str(judged), str(stops)]
        text = json.dumps(facts, sort_keys=True)
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
        """The first choice of every parameter."""
        return {key: parameter.texts[0] for key, parameter in self.parameters.items()}

    def words(self, chosen: dict[str, str]) -> list[str]:
        """Return the overrides of one run."""
        if self.macro == "${args_no_boolean_flags}":  # what is false is left out
            chosen = {key: text for key, text in chosen.items() if text != "false"}
        return [f"{key}={text}" for key, text in (self.fixed | chosen).items()]


def read_sweep(path: str | Path, overrides: list[str] | None = None) -> Sweep:
    """Read a sweep file, with `key=value` overrides of every run.

    An override of a parameter fixes it. Raises ConfigError, in one line, for a file that is not a
    sweep, an unknown metric, or invalid runs.
    """
    file = find_sweep(str(path))
    given = read_overrides(overrides or [])
    try:
        sweep = _sweep(file, _read_yaml(file), given)
        _check_runs(sweep)
        check_folder(f"runs={sweep.runs}", sweep.runs)
    except ValueError as error:
        raise ConfigError(f"{file}: {one_line(error)}") from error.__cause__
    return sweep


def find_sweep(name: str) -> Path:
    """Return the file of that path, or of that name in ./sweeps or among the built-in ones."""
    path = Path(name)
    if path.is_file():
        return path
    files = sweep_files()
    if path.name == name and (known_file := files.get(name.removesuffix(".yaml"))):
        return known_file
    raise ConfigError(f"there is no sweep file {name}; {nearest(path.stem, list(files))}")


# ---- the content of the file


class _Loader(yaml.SafeLoader):
    """A YAML loader like W&B's, except that a repeated key is an error."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key in (key for key, _ in node.value if key.tag == TEXT):  # not <<: *anchor
            if key.value in seen:
                raise ConfigError(f"line {key.start_mark.line + 1}: {key.value} is given twice")
            seen.add(key.value)
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


def _sweep(file: Path, content: dict[str, Any], overrides: dict[str, str]) -> Sweep:
    for key, advice in REQUIRED.items():
        if not content.get(key):
            raise ConfigError(f"{key} is missing or empty; {advice}")
    keys = build(Keys, content, "")
    fixed, macro = _command(keys.command)
    parameters: dict[str, Choice | Range] = {}
    for key, node in content["parameters"].items():
        name = str(key).removesuffix(".name")
        try:
            if name in parameters or name in fixed:
                other = f"command has {name}={fixed[name]}" if name in fixed else "it is given"
                raise ValueError(f"{other} already")
            parameters[name] = read_parameter(node)
            if keys.method == "grid" and isinstance(parameters[name], Range):
                parameters[name] = parameters[name].as_choice()
        except ValueError as error:
            raise ConfigError(f"parameters.{key}: {error}") from None
    varied = {key: p for key, p in parameters.items() if key not in overrides}
    how = (keys.metric, keys.early_terminate, keys.run_cap)
    return Sweep(file, content, keys.method, fixed | overrides, varied, *how, overrides, macro)


def _command(command: list[str]) -> tuple[dict[str, str], str]:
    """Return the fixed overrides of a command that is `lcg train`, and its arguments macro."""
    # As W&B: a variable that is not set is its own name.
    words = [ENVIRONMENT.sub(lambda m: os.environ.get(m[1], m[1]), word) for word in command]
    called = LCG_TRAIN.match("\n".join(words) + "\n")
    if called is None:
        raise ConfigError(f"command is {' '.join(command)}, not lcg train; write {COMMAND}")
    words = words[called[0].count("\n") :]
    macros = [word for word in words if "${" in word]
    if len(macros) != 1 or macros[0] not in MACROS:
        raise ConfigError(
            f"command must hold ${{args_no_hyphens}} once, where the arguments go, or instead one "
            f"of {', '.join(MACROS[1:])}, and no other; it has {', '.join(macros) or 'none'}"
        )
    try:
        return read_overrides([word for word in words if word not in MACROS]), macros[0]
    except ConfigError as error:
        raise ConfigError(f"command: {error}") from None


# ---- the runs of a sweep


def combinations(sweep: Sweep, most: int | None = None) -> list[dict[str, str]]:
    """Yield the choices of each run of a grid, first parameter slowest, at most `most` or
    `run_cap`."""
    texts = itertools.product(*(parameter.texts for parameter in sweep.parameters.values()))
    first = itertools.islice(texts, most or sweep.run_cap)
    return [dict(zip(sweep.parameters, chosen, strict=True)) for chosen in first]


def _check_runs(sweep: Sweep) -> None:
    """Raise ConfigError for invalid runs, or runs that would share a directory."""
    most = (sweep.run_cap or COUNT**2) if sweep.method == "grid" else MOST_CHECKED
    count = min(most, math.prod(len(parameter.texts) for parameter in sweep.parameters.values()))
    if count > MOST_RUNS:  # more than anybody trains: none of them is listed
        raise ConfigError(
            f"the grid has {shown(count)} runs; at most {shown(MOST_RUNS)} are possible, so vary "
            "less or set run_cap"
        )
    if count > MANY_RUNS:
        log.info(f"{sweep.path}: {count:,} runs to check")
    by_directory: dict[Path, dict[str, str]] = {}
    impossible: dict[str, list[str]] = {}
    runs = combinations(sweep, count)
    for chosen in tqdm(runs, "checked", unit=" runs", leave=False, disable=None, delay=2):
        try:
            config = load_config(sweep.words(chosen))
        except ConfigError as error:
            named = " ".join(f"{key}={text}" for key, text in chosen.items()) or "the one run"
            impossible.setdefault(str(error), []).append(named)
            continue
        if sweep.metric and sweep.metric.name not in (metrics := columns(config)):
            name = sweep.metric.name
            raise ConfigError(
                f"metric.name={name} is not a column of metrics.csv; {nearest(name, metrics)}"
            )
        other = by_directory.setdefault(run_directory(config), chosen)
        if other is not chosen:
            differ = [f"{k}={other[k]} and {v}" for k, v in chosen.items() if other[k] != v]
            raise ConfigError(
                f"two runs would share the directory {run_directory(config)}: they differ only in "
                f"{', '.join(differ)}"
            )
    for reason, which in impossible.items():
        if not by_directory and len(impossible) == 1:  # whatever is chosen
            raise ConfigError(reason)
        more = f" (and {len(which) - 1} more)" if len(which) > 1 else ""
        raise ConfigError(f"{which[0]}{more} is not possible: {reason}; leave it out of the file")
    ends = {key: as_text(p.high) for key, p in sweep.parameters.items() if isinstance(p, Range)}
    for key, high in ends.items():
        try:
            load_config(sweep.words(sweep.example | {key: high}))
        except ConfigError as error:
            if isinstance(error.__context__, TooLarge):
                raise ConfigError(f"parameters.{key}: max={high}: {error}") from None


# ---- the sweep as a file with its overrides


def for_wandb(sweep: Sweep) -> dict[str, Any]:
    """Return the content of the file with the overrides applied, for W&B to distribute."""
    fixed, parameters = dict(sweep.fixed), dict(sweep.content["parameters"])
    for key in parameters:
        name = str(key).removesuffix(".name")
        if name in sweep.overrides:
            parameters[key] = {"value": read_text(fixed.pop(name))}
    words = [f"{key}={text}" for key, text in fixed.items()]
    command = ["lcg", "train", *words, sweep.macro]
    return sweep.content | {"parameters": parameters, "command": command}


def as_yaml(sweep: Sweep) -> str:
    """Return the sweep with its overrides as a file that W&B and `lcg sweep` accept."""
    return yaml.safe_dump(for_wandb(sweep), sort_keys=False, allow_unicode=True)
