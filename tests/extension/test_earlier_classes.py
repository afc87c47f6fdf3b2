"""Classes that users wrote by the pages of an earlier version, whose texts are in `earlier/`: they
run as they are, or one line says what to rename.
"""

import runpy
from pathlib import Path

import pytest
from tiny import quick

from lcg.cli import main

FOLDER = Path(__file__).parent / "earlier"
TINY = quick(
    *(
        "data.batch_size=4",
        "data.min_length=8",
        "data.max_length=9",
        "validation.lengths=8",
        "evaluation.lengths=8",
    ),
    "trainer.steps=2",
)

STILL_RUN = [
    "task={}/rotate.py:Rotate",
    "task={}/mqar.py:MQAR",
    "task={}/members.py:Counted",
    "attention={}/quiet_softmax.py:QuietSoftmax",
    "position={}/members.py:Numbered",
    "attention={{output_norm: {}/members.py:Plain}}",
]
TOLD = {
    "position={}/kerple.py:Kerple": "Kerple.bias(): {}/kerple.py:35: AttributeError: a Tile has no "
    "q_positions; q_positions[:, None] is q_ids now, and q_ids - k_ids is distance",
    "position={}/members.py:Turned": "Turned.rotate_queries(self, q, positions) must take "
    "(self, q, ids, learned)",
    "position={}/members.py:Gate": "Gate.data_dependent is no longer needed: remove it; a bias "
    "that depends on x reads a `state`",
    "position={}/members.py:Reads": "a Tile has no x; declare a `state` of x",
    "attention={{output_norm: {}/members.py:Scaled}}": "Scaled.learned takes sizes (sizes.width, "
    "sizes.d_model, …) in the place of width",
    "task={}/members.py:Ragged": "Ragged.ragged is now variable_length: rename it",
    "task={}/members.py:Remarked": "Remarked.remarks is now warnings: rename it",
    "task={}/members.py:Placed": "Placed.places is now path_fields: rename it",
}


def slow(choice):
    return pytest.param(choice, marks=pytest.mark.slow)


@pytest.mark.parametrize("choice", STILL_RUN)
def test_earlier_classes_that_run_unchanged(choice, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", choice.format(FOLDER), *TINY]) == 0, capsys.readouterr()


@pytest.mark.parametrize("choice", [*STILL_RUN[:1], *map(slow, STILL_RUN[1:])])
def test_what_has_the_properties_that_are_checked(choice, capsys):
    assert main(["check", choice.format(FOLDER)]) == 0, capsys.readouterr()


@pytest.mark.parametrize("choice", TOLD)
def test_messages_about_renamed_members(choice, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", choice.format(FOLDER), *TINY]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("lcg: ") and TOLD[choice].format(FOLDER) in line


@pytest.mark.parametrize("choice", [*map(slow, list(TOLD)[:-1]), list(TOLD)[-1]])
def test_messages_of_a_check(choice, capsys):
    assert main(["check", choice.format(FOLDER)]) == 2
    captured = capsys.readouterr()
    assert TOLD[choice].format(FOLDER) in captured.out + captured.err


def test_imports_of_earlier_pages_are_explained():
    with pytest.raises(ImportError, match=r"^BiasContext is now Tile\(q_ids, k_ids, q, k\)"):
        runpy.run_path(str(FOLDER / "formula_of_kerple.py"))
