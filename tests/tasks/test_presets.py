"""Presets of tasks, by the names of their sources."""

from pathlib import Path

from lcg.config import load_task
from lcg.tasks.addition import Addition
from lcg.tasks.chomsky import BinaryArithmetic
from lcg.tasks.copy import Copy
from lcg.tasks.counting import Majority
from lcg.tasks.flip_flop import FlipFlopLanguage
from lcg.tasks.needle import Needle
from lcg.tasks.parity import Parity
from lcg.tasks.recall import MQAR, FuzzyRecall
from lcg.tasks.reverse import Reverse
from lcg.tasks.sort import Sort
from lcg.tasks.tracking import PathStar

PRESETS = {
    "binary_addition": BinaryArithmetic(),
    "binary_majority": Majority(symbols=2),
    "binary_multiplication": BinaryArithmetic(operation="multiply"),
    "bucket_sort": Sort(symbols=5),
    "coupled_addition": Addition(padded=True, order="reversed", coupled=512),
    "duplicate_string": Copy(symbols=2, times=2),
    "hinted_addition": Addition(padded=True, order="reversed", hints=128),
    "interleaved_majority": Majority(symbols=2, period=3),
    "parity_check": Parity(ones="binomial"),
    "repeat_copy": Copy(symbols=2),
    "unique_copy": Copy(symbols=150, distinct=True),
    "unique_sort": Sort(symbols=150, distinct=True),
    "reverse_string": Reverse(symbols=2),
    "noisy_recall": FuzzyRecall(keys=8, longest=1, noise=0.2),
    "forgetting_mqar": MQAR(pairs=8, updates=4),
    "compositional_mqar": MQAR(form="compositional"),
    "stacked_mqar": MQAR(form="stacked", keys=64, values=64),
    "ffl_sparse": FlipFlopLanguage(test="sparse"),
    "ffl_dense": FlipFlopLanguage(test="dense"),
    "multi_key_needle": Needle(keys=4),
    "multi_value_needle": Needle(values=4),
    "multi_query_needle": Needle(keys=4, queries=4),
    "associated_needle": Needle(literal=False),
    "reverse_path_star": PathStar(reverse=True),
}


def test_presets():
    for name, task in PRESETS.items():
        assert load_task([f"task={name}"]) == task
    files = Path(__file__).parents[2] / "configs/task"
    assert PRESETS.keys() == {file.stem for file in files.glob("*.yaml")}
