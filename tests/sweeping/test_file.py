"""Sweep files: every mistake is one line that names the file and the key."""

from pathlib import Path

import pytest
import yaml
from sweeping.tiny_sweeps import configs

from lcg.config import ConfigError, load_config
from lcg.sweeping import read_sweep
from lcg.sweeping.file import Metric, as_yaml

GOOD = {
    "program": "lcg",
    "method": "grid",
    "metric": {"name": "val/len_64/exact_match", "goal": "maximize"},
    "parameters": {"seed": {"values": [0, 1]}, "optimizer.lr": {"values": [0.001, 0.002]}},
    "command": ["lcg", "train", "experiment=quick/copy", "${args_no_hyphens}"],
}
BAYES = {"method": "bayes", "run_cap": 3}
HYPERBAND = {"type": "hyperband", "min_iter": 2}


def write(folder: Path, changes: dict) -> Path:
    """The good file with top-level keys replaced; None removes one."""
    content = {key: value for key, value in (GOOD | changes).items() if value is not None}
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def lr(**node):
    return {"parameters": {"optimizer.lr": node}}


MISTAKES = [
    ({"metod": "grid"}, "metod is not an option; did you mean method?"),
    ({"method": None}, "method is missing or empty; choose from grid, random, bayes"),
    ({"method": "tpe"}, "method=tpe is not known; choose from bayes, grid, random"),
    ({"parameters": None}, "parameters is missing or empty; write KEY: {values: [A, B]}"),
    ({"parameters": {}}, "parameters is missing or empty; write KEY"),
    (lr(values=[]), "parameters.optimizer.lr: values must be a list of at least one"),
    (lr(values=0.1), "parameters.optimizer.lr: values must be a list"),
    (lr(values=[1.0, 1.0]), "parameters.optimizer.lr: values has 1 more than once"),
    (lr(values=[""]), "parameters.optimizer.lr: a value is empty"),
    (lr(values=["1e-3"]), "'1e-3' is text to YAML, not a number; write 1.0e-03"),
    (lr(values=["0.1"]), "'0.1' is text to YAML, not a number; leave the quotes out"),
    (lr(value=1, values=[1]), "parameters.optimizer.lr: values cannot be combined with value"),
    (lr(value=0.1, min=0.0), "parameters.optimizer.lr: min cannot be combined with value"),
    (lr(vales=[1]), "parameters.optimizer.lr: vales is not known; did you mean value"),
    (lr(), "parameters.optimizer.lr: needs values: […], value: … or min and max"),
    (lr(min=0.1, max=0.2), "a grid needs values: […]; not a range"),
    (
        {"parameters": {"optimizer": {"parameters": {}}}},
        "parameters cannot be nested; write",
    ),
    (lr(values=[1], probabilities=[1]), "probabilities is not supported"),
    ({"parameters": {"optimizer.lr": 3}}, "parameters.optimizer.lr: expected values"),
    (lr(distribution="normal", mu=0), "distribution normal cannot be drawn by Optuna"),
    (lr(distribution="unifrom"), "distribution unifrom is not known; did you mean uniform?"),
    (BAYES | lr(distribution="uniform", min=0.1), "distribution uniform needs max"),
    (BAYES | lr(min=0.2, max=0.1), "min=0.2 is not below max=0.1"),
    (BAYES | lr(min="1e-4", max=0.1), "'1e-4' is text to YAML, not a number"),
    (BAYES | lr(distribution="log_uniform_values", min=0.0, max=1.0), "must be positive"),
    (BAYES | lr(min=0.1, max=0.2, q=0.1), "q cannot be combined with min and max"),
    (
        BAYES | lr(distribution="q_log_uniform_values", min=1, max=9, q=2),
        "can only be drawn by Optuna with q: 1",
    ),
    (
        BAYES | lr(distribution="q_uniform", min=0.1, max=0.2, q=1.0),
        "fewer than two multiples of q=1",
    ),
    ({"parameters": {"optimizer.rl": {"value": 1}}}, "optimizer.rl is not an option; "),
    ({"parameters": {"seed": {"values": ["a"]}}}, "seed: 'a' is not a whole number"),
    (
        {"parameters": {"experiment": {"value": "paper/copy"}}},
        "parameters.experiment: command has experiment=quick/copy already",
    ),
    (
        {"metric": {"name": "val/len_65/exact_match", "goal": "maximize"}},
        "metric.name=val/len_65/exact_match is no",
    ),
    (
        {"metric": {"name": "val/len_64/exact_match"}},
        "goal is minimize, W&B's default",
    ),
    ({"metric": {"name": "val/len_64/exact_match", "goal": "minimize"}}, "write maximize"),
    ({"metric": {"name": "accuracy"}}, "metric.name=accuracy is not a column of metrics.csv"),
    ({"metric": {"goal": "maximize"}}, "metric.name must be given"),
    (
        {"metric": {"name": "train/loss", "goal": "up"}},
        "metric.goal=up is not known; choose",
    ),
    (
        {"metric": {"name": "train/loss", "target": 1}},
        "metric: only W&B supports target and impute",
    ),
    (BAYES | {"metric": None}, "method bayes needs metric"),
    ({"early_terminate": HYPERBAND, "metric": None}, "early_terminate needs metric"),
    ({"method": "random"}, "run_cap is missing: method random needs the number of runs"),
    ({"run_cap": 0}, "run_cap must be at least 1, got 0"),
    (
        {"early_terminate": {"type": "envelope"}},
        "type=envelope is not known; choose from h",
    ),
    ({"early_terminate": HYPERBAND | {"strict": True}}, "early_terminate: strict cannot be mapped"),
    (
        {"early_terminate": HYPERBAND | {"eta": 1.5}},
        "early_terminate.eta: 1.5 is not a whole",
    ),
    (
        {"early_terminate": HYPERBAND | {"s": 2}},
        "together with s; got min_iter, s",
    ),
    (
        {"early_terminate": HYPERBAND | {"max_iter": 9}},
        "together with s; got min_iter, max_iter",
    ),
    (
        {"early_terminate": {"type": "hyperband", "max_iter": 9}},
        "together with s; got max_iter",
    ),
    ({"early_terminate": {"type": "hyperband", "max_iter": 8, "s": 2}}, "max_iter=8 is too small"),
    ({"early_terminate": HYPERBAND | {"max_itr": 9}}, "early_terminate.max_itr is not an option"),
    ({"program": "train.py"}, "program=train.py is not known; choose from lcg"),
    ({"command": None}, "command is missing or empty; write command: [lcg, train"),
    ({"command": ["python", "train.py", "${args}"]}, "command is python train.py"),
    ({"command": ["lcg", "eval", "${args}"]}, "command is lcg eval"),
    (
        {"command": "lcg train ${args}"},
        "not lcg train; write command: [",
    ),
    ({"command": ["lcg", "train"]}, "command must hold ${args_no_hyphens} once"),
    ({"command": ["lcg", "train", "${args}", "${args_json}"]}, "${args_no_hyphens} once"),
    (
        {"command": ["lcg", "train", "${args}", "${args_dict}"]},
        "other; it has ${args}, ${args_dict}",
    ),
    ({"command": ["lcg", "train", "${args_no_equals}"]}, "must hold ${args_no_hyphens} once"),
    (lr(value="1e400"), "parameters.optimizer.lr: '1e400' is too large for any option"),
    (lr(value=10**400), "optimizer.lr must be at most 1,000,000"),
    (BAYES | lr(min=1, max=10**400), "is too large for any option"),
    (BAYES | lr(distribution="log_uniform", min=0, max=1000), "max=1000 is an exponent of e"),
    ({"parameters": {"seed": {"min": 0, "max": 10**12}}}, "a grid of more than 10,000 values"),
    (BAYES | {"run_cap": 10_001}, "run_cap must be at most 10,000, got 10,001"),
    (BAYES | lr(min=1e-3, max=1e12), "max=1e+12: optimizer.lr must be at most 1,000,000, got"),
    (
        BAYES | {"parameters": {"model.layers": {"min": 1, "max": 10**9}}},
        "parameters.model.layers: max=1000000000: model.layers=1,000,000,000 makes a model of",
    ),
    (
        {"early_terminate": {"type": "hyperband", "max_iter": 9, "s": 10**9}},
        "early_terminate.s must be at most 64, got 1,000,000,000",
    ),
    (
        {"parameters": {key: {"values": [*range(1, 1001)]} for key in ("seed", "trainer.steps")}},
        "the grid has 1,000,000 runs; at most 10,000 are possible",
    ),
    ({"command": ["lcg", "train", "copy", "${args}"]}, "command: 'copy' is not of the form"),
]


