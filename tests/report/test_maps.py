"""Attention maps: which heads, which length, what a square shows, and what is said without any."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from lcg.config import load_config
from lcg.diagnostics.columns import attention_layers, head_text
from lcg.report import MapChoice, find, make, parse_heads
from lcg.report.maps import default_heads


def words(svg: str) -> list[str]:
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()).strip() for text in texts]


def test_heads_are_read() -> None:
    assert parse_heads("0:3, 1:0,0:3") == ((0, 3), (1, 0))


@pytest.mark.parametrize("text", ["", "3", "0:", ":1", "0:x", "0:1,", "-1:0", "0;1"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="LAYER:HEAD, such as 0:3"):
        parse_heads(text)


@pytest.mark.parametrize(
    ("layers", "scaled", "expected"),
    [
        (4, range(4, 8), ((0, 0), (0, 4), (3, 0), (3, 4))),
        (4, range(8), ((0, 0), (3, 0))),
        (1, range(4, 8), ((0, 0), (0, 4))),
        (2, range(8, 8), ((0, 0), (1, 0))),
    ],
)
def test_default_heads_are_one_of_each_group(layers: int, scaled: range, expected: tuple) -> None:
    assert default_heads(layers, 8, scaled) == expected


def test_maps_of_a_trained_run(trained: Path, made) -> None:
    report = make(find([trained]), "lcg report", made, MapChoice())
    drawing = next(d for d in report.drawings if d.name.endswith("-maps"))
    shown = words(drawing.svg)
    assert [text for text in shown if text.startswith(("layer", "scaled"))] == [
        "layer 0, head 0, ALiBi slope 1",
        *("layer 0, head 1, no position,", "scaled"),
        "layer 1, head 0, ALiBi slope 1",
        *("layer 1, head 1, no position,", "scaled"),
    ]
    assert " Scaled: the length scaling multiplies these heads' queries." in drawing.caption
    assert "first test sample of length 6 (" in drawing.caption, "the longest training length"
    assert drawing.svg.count("<image") == 5, "four heads and the colour bar"
    again = make(find([trained]), "lcg report", made, MapChoice())
    assert again.html == report.html


def test_chosen_heads_and_length(trained: Path, made) -> None:
    report = make(find([trained]), "lcg report", made, MapChoice(7, ((1, 1),)))
    drawing = next(d for d in report.drawings if d.name.endswith("-maps"))
    titles = [text for text in words(drawing.svg) if text.startswith("layer")]
    assert titles == ["layer 1, head 1, no position,"], "and scaled in the next line"
    assert "of length 7 (" in drawing.caption


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ("softmax nape", ("head 0, ALiBi slope 1", "head 2, no position")),
        ("asentmax nape", ("head 0, ALiBi slope 1", "head 2, no position, scaled")),
        ("asentmax alibi", ("head 0, ALiBi slope 0.25", "head 2, ALiBi slope 0.0156")),
        ("asentmax rope", ("head 0", "head 2")),
    ],
)
def test_heads_are_named_by_what_they_have(choices: str, expected: tuple[str, str]) -> None:
    attention, position = choices.split()
    config = load_config(
        ["task=copy", f"attention={attention}", f"position={position}", "model.heads=4"]
    )
    layer = attention_layers(config)[0]
    assert tuple(head_text(config, layer, head) for head in (0, 2)) == expected


def test_maps_that_cannot_be_drawn_are_a_note(trained: Path, folder: Path, made) -> None:
    absent = make(find([trained]), "lcg report", made, MapChoice(None, ((2, 0), (0, 9))))
    assert "the model has no head 2:0, 0:9" in absent.html
    assert not any(d.name.endswith("-maps") for d in absent.drawings)
    without = make(find([folder]), "lcg report", made, MapChoice())
    assert "copy-softmax-nape-s0-lr0.001 has no selected checkpoint" in without.html
    impossible = make(find([trained]), "lcg report", made, MapChoice(10**6))
    assert "no attention maps, the weights of" in impossible.html


def test_a_damaged_checkpoint_is_a_note(trained: Path, tmp_path: Path, made) -> None:
    import shutil

    copy = shutil.copytree(trained, tmp_path / "run")
    for checkpoint in (copy / "checkpoints").glob("*.ckpt"):
        checkpoint.write_bytes(b"not a checkpoint")
    report = make(find([copy]), "lcg report", made, MapChoice())
    assert "no attention maps" in report.html
    assert "best.ckpt" in report.html
