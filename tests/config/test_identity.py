"""A run's name changes with whatever changes its weights, and with nothing else."""

import shutil
from dataclasses import dataclass, field

import pytest
from omegaconf import OmegaConf

from lcg.config import experiment_identity, identity, load_config, run_directory, to_tree, to_yaml
from lcg.config.schema import ADDED_LATER, CHANGES_NO_WEIGHT

CHANGES = [
    "task=reverse",
    "task.symbols=8",
    "attention=ssmax",
    "attention.normalizer=topk",
    "position=rope",
    "position.variant=exponential",
    "model.layers=3",
    "model.block=gemma2",
    "model.dropout=0.1",
    "data.batch_size=32",
    "data.max_length=33",
    "data.lengths_per=batch",
    "optimizer.warmup_steps=7",
    "optimizer.beta2=0.95",
    "trainer.steps=1999",
    "trainer.precision=bf16-mixed",
]
OF_ONE_METHOD = ["seed=1", "optimizer.lr=0.002"]
NO_CHANGE = [
    "attention.backend=reference",
    "data.workers=2",
    "trainer.devices=2",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.log_every=10",
    "trainer.checkpoint_every=10",
    "validation.every=10",
    "validation.lengths=32,64",
    "evaluation.lengths=32",
    "evaluation.samples=10",
    "evaluation.seed=3",
    "wandb.mode=disabled",
    "runs=elsewhere",
    "attention.normalizer.name=softmax",
    "model.allow_no_position=true",
    "model.encoder_layers=2",
    "model.cross_position=same",
]


@pytest.mark.parametrize("word", CHANGES)
def test_settings_of_the_weights_change_both_hashes(word, here):
    plain, changed = load_config([]), load_config([word])
    assert identity(plain) != identity(changed)
    assert experiment_identity(plain) != experiment_identity(changed)


@pytest.mark.parametrize("word", OF_ONE_METHOD)
def test_seed_and_learning_rate_make_runs_of_one_method(word, here):
    plain, changed = load_config([]), load_config([word])
    assert identity(plain) != identity(changed)
    assert experiment_identity(plain) == experiment_identity(changed)


@pytest.mark.parametrize("word", NO_CHANGE)
def test_settings_that_do_not_affect_the_weights(word, here):
    assert identity(load_config([])) == identity(load_config([word]))


def test_the_hash_of_a_config_is_unchanged(here):
    """A new option of the schema, at its default, must not rename the runs that people have."""
    assert identity(load_config([])) == "720603c5"
    assert identity(load_config(["experiment=demo/asentmax"])) == "c81b77d2"


def test_an_option_that_was_added_later_counts_only_where_it_is_set():
    @dataclass
    class Section:
        first: int = 1
        later: int = field(default=2, metadata=ADDED_LATER)
        unseen: int = field(default=3, metadata=CHANGES_NO_WEIGHT)

    assert to_tree(Section(), identity=True) == {"first": 1}
    assert to_tree(Section(later=5, unseen=6), identity=True) == {"first": 1, "later": 5}
    assert to_tree(Section()) == {"first": 1, "later": 2, "unseen": 3}


def test_the_layers_of_an_encoder_count_in_every_spelling(here):
    words = ["model.kind=encoder_decoder"]
    plain, said, other = (
        identity(load_config([*words, *more]))
        for more in ([], ["model.encoder_layers=2"], ["model.encoder_layers=3"])
    )
    assert plain == said != other


def test_equivalent_overrides_are_one_run(write):
    write("configs/experiment/mine.yaml", "task: {name: copy, symbols: 32}\nattention: softmax\n")
    write("configs/experiment/other.yaml", "base: mine\nmodel: {d_model: 64}\n")
    words = [[], ["experiment=mine"], ["experiment=other"], ["optimizer.lr=1e-3"]]
    words += [["attention={normalizer: softmax}"], ["model.d_model=64.0"]]
    assert len({identity(load_config(w)) for w in words}) == 1


def test_the_folder_of_a_user_s_file_does_not_matter(write, here):
    source = write(
        "a/mine.py",
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from lcg.tasks.copy import Copy\n\n@dataclass\nclass Mine(Copy):\n"
        '    name: ClassVar[str] = "mine"\n',
    )
    (here / "b").mkdir()
    shutil.copy(source, here / "b" / "mine.py")
    first, second = (load_config([f"task=./{folder}/mine.py:Mine"]) for folder in "ab")
    assert identity(first) == identity(second)
    assert to_tree(first)["task"]["name"] == f"{here}/a/mine.py:Mine"  # found from anywhere
    assert to_tree(second)["task"]["name"] == f"{here}/b/mine.py:Mine"
    assert run_directory(first).name.startswith("mine-softmax-nape-s0-")


def test_names_of_run_directories(here):
    config = load_config(["attention=asentmax", "seed=3", "runs=some/where"])
    expected = f"some/where/copy-asentmax-nape-s3-{identity(config)}"
    assert str(run_directory(config)) == expected
    assert str(run_directory(load_config(["name=mine"]))) == "runs/mine"
    odd = load_config(["attention={normalizer: entmax, scaling: log}"])
    assert run_directory(odd).name.startswith("copy-entmax+log-nape-s0-")


def test_yaml_of_a_config_reads_back(here):
    config = load_config(["attention=asentmax", "name=007", "wandb.tags=a,b", "model.kv_heads=4"])
    assert OmegaConf.to_container(OmegaConf.create(to_yaml(config))) == to_tree(config)
