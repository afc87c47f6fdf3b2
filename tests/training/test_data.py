"""Training batches through the loader, and what is said about their lengths."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from processes import differences, only_run, record
from tiny import tiny

from lcg.tasks.base import IGNORE
from lcg.training.data import Batches, drawn_lengths, realised_lengths


def test_ranks_share_a_batch(config):
    """Rows rank::world, each with the number of scored positions of the whole."""
    options = config("data.batch_size=12")
    whole = Batches(options, 0, 1)[5]
    assert whole["scored"] == (whole["labels"] != IGNORE).sum()
    for world in (2, 3, 4):
        parts = [Batches(options, rank, world)[5] for rank in range(world)]
        for rank, part in enumerate(parts):
            assert torch.equal(part["inputs"], whole["inputs"][rank::world])
            assert torch.equal(part["labels"], whole["labels"][rank::world])
            assert part["scored"] == whole["scored"]
    scored = {int((part["labels"] != IGNORE).sum()) for part in parts}
    assert len(scored) > 1  # lengths per sample: the ranks have different numbers of tokens


def test_lengths_are_within_their_bounds_and_uniform(config):
    drawn = drawn_lengths(
        config("data.min_length=3", "data.max_length=7", "data.batch_size=64"), 64
    )
    assert len(drawn) == 64 * 64
    counts = np.bincount(drawn, minlength=8)
    assert counts[:3].sum() == 0
    assert counts[3:].min() > 0.9 * len(drawn) / 5


@pytest.mark.parametrize(("per", "several"), [("sample", True), ("batch", False)])
def test_lengths_are_drawn_per_sample_or_per_batch(config, per, several):
    options = config(f"data.lengths_per={per}", "data.batch_size=32")
    batches = [Batches(options, 0, 1)[t]["labels"] for t in range(8)]
    scored = [set((labels != IGNORE).sum(1).tolist()) for labels in batches]
    assert all((len(lengths) > 1) is several for lengths in scored)
    assert len(set.union(*scored)) > 1


def test_the_realised_lengths_are_logged_from_the_data(config):
    options = config("data.batch_size=4", "data.min_length=5", "data.max_length=5")
    assert realised_lengths(options) == (
        "training lengths 5–5, drawn per sample: mean 5.0, median 5, 80 % in 5–5 (first 16 batches)"
    )
    options = config("data.batch_size=50", "data.min_length=1", "data.max_length=100")
    line = realised_lengths(options)
    drawn = drawn_lengths(options, 16)
    assert f"{drawn.min()}–{drawn.max()}" in line
    assert f"mean {drawn.mean():.1f}" in line
    assert "\n" not in line
    options = config("data.lengths_per=batch", "trainer.steps=9")
    assert "drawn per batch" in realised_lengths(options)
    assert "first 9 batches" in realised_lengths(options)


def test_the_line_is_printed_once(lcg, tmp_path):
    process = lcg.run("train", *tiny(f"runs={tmp_path}", "trainer.steps=2"))
    assert process.err.count("training lengths ") == 1
    assert "training lengths" not in process.out


# ---- loader workers

OWN = """
from dataclasses import dataclass
from lcg.tasks.copy import Copy

@dataclass
class Mine(Copy):
    name = "mine"
"""


def test_batches_of_a_users_own_class_reach_another_process(lcg, tmp_path, config):
    (tmp_path / "own.py").write_text(OWN)
    batches = Batches(config(f"task={tmp_path / 'own.py'}:Mine"), 1, 2)
    (tmp_path / "pickled").write_bytes(pickle.dumps(batches))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))[3]['inputs'].tolist())"
    done = lcg.run(str(tmp_path / "pickled"), before=f"{code}; raise SystemExit(0)")
    assert done.out.strip() == str(batches[3]["inputs"].tolist()), done.err


def test_workers_need_not_import_lightning():
    """Each of them would take seconds more to start."""
    code = "import sys, lcg.training.data; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.slow
def test_workers_train_a_users_own_task(lcg, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    words = [f"task={tmp_path / 'own.py'}:Mine", "trainer.steps=12"]
    outcomes = []
    for workers in (0, 2):
        runs = tmp_path / str(workers)
        process = lcg.run("train", *tiny(*words, f"runs={runs}", f"data.workers={workers}"))
        assert process.code == 0, process.err
        outcomes.append(record(only_run(runs))["training"] | {"seconds": 0})
    assert differences(*outcomes) == []
