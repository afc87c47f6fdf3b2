"""The pictures of head analyses name their runs, and stay readable with many."""

import torch

from lcg.diagnostics import head_pictures
from lcg.diagnostics.analysis import LayerHeads
from lcg.diagnostics.side_by_side import Analysed


def some_runs(count, heads=4):
    offsets = torch.full((heads, 17), 1 / 17)
    each = [0.5] * heads
    layer = LayerHeads("layer_0", "causal", each, each, each, offsets, 0.5, 0.0, each)
    return [Analysed("ABCDEFGH"[i], f"copy-s{i}", "entmax_learned", [layer]) for i in range(count)]


def test_every_run_is_named():
    title = head_pictures._title("one", some_runs(2))
    assert title.split("\n") == ["one", "A  copy-s0: entmax_learned", "B  copy-s1: entmax_learned"]
    assert head_pictures._title("one", some_runs(1)) == "one"


def test_many_runs_go_to_further_rows():
    for draw in (head_pictures._positional, head_pictures._density):
        figure = draw(some_runs(8))
        assert figure.get_figwidth() <= head_pictures.WIDEST + 1
        titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
        assert len(titles) == 8
