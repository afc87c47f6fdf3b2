"""Words and files make one config: what lies over what, whatever the order of the words."""

import itertools
import pickle
import subprocess
import sys

import pytest

from lcg.config import (
    ConfigError,
    config_from_tree,
    load_config,
    load_task,
    to_tree,
    with_overrides,
)
from lcg.config.schema import SECTIONS, Evaluation

WORDS = ["task=sort", "task.symbols=8", "attention=asentmax", "attention.scaling=log"]
WORDS += ["attention.scaling.offset=2", "seed=3"]
ENCODER = ["model.kind=encoder", "task=n_back", "position=nope", "model.allow_no_position=true"]


def test_the_order_of_words_never_matters(here):
    orders = list(itertools.permutations(WORDS))[::7]
    configs = [to_tree(load_config(list(words))) for words in orders]
    assert all(config == configs[0] for config in configs)
    assert configs[0]["task"] == {"name": "sort", "symbols": 8, "distinct": False}
    assert configs[0]["attention"]["normalizer"] == {"name": "entmax", "alpha": 1.5}
    assert configs[0]["attention"]["scaling"]["offset"] == 2.0
    assert configs[0]["seed"] == 3
    assert configs[0]["labels"] == {"task": "sort", "attention": "asentmax", "position": "nape"}


def test_order_of_overlays(write):
    write("configs/experiment/base.yaml", "model: {layers: 3, heads: 4, d_ff: 9}\nseed: 1\n")
    write("configs/experiment/mine.yaml", "base: base\nmodel: {heads: 2, d_ff: 10}\n")
    write("configs/model/wide.yaml", "d_ff: 11\nd_model: 32\n")
    model = load_config(["experiment=mine", "model=wide", "model.d_model=48"]).model
    assert model.dropout == 0.0  # the field's default
    assert model.layers == 3  # the base of the experiment
    assert model.heads == 2  # the experiment
    assert model.d_ff == 11  # the group's file
    assert model.d_model == 48  # the words
    assert load_config(["experiment=mine"]).seed == 1


def test_an_experiment_may_name_a_group(write):
    write("configs/model/wide.yaml", "d_ff: 11\n")
    write("configs/experiment/mine.yaml", "model: wide\ntrainer:\n")
    assert load_config(["experiment=mine"]).model.d_ff == 11


def test_a_base_s_component_is_changed_or_replaced(write):
    write("configs/experiment/base.yaml", "task: {name: copy, symbols: 9}\nattention: asentmax\n")
    write(
        "configs/experiment/changed.yaml",
        "base: base\ntask: {symbols: 5}\nattention: {scaling: {delta: 0}}\n",
    )
    write("configs/experiment/replaced.yaml", "base: base\ntask: sort\nattention: softmax\n")
    changed = load_config(["experiment=changed"])
    assert (changed.task.name, changed.task.symbols) == ("copy", 5)
    assert (changed.attention.scaling.name, changed.attention.scaling.delta) == ("adaptive", 0)
    assert changed.attention.normalizer.name == "entmax"
    replaced = load_config(["experiment=replaced"])
    assert (replaced.task.name, replaced.task.symbols) == ("sort", 32)
    assert replaced.attention.scaling.name == "none"


def test_the_user_s_configs_come_first(write):
    write("configs/attention/softmax.yaml", "normalizer: {name: topk, k: 3}\n")
    config = load_config(["attention=softmax"])
    assert (config.attention.normalizer.name, config.attention.normalizer.k) == ("topk", 3)
    assert config.labels["attention"] == "softmax"
    assert load_config(["attention=asentmax"]).attention.normalizer.name == "entmax"  # ours


def test_presets_of_tasks_and_positions(write):
    write("configs/task/tiny.yaml", "name: copy\nsymbols: 3\n")
    write("configs/task/copy.yaml", "name: copy\nsymbols: 4\n")
    write("configs/position/half.yaml", "name: rope\nfraction: 0.5\n")
    config = load_config(["task=tiny", "position=half", "position.base=500"])
    assert (config.task.name, config.task.symbols) == ("copy", 3)
    assert (config.position.fraction, config.position.base) == (0.5, 500)
    assert config.labels == {"task": "tiny", "attention": "softmax", "position": "half"}
    assert load_config(["task=copy"]).task.symbols == 4  # a preset may be called as its class


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("asentmax", "asentmax"),
        ("entmax", "entmax"),  # a normalizer that is no preset
        ("{name: asentmax, scaling: {delta: 0}}", "asentmax"),
        ("{normalizer: {name: entmax, alpha: 2.0}, scaling: log}", "entmax+log"),
        ("{normalizer: topk, output_norm: rms}", "topk+rms"),
    ],
)
def test_ways_to_name_an_attention(text, label, write):
    write("configs/experiment/mine.yaml", f"attention: {text}\n")
    for words in (["experiment=mine"], [f"attention={text}"]):
        config = load_config(words)
        assert config.labels["attention"] == label
        assert label.startswith(config.attention.normalizer.name) or label == "asentmax"


