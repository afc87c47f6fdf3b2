"""Train, evaluate, tabulate and plot a run of a second; what goes to stdout and what does not."""

import csv
import fcntl
import json
import signal
from pathlib import Path

import pytest
from processes import wait_until


def results(directory: str) -> dict:
    return json.loads((Path(directory) / "results.json").read_text())


@pytest.fixture
def run(call, tiny) -> str:
    """A finished run that has not been evaluated."""
    code, out, _ = call("train", *tiny("evaluation.after_training=false"))
    assert code == 0
    return out.strip()


def test_train_prints_the_run_directory_and_nothing_else(call, tiny, here):
    code, out, err = call("train", "task=copy", *tiny("seed=3", "position=rope"))
    assert code == 0
    directory = out.removesuffix("\n")
    assert "\n" not in directory
    assert directory.startswith("runs/copy-softmax-rope-s3-")
    assert {p.name for p in (here / directory).iterdir()} >= {
        "config.yaml",
        "provenance.json",
        "metrics.csv",
        "results.json",
        "checkpoints",
    }
    assert [cell["length"] for cell in results(directory)["ladder"]] == [4, 8]
    for length in ("4", "8"):
        (line,) = [line for line in err.splitlines() if line.split()[:1] == [length]]
        assert "exact match" in line
        assert "%" in line


