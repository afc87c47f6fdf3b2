"""Attention maps: zero is white, the future grey, tokens stand at the axes where they fit."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lcg.diagnostics.plots import FUTURE, MOST_NAMED, Map, draw_maps, palette, scale, tokens_of


def colour(weight: float, top: float = 1.0) -> str:
    (shown,) = palette()(scale(top)(np.ma.masked_invalid([weight])))
    return to_hex(shown)


@pytest.mark.parametrize("top", [1.0, 0.02])
def test_zero_is_white_and_more_is_darker(top: float) -> None:
    assert colour(0.0, top) == "#ffffff"
    assert colour(float("nan"), top) == FUTURE
    lightness = [sum(palette()(scale(top)(share * top))[:3]) for share in (1e-6, 0.1, 0.5, 1.0)]
    assert lightness == sorted(lightness, reverse=True)
    assert lightness[0] < 3, "the smallest weight above 0 is not white"


def axis_labels(count: int) -> tuple[list[str], list[str]]:
    tokens = [f"t{i}" for i in range(count)]
    drawn = Map("head 0", np.tri(count, dtype=np.float32), "causal", tokens, tokens, scored=1)
    panel = draw_maps([drawn], "one", 2, 2.0).axes[0]
    return [
        [label.get_text() for label in axis.get_ticklabels()] for axis in (panel.xaxis, panel.yaxis)
    ]


def test_tokens_stand_at_the_axes_where_they_fit() -> None:
    assert axis_labels(5) == [[f"t{i}" for i in range(5)]] * 2
    for labels in axis_labels(MOST_NAMED + 1):
        assert not any(label.startswith("t") for label in labels)


@pytest.mark.parametrize("count", [3, MOST_NAMED, MOST_NAMED + 30])
def test_ticks_stand_at_the_middle_of_cells(count: int) -> None:
    tokens = [f"t{i}" for i in range(count)]
    drawn = Map("head 0", np.eye(count, dtype=np.float32), "full", tokens, tokens, scored=2)
    panel = draw_maps([drawn], "one", 2, 2.0).axes[0]
    left, right, bottom, top = panel.images[0].get_extent()
    assert (left, right, bottom, top) == (-0.5, count - 0.5, count - 0.5, -0.5)
    inside = [tick for tick in panel.get_yticks() if 0 <= tick < count]
    assert inside and all(tick == int(tick) for tick in inside)
    assert set(panel.lines[0].get_ydata()) == {1.5}, "above the first scored query"


def test_a_long_title_stays_above_its_own_map() -> None:
    weights = np.eye(3, dtype=np.float32)
    title = "encoder 0, head 4, ALiBi slope 0.333, scaled"
    figure = draw_maps([Map(title, weights, "full", "abc", "abc")] * 2, "two", 2, 2.1)
    figure.draw_without_rendering()
    first, second = (panel._left_title.get_window_extent() for panel in figure.axes[:2])
    assert first.x1 < second.x0


@pytest.mark.parametrize("count", [1, 4, 8])
def test_the_title_stands_above_those_of_the_maps(count: int) -> None:
    tokens = ["<bos>", *(str(i) for i in range(16))]
    weights = np.tri(17, dtype=np.float32)
    maps = [
        Map(f"head {i}, ALiBi slope 1", weights, "causal", tokens, tokens) for i in range(count)
    ]
    figure = draw_maps(maps, "entmax15 · nape: layer 0, length 16, sample 0", 4, 2.7)
    figure.draw_without_rendering()
    highest = max(panel._left_title.get_window_extent().y1 for panel in figure.axes[:count])
    assert figure._suptitle.get_window_extent().y0 > highest


def test_the_tokens_of_a_layer() -> None:
    inputs, source = ["a", "b"], ["x"]
    assert tokens_of("layer_0", inputs, source) == (inputs, inputs)
    assert tokens_of("decoder_1", inputs, source) == (inputs, inputs)
    assert tokens_of("encoder_0", inputs, source) == (source, source)
    assert tokens_of("cross_2", inputs, source) == (inputs, source)


def test_every_map_has_a_panel_and_one_bar() -> None:
    weights = np.full((4, 4), 0.25, dtype=np.float32)
    maps = [Map(f"head {i}", weights, "full", "abcd", "abcd") for i in range(5)]
    figure = draw_maps(maps, "five", 4, 2.0)
    assert [panel.get_title(loc="left") for panel in figure.axes[:5]] == [m.title for m in maps]
    assert figure.axes[-1].get_xlabel() == "weight, square-root scale (white: exactly 0)"


def test_only_blocks_of_the_future_alone_are_grey() -> None:
    weights = np.full((3, 3), 0.25, dtype=np.float32)
    for kind in ("causal", "full"):
        drawn = Map("head 0", weights, kind, [""] * 8, [""] * 8)
        shown = draw_maps([drawn], "one", 2, 2.0).axes[0].images[0].get_array()
        assert (np.ma.getmaskarray(shown) == (kind == "causal") * ~np.tri(3, dtype=bool)).all()
