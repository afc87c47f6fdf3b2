"""The pictures of head analyses name their runs, and stay readable with many."""

import torch

from lcg.diagnostics import plots
from lcg.diagnostics.heads import LayerHeads
from lcg.diagnostics.tables import Analysed


def some_runs(count, heads=4):
    rows = {name: torch.full((heads, 3), 0.5) for name in ("density", "null", "confidence")}
    rows |= {"offset": torch.zeros(heads, 3), "diversity": torch.full((1, 3), 0.5)}
    layer = LayerHeads("layer_0", "causal", list(range(heads)), rows, [1.5] * heads)
    return [
        Analysed("ABCDEFGH"[i], f"copy-s{i}", f"softmax · nape, seed={i}", [layer])
        for i in range(count)
    ]


def test_no_title_is_wider_than_a_figure_of_one_run(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "write_png", lambda figure, path, dpi: drawn.append(figure) or path)
    plots.draw_analyses(some_runs(1, heads=2), 64, tmp_path)
    assert len(drawn) == 4, "three that there always are, and the histogram of α"
    for figure in drawn:
        figure.draw_without_rendering()
        box = figure._suptitle.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def titles_of(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_every_run_has_a_panel_with_its_label():
    for draw in (plots._diversity, plots._histogram, plots._density):
        figure = draw(some_runs(3))
        assert titles_of(figure) == [f"softmax · nape, seed={i}" for i in range(3)]
        assert not figure.legends and not any(axes.get_legend() for axes in figure.axes)


def test_many_runs_go_to_further_rows():
    for draw in (plots._positional, plots._density, plots._diversity):
        figure = draw(some_runs(8))
        assert figure.get_figwidth() <= plots.WIDEST + 1
        assert len(titles_of(figure)) == 8