NAMED = """
from dataclasses import dataclass
from typing import ClassVar
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import LogScaling
@dataclass
class Sharp(Softmax):
    name: ClassVar[str] = "sharp_one"
@dataclass
class Grown(LogScaling):
    name: ClassVar[str] = "grown_one"
@dataclass
class Nameless(Softmax):
    \"\"\"Its name is inherited: that of another class.\"\"\"
"""


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("./named.py:Sharp", "sharp_one"),
        ("{name: ./named.py:Sharp, scaling: log}", "sharp_one"),
        ("{normalizer: ./named.py:Sharp, scaling: ./named.py:Grown}", "sharp_one+grown_one"),
        ("./named.py:Nameless", "Nameless"),
    ],
)
def test_a_user_s_class_is_called_by_its_own_name(text, label, write):
    write("named.py", NAMED)
    assert load_config([f"attention={text}"]).labels["attention"] == label


def test_a_class_by_its_name_key(here):
    config = load_config(["task.name=sort", "attention.scaling.name=log", "position.name=rope"])
    names = config.task.name, config.attention.scaling.name, config.position.name
    assert names == ("sort", "log", "rope")
    assert config.labels["task"] == "sort"


def test_choosing_another_class_drops_the_options_of_the_first(here):
    config = load_config(["attention=asentmax", "attention.scaling=head"])
    scaling = to_tree(config)["attention"]["scaling"]
    assert scaling == {"name": "head", "delta": 1.0, "offset": 1.0}


def test_words_as_w_and_b_writes_them(here):
    config = load_config(["--optimizer.lr=1e-3", "--model.kv_heads=None", "_wandb={'x': 1}"])
    assert config.optimizer.lr == 0.001
    assert config.model.kv_heads is None


def test_interpolation_within_a_file(write):
    write("configs/experiment/mine.yaml", "seed: 7\nname: run-${seed}\n")
    assert load_config(["experiment=mine"]).name == "run-7"


def test_a_text_stays_as_it_was_typed(here):
    assert load_config(["name=007"]).name == "007"
    assert load_config(["name=1e3"]).name == "1e3"
    assert load_config(["wandb.project=true"]).wandb.project == "true"
    assert load_config(["name=null"]).name is None


def test_a_run_s_config_comes_back_as_it_was(write):
    config = load_config(["experiment=quick/mqmtar", "attention=rela", "evaluation.lengths=40,80"])
    tree = to_tree(config)
    # A preset of the same name that came later changes no run that is there.
    write("configs/task/mqmtar.yaml", "name: copy\nsymbols: 4\n")
    write("configs/attention/rela.yaml", "normalizer: softmax\n")
    assert to_tree(config_from_tree(tree)) == tree
    assert config_from_tree(tree) == config


def test_a_run_s_config_of_before_a_field_was_renamed(here):
    tree = to_tree(load_config(ENCODER))
    assert tree["model"].pop("allow_no_position") is True
    tree["model"]["unordered"] = True
    assert config_from_tree(tree).model.allow_no_position


def test_a_run_s_config_must_be_whole(here):
    tree = to_tree(load_config([]))
    with pytest.raises(ConfigError, match="task must be given"):
        config_from_tree({key: value for key, value in tree.items() if key != "task"})
    with pytest.raises(ConfigError, match="flavour is not an option"):
        config_from_tree(tree | {"flavour": 3})


def test_with_overrides_of_one_section():
    section = Evaluation(lengths=[8], samples=5)
    changed = with_overrides(section, ["lengths=16,32", "evaluation.seed=4"], "evaluation")
    assert changed == Evaluation(lengths=[16, 32], samples=5, seed=4)
    assert section.lengths == [8]
    with pytest.raises(ConfigError, match=r"^lenths is not an option; did you mean lengths\?$"):
        with_overrides(section, ["lenths=16"], "evaluation")


def test_a_task_alone_need_not_fit_the_rest(here):
    task = load_task(["task=n_back", "task.n=20"])  # more than the default training lengths allow
    assert task.n == 20
    with pytest.raises(ConfigError, match="too short"):
        load_config(["task=n_back", "task.n=20"])


ROTATE = """
from dataclasses import dataclass
from typing import ClassVar
from lcg.tasks.base import Task
@dataclass
class Rotate(Task):
    name: ClassVar[str] = "rotate"
    symbols: int = 4
    def sample(self, rng, lengths): ...
"""


def test_a_config_travels_to_another_process(write, tmp_path_factory):
    """As it must for data workers, which cannot import a user's file by a module's name."""
    write("rotate.py", ROTATE)
    config = load_config(["task=./rotate.py:Rotate", "task.symbols=7"])
    program = (
        "import pickle, sys; config = pickle.loads(sys.stdin.buffer.read());"
        "print(type(config.task).__name__, config.task.symbols)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(config),
        capture_output=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
    )
    assert done.stdout.split() == [b"Rotate", b"7"], done.stderr.decode()


def test_defaults_are_those_of_the_schema(here):
    config = load_config([])
    for section in ("model", "data", "optimizer", "trainer", "validation", "evaluation", "wandb"):
        assert getattr(config, section) == SECTIONS[section]()
