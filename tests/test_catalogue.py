"""docs/catalogue.md and what `lcg show` says of a member, against what is known otherwise."""

from pathlib import Path

import numpy as np
import pytest

from lcg import registry
from lcg.catalogue import against_distance, by_family, catalogue, distances, learned_numbers
from lcg.positional.groups import NAPE
from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi
from lcg.tasks.copy import Copy
from lcg.tasks.n_back import NBack
from lcg.tasks.shortcuts import SHORTCUTS, shortcut_accuracy

PAGE = Path(__file__).parents[1] / "docs" / "catalogue.md"


def test_the_page_is_current():
    assert catalogue() == PAGE.read_text(), "lcg list catalogue > docs/catalogue.md"


def test_every_member_stands_under_one_family():
    for kind in ("task", "position", "normalizer"):
        members = [name for family in by_family(kind).values() for name in family]
        assert sorted(members) == sorted(registry.available(kind))
        assert all(by_family(kind)), "each module says what it has"


def test_learned_numbers_by_hand():
    assert learned_numbers("position", ALiBi()) == (0, 0)
    adaptive = registry.available("scaling")["adaptive"]()
    assert learned_numbers("scaling", adaptive) == (2 * 8 * (64 + 1), 0)
    assert learned_numbers("normalizer", registry.available("normalizer")["entmax_learned"]()) == (
        8,
        0,
    )


def test_a_bias_against_distance():
    about, by_head = against_distance(NAPE(), heads=4, length=6)
    assert about.startswith("bias")
    expected = -np.outer([1, 1 / 2, 0, 0], np.arange(6))
    np.testing.assert_allclose(by_head, expected, atol=1e-6)


def test_a_rotation_against_distance():
    """Σ over pairs of 2·cos(distance·frequency), over √d."""
    about, by_head = against_distance(RoPE(base=100.0), heads=2, length=5)
    assert about == "score of queries and keys of ones"
    frequencies = 100.0 ** (-np.arange(8) / 8)
    expected = [2 * np.cos(d * frequencies).sum() / 4 for d in range(5)]
    np.testing.assert_allclose(by_head, [expected, expected], rtol=1e-5)


@pytest.mark.parametrize("name", ["nope", "sinusoidal"])
def test_no_distance_is_an_error_of_one_line(name):
    with pytest.raises(ValueError, match=f"{name}: scores do not depend on distance"):
        against_distance(registry.available("position")[name](), 2, 5)


def test_distances_to_the_evidence():
    """A symbol is copied length + 1 positions later, the token that predicts it one earlier."""
    assert distances(Copy(), 20).tolist() == [20, 20, 20]


def test_shortcuts():
    """The last four tokens hold the answer of 2-back, and not that of 9-back; counts tell how often
    a symbol came when the last token is known, not else."""
    nothing, window, counts = SHORTCUTS.values()
    assert shortcut_accuracy(NBack(n=2, symbols=3), 12, window) > 85
    assert shortcut_accuracy(NBack(n=9, symbols=3), 24, window) < 60
    assert shortcut_accuracy(Copy(symbols=4), 8, nothing) == pytest.approx(25, abs=5)
    assert shortcut_accuracy(Copy(symbols=2), 3, counts) > 60