def test_the_same_command_again_trains_nothing(call, tiny, here):
    _, first, _ = call("train", *tiny())
    stamp = (here / first.strip() / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    code, second, err = call("train", *reversed(tiny()))
    assert (code, second) == (0, first)
    assert "is finished, 6 steps" in err
    assert (here / first.strip() / "checkpoints" / "last.ckpt").stat().st_mtime_ns == stamp


def test_options_without_effect_are_warnings(call, tiny, timed_by_a_fork):
    words = tiny("data.min_length=4", "data.lengths_per=batch", "optimizer.warmup_steps=6")
    code, _, err = call("train", *words, "--dry-run")
    assert code == 0
    assert "note: data.lengths_per=batch has no effect" in err
    assert "note: the learning rate never reaches optimizer.lr=0.001" in err


def test_eval_at_more_lengths(call, run):
    code, out, err = call("eval", run, "lengths=4,16", "evaluation.samples=32", "--device=cpu")
    assert (code, out) == (0, "")
    assert "test ladder, 32 samples per length" in err
    cells = {(c["length"], c["samples"]): c["correct"] for c in results(run)["ladder"]}
    assert set(cells) == {(4, 32), (16, 32)}
    call("eval", "lengths=8", run)  # words in any order; the other results stay
    lengths = {c["length"] for c in results(run)["ladder"]}
    assert lengths == {4, 8, 16}


def test_eval_fills_in_the_outcomes_that_older_results_lack(call, run):
    call("eval", run, "lengths=4,8")
    whole = results(run)
    first, second = whole["ladder"]
    bare = {key: value for key, value in first.items() if key != "outcomes"}
    older = json.dumps(whole | {"ladder": [bare, second]})
    (Path(run) / "results.json").write_text(older)
    call("eval", run, "lengths=4,8")
    again, kept = results(run)["ladder"]
    assert again["outcomes"] == first["outcomes"]
    assert kept == second, "what has them is not evaluated again"


def test_eval_does_not_try_again_what_was_not_finite(call, run):
    call("eval", run, "lengths=4")
    whole = results(run)
    gone = {"correct", "outcomes", "token_accuracy", "prefix", "close_calls"}
    cell = {key: value for key, value in whole["ladder"][0].items() if key not in gone}
    cell |= {"state": "not_finite", "reason": "the model's logits are not finite"}
    (Path(run) / "results.json").write_text(json.dumps(whole | {"ladder": [cell]}))
    call("eval", run, f"lengths={cell['length']}")
    assert [c["state"] for c in results(run)["ladder"]] == ["not_finite"]


def test_eval_of_two_runs_checks_both_first(call, run):
    code, _, err = call("eval", run, "nowhere", "lengths=4")
    assert code == 2
    assert "nowhere does not exist" in err
    assert results(run)["ladder"] == []


def test_eval_on_a_device_that_is_not_there(call, run):
    code, _, err = call("eval", run, "--device", "warp9")
    assert code == 2
    assert "--device warp9 cannot be used" in err.splitlines()[-1]


def test_a_run_whose_path_has_an_equals_sign(call, tiny):
    _, out, _ = call("train", *tiny("runs=lr=0.001", "evaluation.after_training=false"))
    code, _, err = call("eval", out.strip(), "lengths=4")
    assert code == 0, err
    assert [c["length"] for c in results(out.strip())["ladder"]] == [4]


def test_table_and_plot(call, tiny, here):
    _, run, _ = call("train", *tiny())
    run = run.strip()
    code, out, _ = call("table", run)
    assert code == 0
    assert "copy" in out
    assert "|" in out
    code, out, err = call("table", "--format=csv", "runs", "-o", "all.csv")
    assert (code, out, err) == (0, "", "wrote all.csv\n")
    rows = list(csv.DictReader((here / "all.csv").open()))
    assert [row["length"] for row in rows] == ["4", "8"]
    code, out, _ = call("plot", run)
    assert code == 0
    assert Path(out.strip()) == Path(run) / "plots" / "accuracy_vs_length.png"
    assert (here / out.strip()).stat().st_size > 1000
    code, out, _ = call("plot", "-o", "picture.svg", run)
    assert out == "picture.svg\n"
    assert (here / "picture.svg").read_text().startswith("<?xml")


def test_demo(call, tiny, here):
    """The whole demo, made tiny by words laid over both of its runs."""
    code, out, err = call("demo", *tiny("validation.monitor=8"))
    assert code == 0, err
    assert "softmax" in out
    assert "asentmax" in out
    assert (here / "runs" / "accuracy_vs_length.png").is_file()
    runs = [p.name for p in (here / "runs").iterdir() if p.is_dir()]
    assert sorted(name.split("-")[1] for name in runs) == ["asentmax", "softmax"]


# ---- exit codes


def test_busy_is_3(call, tiny, here):
    (here / "runs" / "mine").mkdir(parents=True)
    with (here / "runs" / "mine" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, out, err = call("train", *tiny("name=mine"))
    assert (code, out) == (3, "")
    assert "runs/mine is being trained by" in err


def test_not_finite_is_4(call, tiny):
    code, out, err = call("train", *tiny("optimizer.lr=1e6", "optimizer.weight_decay=1e6"))
    assert code == 4
    assert results(out.strip())["training"]["status"] == "not_finite"
    assert "not finite" in err.splitlines()[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_is_128_and_the_signal(number, code, here, tiny, fork_server):
    words = tiny("trainer.steps=100000", "name=mine")
    child = fork_server.start("train", *words, folder=here)
    metrics = here / "runs" / "mine" / "metrics.csv"
    written = lambda: metrics.exists() and metrics.read_text().count("\n") > 1  # noqa: E731
    wait_until(lambda: written() or child.poll() is not None)
    child.signal(number)
    assert child.wait() == code, child.err
    assert child.out == "runs/mine\n"
    assert "the same command resumes from there" in child.err
    assert results("runs/mine")["training"]["status"] == "interrupted"
    assert (here / "runs" / "mine" / "checkpoints" / "last.ckpt").is_file()


def test_a_closed_pipe_is_not_an_error(process):
    program = (
        "import subprocess, sys;"
        "child = subprocess.Popen([sys.executable, '-m', 'lcg', 'train', '--help'],"
        " stdout=subprocess.PIPE, stderr=subprocess.PIPE);"
        "child.stdout.close();"
        "print(child.stderr.read().decode(), child.wait())"
    )
    assert process("-c", program).stdout.split() == ["0"]
