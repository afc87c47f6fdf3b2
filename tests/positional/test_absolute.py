"""Embeddings of positions: random offsets, tables that end, ids and levels that a task gives."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from oracles.registered import small_decoder, tokens

from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import NoScaling
from lcg.config import ConfigError, load_config, with_changes
from lcg.config.compatibility import check_ids, warnings
from lcg.positional.absolute import Abacus, LearnedAbsolute, ScaledSinusoidal
from lcg.positional.base import Sizes
from lcg.positional.slopes import ALiBi
from lcg.tasks.copy import Copy
from lcg.tasks.streams import eval_batch, train_batch

SIZES = Sizes(heads=2, kv_heads=2, head_dim=2, d_model=4)


@dataclass
class Leveled(Copy):
    """The order of tokens, and a second level that says where in its half a symbol stands."""

    name: ClassVar[str] = "leveled"

    def position_ids(self, batch, rng, training):
        shape = batch.inputs.shape
        order = np.broadcast_to(np.arange(shape[1]), shape)
        return np.stack([order, order % (batch.lengths[:, None] + 1)], axis=1)


@dataclass
class Coupled(Copy):
    """A symbol and its copy share an id."""

    name: ClassVar[str] = "coupled"

    def position_ids(self, batch, rng, training):
        column = np.arange(batch.inputs.shape[1])
        return column % (batch.lengths[:, None] + 1) + (rng.integers(5) if training else 0)


# ---- scaled sinusoidal


def test_scaled_sinusoidal_by_hand():
    """sin and cos alternate; all sines before all cosines, as some have it, is another order."""
    position = ScaledSinusoidal()
    learned = position.learned_embedding(SIZES)
    assert learned["s"].item() == 0.5
    found = position.embed(torch.zeros(1, 1, 4), torch.tensor([1]), learned)[0, 0]
    expected = [0.5 * v for v in (0.841471, 0.540302, 0.010000, 0.999950)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


# ---- learned absolute


def draws(lengths, longest=40, training=True, count=500):
    position = LearnedAbsolute(longest=longest)
    rng = np.random.default_rng(0)
    return [position.draw_positions(rng, np.array(lengths), training) for _ in range(count)]


def test_each_sequence_has_an_offset_of_its_own_that_fits():
    found = np.stack(draws([30, 40, 39]))  # [draws 3 40]
    starts = found[:, :, 0]
    assert sorted(set(starts[:, 0])) == list(range(11)), "0 … longest - n, both ends"
    assert (starts[:, 1] == 0).all() and set(starts[:, 2]) == {0, 1}
    assert abs(starts[:, 0].mean() - 5) < 0.6
    assert (np.diff(found[:, 0, :30]) == 1).all()
    assert found.max() == 39


def test_in_evaluation_positions_begin_at_0():
    for ids in draws([3, 7], training=False, count=3):
        assert ids[1].tolist() == list(range(7)) and ids[0, :3].tolist() == [0, 1, 2]


def test_offsets_reach_the_model_in_training_alone():
    task, position = Copy(), LearnedAbsolute(longest=64)
    batch = train_batch(task, 0, 0, 32, 4, 9, position=position)
    n = (batch.inputs != task.pad).sum(axis=1)
    last = batch.ids[np.arange(32), n - 1]
    assert (last - batch.ids[:, 0] == n - 1).all(), "copies are in: source and target are numbered"
    assert last.max() <= 63 and len(set(batch.ids[:, 0])) > 10
    again = train_batch(task, 0, 0, 32, 4, 9, position=position)
    assert np.array_equal(batch.ids, again.ids)
    assert (eval_batch(task, 0, "test", 9, 0, 4, position=position).ids[:, 0] == 0).all()
    fixed = LearnedAbsolute(longest=64, random_offset=False)
    assert train_batch(task, 0, 0, 4, 4, 9, position=fixed).ids is None


@torch.no_grad()
def test_rows_of_the_table_are_added_to_the_embeddings():
    position = LearnedAbsolute(longest=50)
    table = {"table0": torch.randn(50, 4)}
    x, ids = torch.randn(2, 3, 4), torch.tensor([[0, 1, 2], [40, 41, 49]])
    assert torch.equal(position.embed(x, ids, table), x + table["table0"][ids])
    assert position.embed(x.bfloat16(), ids, table).dtype == torch.bfloat16
    start = position.learned_embedding(SIZES)["table0"]
    assert start.shape == (50, 4) and 0.01 < start.std() < 0.03


@torch.no_grad()
def test_cached_decoding_with_an_offset_is_the_whole():
    model = small_decoder(Softmax(), NoScaling(), LearnedAbsolute(longest=30))
    words, ids = tokens(2, 9), torch.arange(9) + torch.tensor([[21], [4]])
    whole, cache = model(words, ids), model.make_cache(9, ids)
    parts = [model(part, cache=cache) for part in words.split([4, 1, 4], dim=1)]
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-5
    assert (model(words) - whole).abs().max() > 1e-3


# ---- more tokens than rows


@pytest.mark.parametrize(
    "words",
    [
        ["position=ape", "position.longest=100"],
        ["position=randomised", "position.longest=100"],
        ["position=ape:4+nope:4", "position.groups_of.0.longest=100"],
        ["position=[ape,rope]", "position.pattern.0.longest=100"],
        ["position=randomised", "position.inner=ape", "position.inner.longest=2047"],
    ],
)
def test_sequences_longer_than_the_table_are_refused_before_any_work(words):
    short = ["evaluation.lengths=32", "validation.lengths=32"]
    if "position.inner=ape" not in words:
        load_config([*words, *short])
        short[0] = "evaluation.lengths=32,50"
    with pytest.raises(ConfigError, match=r"longest=\d+; set it to \d+ or more") as error:
        load_config([*words, *short])
    assert "\n" not in str(error.value)


def test_evaluating_a_run_beyond_its_table_is_refused():
    config = load_config(["position=ape", "position.longest=1100"])
    check_ids(config, 512)
    with pytest.raises(ConfigError, match="ape: 2051 positions need as many rows"):
        check_ids(config, 1024)
    check_ids(with_changes(config, ["position=nope"])[0], 1024)


def test_a_position_beyond_the_table_is_an_error_and_no_clamp():
    model = small_decoder(Softmax(), NoScaling(), LearnedAbsolute(longest=8))
    model(tokens(1, 8))
    with pytest.raises((ValueError, IndexError)):
        model(tokens(1, 9))


# ---- ids of a task


def test_coupled_ids_take_rows_of_the_table():
    task, position = Coupled(), LearnedAbsolute(longest=30, random_offset=False)
    ids = eval_batch(task, 0, "test", 4, 0, 2, position=position).ids
    assert ids[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    table = position.learned_embedding(SIZES)
    found = position.embed(torch.zeros(2, 10, 4), torch.from_numpy(ids), table)
    assert torch.equal(found[:, :5], found[:, 5:]) and not torch.equal(found[:, 0], found[:, 1])
    with pytest.raises(ValueError, match=r"ape: \d+ positions need as many rows"):
        train_batch(task, 0, 0, 8, 9, 9, position=LearnedAbsolute(longest=9))


def test_an_offset_is_added_to_the_numbers_of_a_task():
    batch = train_batch(Coupled(), 0, 0, 16, 4, 4, position=LearnedAbsolute(longest=30))
    assert (batch.ids[:, 1:5] == batch.ids[:, 6:10]).all(), "still coupled"
    assert len(set(batch.ids[:, 0])) > 5 and batch.ids.max() < 30


def test_each_level_has_a_table():
    task, position = Leveled(), LearnedAbsolute(longest=30, levels=2, random_offset=False)
    ids = torch.from_numpy(eval_batch(task, 0, "test", 4, 0, 2, position=position).ids)
    tables = position.learned_embedding(SIZES)
    found = position.embed(torch.zeros(2, 10, 4), ids, tables)
    assert torch.equal(found, tables["table0"][ids[:, 0]] + tables["table1"][ids[:, 1]])
    with pytest.raises(ValueError, match=r"ape: .* 2 levels, but levels=1; set .*levels=2"):
        LearnedAbsolute().embed(torch.zeros(2, 10, 4), ids, tables)


def test_a_draw_leaves_the_other_levels_as_they_are():
    position = LearnedAbsolute(longest=60, levels=2)
    ids = train_batch(Leveled(), 0, 0, 8, 4, 4, position=position).ids
    assert ids.shape == (8, 2, 10) and (np.diff(ids[:, 0]) == 1).all()
    assert len(set(ids[:, 0, 0])) > 4
    assert (ids[:, 1] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]).all()


def test_abacus_embeds_the_last_level_and_attention_sees_the_first():
    position = Abacus(ALiBi(), longest=5)
    ids = torch.from_numpy(eval_batch(Leveled(), 0, "test", 4, 0, 2, position=position).ids)
    table = position.learned_embedding(SIZES)
    found = position.embed(torch.zeros(2, 10, 4), ids, table)
    assert torch.equal(found, table["abacus"][ids[:, 1]])
    model, order = small_decoder(Softmax(), NoScaling(), position), ids[:, 0]
    words, seen = tokens(2, 10), []
    for block in model.blocks:
        block.attention.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model(words, ids)
    assert all(torch.equal(own, order) for own in seen)
    with pytest.raises(ValueError, match="abacus: 5 positions need as many rows, but longest=4"):
        eval_batch(Leveled(), 0, "test", 4, 0, 2, position=Abacus(longest=4))


# ---- one model, one name


@pytest.mark.parametrize("pattern", ["ape,nope", "nope,ape", "ape,ape", "sinusoidal,nope"])
def test_a_pattern_that_only_embeds_is_remarked(pattern):
    (remark,) = (
        line for line in warnings(load_config([f"position=[{pattern}]"])) if "same" in line
    )
    name = pattern.replace("nope", "").strip(",").partition(",")[0]
    assert f"is the same model as position={name}, which changes the embedding alone" in remark


@pytest.mark.parametrize("pattern", ["ape,rope", "rope,nope", "ape,sinusoidal", "nope,nope"])
def test_other_patterns_are_not(pattern):
    assert not [line for line in warnings(load_config([f"position=[{pattern}]"])) if "same" in line]
