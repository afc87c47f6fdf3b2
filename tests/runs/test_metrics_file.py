"""metrics.csv: read row by row, thinned while it is read, and whole rows alone count."""

import tracemalloc

import pytest

from lcg.runs.metrics import EXACT, MetricsReader, read_curves


@pytest.fixture
def file(tmp_path):
    return tmp_path / "metrics.csv"


def test_appended_rows_are_read_once(file):
    file.write_text("step,a\n1,x\n2,y\n3,")
    reader = MetricsReader(file)
    assert list(reader.rows()) == [(1, {"step": "1", "a": "x"}), (2, {"step": "2", "a": "y"})]
    assert list(reader.rows()) == []
    with file.open("a") as more:
        more.write("z\n4,w\n")
    assert list(reader.rows()) == [(3, {"step": "3", "a": "z"}), (4, {"step": "4", "a": "w"})]
    assert reader.columns == ["step", "a"]


DAMAGE = {
    "nul bytes": b"\0\0\0\0",
    "no text": b"\xff\xfe,\xff",
    "an open quote": b'7,"half',
    "too few cells": b"7",
    "too many cells": b"7,8,9",
    "no step": b"x,1",
    "a step of a power": "²,1".encode(),
    "a step of 400 digits": b"9" * 400 + b",1",
    "a step below 0": b"-7,1",
    "a very long line": b"7," + b"1" * 3_000_000,
    "nothing": b"",
    "a value that no picture has room for": b"7,1e308",
    "a value that is not finite": b"7,-inf",
}


@pytest.mark.parametrize("line", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_line_costs_that_line(file, line):
    file.write_bytes(b"step,a\n1,0.5\n" + line + b"\n2,0.25\n")
    assert read_curves(file) == {"a": ([1, 2], [0.5, 0.25])}


@pytest.mark.parametrize("content", [b"", b"\n", b"a,b\n1,2\n", b"\xff\n1\n", b"step\n1\n"])
def test_a_file_without_values_has_no_curves(file, content):
    file.write_bytes(content)
    assert read_curves(file) == {}


def test_without_a_readable_file_there_are_no_curves(file):
    assert read_curves(file) == {}
    file.mkdir()
    assert read_curves(file) == {}
    file.rmdir()
    file.symlink_to(file)
    assert read_curves(file) == {}


def test_up_to_a_number_every_point_is_kept(file):
    rows = EXACT - 1
    file.write_text("step,a\n" + "".join(f"{i},{i / 8}\n" for i in reversed(range(rows))))
    assert read_curves(file) == {"a": (list(range(rows)), [i / 8 for i in range(rows)])}


def test_a_long_file_is_thinned_while_it_is_read(file):
    """Neither the rows nor the points are ever all in memory, and the means are right."""
    rows = 34 * EXACT
    with file.open("w") as out:
        out.write("step,a,unwanted\n")
        out.writelines(f"{i},{i % 2},0.123456789\n" for i in range(rows))
    tracemalloc.start()
    curves = read_curves(file, lambda name: name == "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    steps, values = curves["a"]
    assert list(curves) == ["a"]
    assert EXACT / 2 < len(steps) < 2 * EXACT
    assert set(values) == {0.5}
    assert steps == sorted(steps) and steps[0] >= 0 and steps[-1] < rows
    assert peak < file.stat().st_size / 3
