"""Plots are written whole, in the format asked for; importing the package stays cheap."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lcg.results import plot
from lcg.results.aggregate import group_runs
from lcg.results.plot import method_styles
from lcg.runs.record import RunRecord

Make = Callable[..., RunRecord]


def varied(make: Make) -> list[RunRecord]:
    return [
        make({32: 1000, 64: 982, 128: 700, 256: "out_of_memory"}),
        make({32: 990, 64: 800, 128: "skipped"}, seed=1),
        make({32: 10, 64: 0, 128: 0}, position="nope", validation={32: (0.0, 0.0)}),
        make({32: 1000, 48: 1000, 64: "not_finite"}, task="sort", attention="entmax"),
        make(task="idle"),
    ]


def test_png(make: Make, tmp_path: Path) -> None:
    from matplotlib.image import imread

    target = plot(varied(make), tmp_path / "plots" / "accuracy.png")
    image = imread(target)
    assert image.shape[0] > 500
    assert image.shape[1] > 800
    assert image[..., :3].std() > 0.05, "not an empty page"
    assert list(target.parent.iterdir()) == [target], "no temporary file stays"


def test_svg_is_reproducible_and_names_every_method(make: Make, tmp_path: Path) -> None:
    target = plot(varied(make), str(tmp_path / "accuracy.SVG"))
    first = target.read_bytes()
    assert ElementTree.fromstring(first).tag.endswith("svg")
    assert plot(varied(make), target).read_bytes() == first
    text = first.decode()  # matplotlib writes each drawn text as a comment beside its glyphs
    for words in (
        "copy, trained at lengths 8–32",
        "softmax · nape",
        "softmax · nope (0/1\N{NO-BREAK SPACE}trained)",
        "training maximum 32",
        "a seed did not train",
        "out of memory",
        "not finite",
        "mean over seeds",
        "range over seeds",
    ):
        assert f"<!-- {words} -->" in text
    assert text.count("<!-- exact match (%) -->") == 3, "one panel per task"


def test_many_methods_and_lengths(make: Make, tmp_path: Path) -> None:
    lengths = [8, 24, 32, 40, 48, 64, 128, 256, 1024, 4096, 16384, 65536]
    records = [make(dict.fromkeys(lengths, 10 * i), attention=f"a{i}") for i in range(18)]
    text = plot(records, tmp_path / "many.svg").read_text()
    assert all(f"a{i} · nape" in text for i in range(18))
    assert "<!-- 32 -->" in text, "the training maximum keeps its label"
    assert "<!-- 48 -->" not in text, "crowded labels give way"


def looks(records: list[RunRecord], facet: str) -> dict[tuple[str, str], tuple[str, str, object]]:
    """Attention and position -> colour, marker and dashes."""
    groups = group_runs(records)
    styles = method_styles(groups, facet)
    return {
        (group.best.record.labels["attention"], group.best.record.labels["position"]): tuple(
            styles[group.name].values()
        )
        for group in groups
    }


def test_an_attention_looks_the_same_in_the_panels_of_all_positions(make: Make) -> None:
    """Also one that not every panel has, so that it has another place in each."""
    pairs = [("b", "nape"), ("c", "nape"), ("a", "rope"), ("b", "rope"), ("c", "rope")]
    found = looks([make(attention=a, position=p) for a, p in pairs], "position")
    for attention in "abc":
        assert len({look for (own, _), look in found.items() if own == attention}) == 1
    assert len(set(found.values())) == 3


def test_methods_that_outnumber_the_colours_share_them_by_attention(make: Make) -> None:
    """Five attentions with three position encodings: a colour each, dashes by position."""
    pairs = [(a, p) for a in "abcde" for p in ("alibi", "nape", "rope")]
    found = looks([make(attention=a, position=p) for a, p in pairs], "task")
    assert len({str(look) for look in found.values()}) == 15
    for attention in "abcde":
        own = [look for (name, _), look in found.items() if name == attention]
        assert len({look[:2] for look in own}) == 1
    few = looks([make(attention=a, position=p) for a, p in pairs[:6]], "task")
    assert len({look[0] for look in few.values()}) == 6, "where colours suffice, one for each"


@pytest.mark.parametrize("name", ["plot", "plot.gif"])
def test_other_formats_are_refused(make: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"use \.png, \.svg, \.pdf"):
        plot([make()], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_records(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no runs"):
        plot([], tmp_path / "none.png")


def test_import_is_light() -> None:
    script = (
        "import sys, lcg.results\n"
        "heavy = {'matplotlib', 'torch', 'lightning', 'numpy', 'wandb'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or None)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