@pytest.mark.parametrize(("changes", "said"), MISTAKES, ids=[str(m[1])[:50] for m in MISTAKES])
def test_a_mistake_is_one_line(changes, said, tmp_path):
    file = write(tmp_path, changes)
    with pytest.raises(ConfigError) as error:
        read_sweep(file)
    message = str(error.value)
    assert message.startswith(f"{file}: ") and "\n" not in message
    assert said in message


def laughs(form: str, first: str = "lol") -> str:
    """Anchors of which each holds ten of the one before: 10^12 values in thirteen lines."""
    lines = [f"l0: &l0 {first}"]
    lines += [f"l{n}: &l{n} " + form.format(", ".join([f"*l{n - 1}"] * 10)) for n in range(1, 13)]
    return "\n".join([*lines, "parameters: *l12", ""])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: [", "line 1: "),
        ("method: grid\nmethod: bayes\n", "line 2: method is given twice"),
        ("- grid\n", "expected a mapping of keys to values"),
        ("", "expected a mapping of keys to values"),
        ("parameters: &a {seed: *a}\n", "or an anchor refers to itself"),
        ("method: &a [*a]\n", "or an anchor refers to itself"),
        ("parameters: &a {<<: *a}\n", "or an anchor refers to itself"),
        (f"method: {'[' * 100}{']' * 100}\n", "nested more than 50 deep"),
        (f"method: {'[' * 9999}", "nested more than 50 deep"),
        (f"method: {'{a: ' * 9999}", "nested more than 50 deep"),
        (f"method: {list(range(10_001))}\n", "expands to more than 10,000 values"),
        (f"# {'a' * 10**6}\nmethod: grid\n", "the file has more than 1,000,000 bytes"),
        (laughs("[{}]"), "expands to more than 10,000 values"),
        (laughs("{{k: [{}]}}"), "expands to more than 10,000 values"),
        (laughs("{{<<: [{}]}}", "{k: 1}"), "expands to more than 10,000 values"),
        ("parameters: !!python/object:os.system {}\n", "could not determine a constructor"),
    ],
)
def test_a_file_that_is_not_a_sweep(text, said, tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml: ") as error:
        read_sweep(file)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_impossible_pair_is_refused_before_any_run(tmp_path):
    parameters = {
        "position": {"values": ["nope", "nape"]},
        "model.heads": {"values": [1, 2, 4]},
    }
    with pytest.raises(ConfigError) as error:
        read_sweep(write(tmp_path, {"parameters": parameters}))
    message = str(error.value)
    assert "position=nape model.heads=1 is not possible: " in message
    assert "nape: needs at least 2 heads" in message and "leave it out of the file" in message


def test_runs_that_would_share_a_directory_are_refused(tmp_path):
    parameters = {"trainer.threads": {"values": [1, 2]}}
    with pytest.raises(ConfigError, match=r"share the directory .*trainer.threads=1 and 2"):
        read_sweep(write(tmp_path, {"parameters": parameters}))


def test_a_name_without_a_file(tmp_path):
    with pytest.raises(ConfigError, match="there is no sweep file quick_cop; did you mean quick_c"):
        read_sweep("quick_cop")


def test_the_runs_of_a_grid(tmp_path):
    """In the order of the file, each as the words that `lcg train` takes."""
    sweep = read_sweep(write(tmp_path, {}))
    expected = [
        ["experiment=quick/copy", f"seed={seed}", f"optimizer.lr={lr}"]
        for seed in (0, 1)
        for lr in ("0.001", "0.002")
    ]
    assert configs(sweep) == expected
    assert sweep.metric == Metric("val/len_64/exact_match", "maximize")
    assert configs(read_sweep(write(tmp_path, {"run_cap": 3}))) == expected[:3]


VALUES = {
    "model.kv_heads": (None, lambda c: c.model.kv_heads is None),
    "evaluation.lengths": ([32, 64], lambda c: c.evaluation.lengths == [32, 64]),
    "evaluation.after_training": (False, lambda c: c.evaluation.after_training is False),
    "optimizer.lr": (1e-05, lambda c: c.optimizer.lr == 1e-05),
    "attention.name": ("ssmax", lambda c: c.labels["attention"] == "ssmax"),
    "task": ({"name": "copy", "symbols": 7}, lambda c: c.task.symbols == 7),
}


@pytest.mark.parametrize("key", VALUES)
def test_a_value_arrives_in_the_config(key, tmp_path):
    value, arrived = VALUES[key]
    sweep = read_sweep(write(tmp_path, {"parameters": {key: {"value": value}}}))
    (words,) = configs(sweep)
    assert arrived(load_config(words))


def test_overrides_lie_over_every_run(tmp_path):
    """Over the file's own words, and over what it varies, which is then fixed."""
    file = write(tmp_path, {})
    said = ["experiment=quick/sort", "seed=7", "runs=elsewhere"]
    sweep = read_sweep(file, said)
    assert [load_config(words).seed for words in configs(sweep)] == [7, 7]
    assert all(words[0] == "experiment=quick/sort" for words in configs(sweep))
    assert sweep.directory.parts[:2] == ("elsewhere", "sweeps")
    again = tmp_path / "again.yaml"
    again.write_text(as_yaml(sweep))
    registered = configs(read_sweep(again))
    assert [sorted(words) for words in registered] == [sorted(w) for w in configs(sweep)]


def test_the_name_of_a_sweep(tmp_path):
    """Another folder or a larger cap is the same sweep; another value is another."""
    same = BAYES | {"method": "random"}
    file = write(tmp_path, same)
    name = read_sweep(file).name
    assert name.startswith("mine-")
    assert read_sweep(file, ["runs=elsewhere"]).name == name
    assert read_sweep(file, ["seed=3"]).name != name
    assert read_sweep(write(tmp_path, same | {"run_cap": 9})).name == name
    assert read_sweep(write(tmp_path, same | {"metric": None})).name != name


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"min_iter": 3}, (3, 3, None)),
        ({"min_iter": 2, "eta": 2}, (2, 2, None)),
        ({"max_iter": 27, "s": 2}, (3, 3, 9)),  # W&B's own example: [9, 3]
        ({"max_iter": 8, "s": 2, "eta": 2}, (2, 2, 4)),
    ],
)
def test_hyperband(node, expected, tmp_path):
    node = {"type": "hyperband"} | node
    early = read_sweep(write(tmp_path, {"early_terminate": node})).early_stop
    assert (early.first, early.eta, early.last) == expected


ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {
    "quick_copy": 240,
    "quick_sort": 90,
    "quick_factorial": 60,
    "table1_sort": 105,
    "table1_reverse": 75,
    "table1_copy": 75,
    "table1_mqmtar": 60,
    "lr_bracket": 16,
    "crasp": 49,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_files_that_come_with_it(name, tmp_path, monkeypatch):
    """Found by name from any folder; every run is possible and the metric is one of its columns."""
    monkeypatch.chdir(tmp_path)
    sweep = read_sweep(name)
    assert sweep.path.resolve() == ROOT / "sweeps" / f"{name}.yaml"
    count = len(configs(sweep)) if sweep.method == "grid" else sweep.run_cap
    assert count == SHIPPED[name]
    assert "${args_no_hyphens}" in sweep.content["command"]
    if name.startswith("table1"):
        config = load_config(configs(sweep)[0])
        assert sweep.metric.name == f"val/len_{config.validation.monitored}/exact_match"
        assert config.labels["position"] == "nape"


def test_the_sweep_on_real_text_names_the_command_for_its_corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="gettext_pairs"):
        configs(read_sweep("real_text"))


