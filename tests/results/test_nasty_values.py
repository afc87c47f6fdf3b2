"""Whatever stands in a record or in provenance.json: read, or refused in one line, never more."""

import copy
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcg.cli import main
from lcg.config import ConfigError
from lcg.config.load import read_yaml
from lcg.results import table
from lcg.runs import checkpoints
from lcg.runs.files import exclusively
from lcg.runs.provenance import adopt_wandb_id, read_provenance
from lcg.runs.record import Cell, RecordError, RunRecord, Validation
from lcg.runs.run import check_folder
from lcg.tasks import text

NASTY = {
    "null": None,
    "true": True,
    "a list": [],
    "a list of lists": [[1]],
    "a mapping": {},
    "a number": 7,
    "zero": 0,
    "below zero": -1,
    "a huge number": 10**400,
    "a large number": 2**62,
    "a tiny fraction": 1e-320,
    "not a number": float("nan"),
    "infinity": float("inf"),
    "no text": "",
    "a text": "x",
    "half a character": "\ud800",
    "an escape": "\x1b[31mred\x07\u202e\r",
    "a long text": "y" * 3000,
}
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


def places(data: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values in JSON."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(items):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(data: Any, path: tuple, value: Any) -> Any:
    data = copy.deepcopy(data)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return data


@pytest.fixture
def whole(make) -> dict:
    record = make({32: 900, 64: "out_of_memory"}, validation={32: (1.0, 0.9), 64: (0.5, 0.7)})
    cell = Cell(128, 10, 1, step=2000, correct=1, token_accuracy=0.5, metrics={"bleu": 3.5})
    return record.merge([cell]).with_validation({96: Validation(None, None)}).to_dict() | {
        "fate": {"plateau_left_at": 300, "plateau_loss": 0.5, "scaler_p95": 20.0},
        "task": {"name": "copy", "symbols": 32},
    }


@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
def test_a_record_is_refused_or_can_be_shown(whole, make, tmp_path, value, capsys):
    other = make({32: 800}, attention="ssmax")
    for path in places(whole):
        (tmp_path / "results.json").write_text(json.dumps(changed(whole, path, value)))
        try:
            record = RunRecord.load(tmp_path)
        except RecordError as error:
            assert "\n" not in str(error) and "results.json: " in str(error), path
            continue
        text = table([record, other]) + table([record], "json") + table([record], "csv")
        text.encode()
        record.save(tmp_path)
        assert RunRecord.load(tmp_path) == record, path


@pytest.mark.parametrize("place", [("run",), ("labels", "attention"), ("ladder", 1, "reason")])
def test_nothing_reaches_a_terminal_that_it_would_obey(whole, make, tmp_path, capsys, place):
    (tmp_path / "run").mkdir()
    data = changed(whole, place, NASTY["an escape"])
    (tmp_path / "run" / "results.json").write_text(json.dumps(data))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.json").write_text(json.dumps({"schema": 1, "\x1b[2J": 1}))
    for command in ("table", "select"):
        assert main([command, str(tmp_path)]) == 0
        printed = capsys.readouterr()
        assert not OBEYED.search(printed.out + printed.err)
        assert "bad/results.json" in printed.err


@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
def test_provenance_is_read_without_invalid_values(tmp_path, value):
    whole = {
        "command": ["lcg"],
        "code": "abc",
        "identity": "abc",
        "git": {"commit": "abc", "dirty": False},
        "packages": {"lcg": "1"},
        "earlier_code": ["abc"],
        "wandb_id": "1",
        "wandb_ids": ["1"],
        "device_name": None,
    }
    for path in places(whole):
        (tmp_path / "provenance.json").write_text(json.dumps(changed(whole, path, value)))
        found = read_provenance(tmp_path)
        assert isinstance(found.get("identity", ""), str)
        adopt_wandb_id(tmp_path)
        if found:
            assert set(read_provenance(tmp_path)) >= set(found)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"a": ' * 5000 + b"1" + b"}" * 5000]
)
def test_files_that_are_nothing_of_the_kind(tmp_path, content):
    for name in ("provenance.json", "results.json"):
        (tmp_path / name).write_bytes(content)
    assert read_provenance(tmp_path) == {}
    with pytest.raises(RecordError, match=r"results\.json: "):
        RunRecord.load(tmp_path)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    names = ("config.yaml", "results.json", "provenance.json", "last.ckpt", ".lock", "origins.json")
    for name in names:
        os.mkfifo(tmp_path / name)
    with pytest.raises(RecordError, match="it is not a regular file"):
        RunRecord.load(tmp_path)
    with pytest.raises(ConfigError, match=r"config.yaml: cannot be read: it is not a regular file"):
        read_yaml(tmp_path / "config.yaml")
    with pytest.raises(checkpoints.UnreadableCheckpoint, match="it is not a regular file"):
        checkpoints.load(tmp_path / "last.ckpt")
    with pytest.raises(text.NoText, match="it is not a regular file"):
        text.read_text(tmp_path / "config.yaml")
    with pytest.raises(OSError, match="it is not a regular file"), exclusively(tmp_path / ".lock"):
        pass
    assert read_provenance(tmp_path) == {}
    checkpoints.set_aside(tmp_path, None)
    assert (tmp_path / "last.ckpt.damaged").exists()


@pytest.mark.parametrize("folder", ["/proc", "/sys/x", "/proc/self"])
def test_no_runs_among_the_system_s_own_files(folder):
    with pytest.raises(ValueError, match="where only the system creates files"):
        check_folder(f"runs={folder}", Path(folder))
