"""Records read back from a W&B project or W&B's files are those of the run directories."""

import json
import os
import shutil

import pytest
from processes import only_run

from lcg.cli import main
from lcg.runs.record import RecordError, RunRecord
from lcg.runs.wandb_reader import BLOCK, RECORD, records, with_wandb

LADDER = ("evaluation.after_training=true", "evaluation.lengths=4,8")


@pytest.fixture
def logged_in(environment, monkeypatch, tmp_path):
    """This process talks to the loopback server."""
    import wandb

    for name, value in environment.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


def a_record(seed: int, step: int = 30) -> RunRecord:
    labels = {"task": "copy", "attention": "softmax", "position": "nape"}
    return RunRecord.from_dict(
        {
            "schema": 1,
            "run": f"run-s{seed}",
            "hash": f"{seed:08d}",
            "group": "g",
            "labels": labels,
            "settings": {"seed": seed, "lr": 1e-3, "train_lengths": [2, 6]},
            "training": {"status": "finished", "step": step},
            "ladder": [
                {"length": 8, "samples": 10, "seed": 0, "step": step, "correct": seed % 11,
                 "token_accuracy": 0.5, "prefix": 0.5, "seconds": 0.1}
            ],
        }
    )  # fmt: skip


def put(server, name: str, record: RunRecord | str) -> None:
    text = record if isinstance(record, str) else json.dumps(record.to_dict())
    server.run(name).summary[RECORD] = text


def test_a_project_of_several_pages(server, logged_in):
    """More runs than a page has; one without a record, and one that was two W&B runs."""
    expected = [a_record(seed) for seed in range(60)]
    for record in expected:
        put(server, record.run, record)
    server.run("a run of somebody else").summary["loss"] = 1.0
    put(server, "before preemption", a_record(7, step=12))
    found = with_wandb([], ["someone/lcg"])
    assert sorted(found, key=lambda record: record.seed) == expected
    assert server.asked.count("Runs") == 2


def test_unreadable_records_are_named_and_the_rest_is_shown(server, logged_in):
    put(server, "good", a_record(0))
    put(server, "half", '{"schema": 1, "run":')
    put(server, "new", '{"schema": 99}')
    said = []
    assert with_wandb([], ["someone/lcg"], said.append) == [a_record(0)]
    assert [line.partition(":")[0] for line in said] == ["someone/lcg/half", "someone/lcg/new"]
    assert "schema 99" in said[1]
    with pytest.raises(RecordError, match=r"someone/lcg/half: .* \| someone/lcg/new: "):
        with_wandb([], ["someone/lcg"])


def test_directories_come_first(server, logged_in):
    put(server, "a", a_record(0))
    put(server, "b", a_record(1))
    evaluated_since = a_record(0, step=40)
    assert with_wandb([evaluated_since], ["someone/lcg"]) == [evaluated_since, a_record(1)]


@pytest.mark.parametrize(
    "place, said",
    [
        ("someone/lcg", "someone/lcg: no W&B run with a record"),
        ("a/b/c", "a/b/c: neither a W&B ENTITY/PROJECT nor an existing path"),
        ("lcg", "lcg: neither a W&B ENTITY/PROJECT nor an existing path"),
        (".", ".: no W&B run with a record"),
    ],
)
def test_a_place_without_records_is_one_line(server, logged_in, capsys, place, said):
    assert main(["table", "--wandb", place]) == 2
    assert said in capsys.readouterr().err


def test_a_table_needs_runs_from_somewhere(capsys):
    for command in ("table", "plot"):
        assert main([command]) == 2
        assert "name run directories, or a W&B project" in capsys.readouterr().err


def test_the_table_is_rebuilt_without_the_run_directory(
    server, lcg, words, tmp_path, logged_in, capsys
):
    """From the project, and from the folders of a run that was offline and was evaluated later."""
    assert lcg("train", *words(*LADDER)).code == 0
    offline = words(*LADDER, "wandb.mode=offline", f"runs={tmp_path / 'offline'}")
    assert lcg("train", *offline).code == 0
    run = only_run(tmp_path / "offline")
    assert lcg("eval", str(run), "lengths=16", "--device=cpu").code == 0
    assert len(list((run / "wandb").glob("offline-run-*"))) == 2

    def table(*words: str) -> str:
        capsys.readouterr()
        assert main(["table", *words, "--format=json"]) == 0
        return capsys.readouterr().out

    assert table("--wandb", "someone/lcg") == table(str(tmp_path / "runs"))
    from_directory = table(str(run))
    kept = tmp_path / "elsewhere"
    shutil.copytree(run / "wandb", kept)
    shutil.rmtree(run)
    assert table("--wandb", str(kept)) == from_directory
    folders = sorted(map(str, kept.glob("offline-run-*")))
    assert table("--wandb", folders[1]) == from_directory
    assert table("--wandb", folders[0]) != from_directory, "it was evaluated afterwards"
    assert main(["plot", "--wandb", str(kept), "-o", "picture.png"]) == 0
    assert os.path.getsize("picture.png") > 1000


def test_damaged_files_of_wandb(tmp_path):
    (tmp_path / "run-a.wandb").write_bytes(b"something else")
    (tmp_path / "run-b.wandb").write_bytes(b":W&B\0\0\0" + b"\0\0\0\0\x03\0\x01abc")
    (tmp_path / "run-c.wandb").write_bytes(b"")
    with pytest.raises(RecordError) as error:
        with_wandb([], [str(tmp_path)])
    for name in "abc":
        assert f"run-{name}.wandb: cannot be read" in str(error.value)


def log_of(texts: list[bytes]) -> bytes:
    """The naive writer of LevelDB's log, after W&B's header of 7 bytes; CRCs are left at 0."""
    data = bytearray(b":W&B\0\0\0")
    for text in texts:
        first = True
        while True:
            left = BLOCK - len(data) % BLOCK
            if left < 7:
                data += bytes(left)
                left = BLOCK
            part, text = text[: left - 7], text[left - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[
                first, not text
            ]
            data += bytes(4) + len(part).to_bytes(2, "little") + bytes([kind]) + part
            first = False
            if not text:
                break
    return bytes(data)


@pytest.mark.parametrize("ending", range(BLOCK - 7 - 7 - 16, BLOCK - 7 - 7 + 3))
def test_records_over_blocks(ending):
    """The second record starts at every place around the end of a block."""
    texts = [b"a" * ending, b"b" * 100, b"c" * (3 * BLOCK), b"d"]
    data = log_of(texts)
    assert list(records(data)) == texts
    assert list(records(data[:-1])) == texts[:-1]
    assert list(records(data[: len(log_of(texts[:1])) + 5])) == texts[:1]


def test_a_metric_of_runs_on_wandb(server, logged_in, capsys):
    put(server, "one", a_record(1))
    assert main(["table", "--wandb", "someone/lcg", "--metric", "token_accuracy"]) == 0
    assert "Token accuracy (%)" in (text := capsys.readouterr().out) and " 50.0 |" in text
    assert main(["table", "--wandb", "someone/lcg", "--metric", "bleu"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("no run has it; the runs have exact_match, token_accuracy, prefix\n")