def test_none_is_forgotten():
    assert {path.stem for path in (ROOT / "sweeps").iterdir()} == {*SHIPPED, "real_text"}


def test_merge_keys(tmp_path):
    """`<<: *anchor` adds what is not there already, as `wandb sweep` reads it."""
    file = tmp_path / "merged.yaml"
    file.write_text("""
program: lcg
method: random
run_cap: 2
command: [lcg, train, "${args}"]
parameters:
  optimizer.lr: &range {distribution: log_uniform_values, min: 0.001, max: 0.01}
  optimizer.weight_decay: {<<: *range, max: 0.1}
""")
    parameters = read_sweep(file).parameters
    assert (parameters["optimizer.lr"].high, parameters["optimizer.weight_decay"].high) == (
        0.01,
        0.1,
    )
    assert parameters["optimizer.weight_decay"].low == 0.001


COMMANDS = [
    ["lcg", "train", "${args}"],
    ["lcg", "train", "${args_no_hyphens}"],
    ["lcg", "train", "${args_no_boolean_flags}"],
    ["lcg", "train", "${args_json}"],
    ["lcg", "train", "${args_json_file}"],
    ["${env}", "${interpreter}", "-m", "${program}", "train", "${args}"],
    ["${env}", "lcg", "train", "name=${envvar:LCG_NAME}", "runs=${envvar:UNSET}", "${args}"],
]
VARIED = {
    "seed": {"value": 3},
    "optimizer.lr": {"value": 0.002},
    "model.kv_heads": {"value": None},
    "evaluation.lengths": {"value": [32, 64]},
    "evaluation.after_training": {"values": [True]},
    "model.allow_no_position": {"values": [False]},
}


