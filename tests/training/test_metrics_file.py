"""metrics.csv: appended to, complete after any interruption, nothing twice."""

import pytest

from lcg.diagnostics.columns import columns
from lcg.runs.metrics import CSVMetrics, Tracking

COLUMNS = ["a", "b"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def write(path, rows, resume_step=0, columns=COLUMNS):
    table = CSVMetrics(path, columns, resume_step)
    for step, values in rows:
        table.log(step, values)
    table.close()


def test_rows_are_on_disk_at_once(path):
    table = CSVMetrics(path, COLUMNS, 0)
    table.log(5, {"a": 1.5})
    assert path.read_text() == "step,a,b\n5,1.5,\n"
    table.log(5, {"b": 0.25, "unknown": 3})
    assert path.read_text().endswith("5,1.5,\n5,,0.25\n")
    table.close()


def test_resuming_drops_rows_that_will_be_written_again(path):
    write(path, [(5, {"a": 1}), (10, {"a": 2}), (10, {"b": 3}), (15, {"a": 4})])
    write(path, [(15, {"a": 5})], resume_step=10)
    assert path.read_text().split() == ["step,a,b", "5,1,", "10,2,", "10,,3", "15,5,"]


def test_starting_over_drops_everything(path):
    write(path, [(0, {"a": 7}), (5, {"a": 1})])
    write(path, [])
    assert path.read_text().split() == ["step,a,b"]


@pytest.mark.parametrize("cut", range(1, 9))
def test_half_a_row_is_dropped(path, cut):
    """Also where it looks whole: a number that lost its last digits is another number."""
    write(path, [(5, {"a": 1, "b": 22}), (10, {"a": 3, "b": 12.5})])
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    write(path, [], resume_step=10)
    assert path.read_text().split() == ["step,a,b", "5,1,22"]


def test_garbage_is_dropped(path):
    path.write_bytes(b"step,a,b\r\n5,1,2\r\n\xff\xfe,2,3\r\nten,1,2\r\n6,1\r\n7,1,2,3\r\n8,1,2\r\n")
    write(path, [], resume_step=10)
    assert path.read_text().split() == ["step,a,b", "5,1,2", "8,1,2"]


def test_columns_that_are_asked_for_no_more_are_kept(path):
    """Other validation lengths do not make another run."""
    write(path, [(5, {"a": 1, "b": 2})])
    write(path, [(10, {"c": 3})], resume_step=5, columns=["a", "c"])
    assert path.read_text().split() == ["step,a,c,b", "5,1,,2", "10,,3,"]


def test_columns_of_a_run(config):
    assert columns(config("attention=asentmax")) == [
        "train/loss",
        "train/lr",
        "train/grad_norm",
        "train/tokens_per_second",
        "train/steps_per_second",
        "train/seconds",
        "val/len_4/exact_match",
        "val/len_4/token_accuracy",
        "val/len_8/exact_match",
        "val/len_8/token_accuracy",
        "grad_norm/embedding",
        "grad_norm/attention",
        "grad_norm/scaling",
        "grad_norm/mlp",
        "grad_norm/norm",
        "grad_norm/head",
        "heads/layer_0/unscaled/support",
        "heads/layer_0/unscaled/max_weight",
        "heads/layer_0/scaled/support",
        "heads/layer_0/scaled/max_weight",
        "scaler/layer_0/p5",
        "scaler/layer_0/p50",
        "scaler/layer_0/p95",
        "scaler/layer_0/max",
    ]


def test_tracking_reaches_every_place():
    class Place:
        def __init__(self):
            self.seen = []

        def log(self, *words):
            self.seen.append(words)

        def summarize(self, values):
            self.seen.append(values)

        def close(self, exit_code):
            self.seen.append(exit_code)

    tracking, places = Tracking(), [Place(), Place()]
    tracking.places += places
    tracking.log(3, {"a": 1})
    tracking.summarize({"b": 2})
    tracking.close(4)
    tracking.close(5)  # a second time it has nobody to tell
    assert [place.seen for place in places] == [[(3, {"a": 1}), {"b": 2}, 4]] * 2