@pytest.mark.parametrize("command", COMMANDS, ids=[c[-1] + str(len(c)) for c in COMMANDS])
def test_every_macro_means_what_wandb_agent_makes_of_it(command, tmp_path, monkeypatch):
    """The words of the agent's own code give the same config as ours."""
    from wandb.sdk.launch.sweeps import utils

    monkeypatch.setenv("LCG_NAME", "mine")
    monkeypatch.delenv("UNSET", raising=False)
    file = write(tmp_path, {"command": command, "parameters": VARIED, "metric": None})
    sweep = read_sweep(file)
    (ours,) = configs(sweep)
    arguments = {
        key: {"value": node.get("value", node.get("values", [None])[0])}
        for key, node in VARIED.items()
    }
    variables = utils.create_sweep_command_args({"args": arguments})
    json_file = tmp_path / "config-1.json"
    json_file.write_text(variables["args_json"][0])
    variables |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": ["lcg"]}
    variables |= {"args_json_file": [str(json_file)]}
    theirs = []
    for word in utils.create_sweep_command(list(command)):
        macro = word.startswith("${") and word.endswith("}")
        theirs += variables[word[2:-1]] if macro else [word]
    assert load_config(theirs[theirs.index("train") + 1 :]) == load_config(ours)
    assert sweep.content["command"] == command
    assert yaml.safe_load(as_yaml(sweep))["command"][-1] == command[-1]


def test_false_values_are_left_out_without_boolean_flags(tmp_path):
    changes = {
        "command": ["lcg", "train", "experiment=quick/copy", "${args_no_boolean_flags}"],
        "parameters": {"evaluation.after_training": {"values": [True, False]}},
        "metric": None,
    }
    with pytest.raises(ConfigError, match="two runs would share the directory"):
        read_sweep(write(tmp_path, changes))
