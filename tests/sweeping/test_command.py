"""`lcg sweep` as it is called: what it refuses, what it lists, one real run, and --wandb."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sweeping.tiny_sweeps import configs, outcome, sweep_file

from lcg.cli import main
from lcg.sweeping import estimate, read_sweep
from lcg.training.estimate import Projection, Timing


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run the command in this process, in an empty folder; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["sweep", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


MISTAKES = {
    "": "the following arguments are required: file",
    "nowhere.yaml": "there is no sweep file nowhere.yaml",
    "quick_copi": "did you mean quick_copy?",
    "lr_bracket --worker=2": "worker is not an option",
    "lr_bracket --workers=0": "workers must be at least 1, got 0",
    "lr_bracket --workers=x": "argument --workers: invalid int value",
    "lr_bracket seed": "'seed' is not of the form key=value",
    "lr_bracket trainer.step=3": "trainer.step is not an option; did you mean trainer.steps?",
    "lr_bracket --wandb": "--wandb needs W&B: ",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(words, call, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    code, out, err = call(*words.split())
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert MISTAKES[words] in err
    assert list(tmp_path.iterdir()) == []


def test_the_launcher_does_without_torch():
    """It lives for days beside its workers, and its mistakes are answered at once."""
    code = (
        "import sys; from lcg.sweeping import read_sweep, launcher, state\n"
        "from lcg.sweeping.file import combinations\n"
        "sweep = read_sweep('quick_factorial')\n"
        "[state.find_run(sweep.words(chosen)) for chosen in combinations(sweep)[:3]]\n"
        "heavy = {'torch', 'lightning', 'wandb', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.fixture
def tiny(tmp_path) -> str:
    return str(sweep_file(tmp_path, {"seed": [0, 1]}))


def test_a_real_run(tiny, call, tmp_path):
    """Trained, evaluated, found by `lcg table`, and skipped the next time."""
    code, out, err = call(tiny, "seed=1")
    assert code == 0, err
    (name,) = outcome(tmp_path / "runs")
    assert f"{name}: started" in err and f"{name}: finished, val/len_8/exact_match " in err
    assert out.startswith("1 finished\nbest: none, val/len_8/exact_match is 0 in")
    assert out.endswith("next: lcg table runs\n")
    (study,) = (tmp_path / "runs" / "sweeps").iterdir()
    assert {p.name for p in study.iterdir()} >= {"study.db", "sweep.yaml", "logs"}
    assert words_of(read_sweep(study / "sweep.yaml")) == words_of(read_sweep(tiny, ["seed=1"]))
    assert [p.stem for p in (study / "logs").iterdir()] == [name]
    code, out, _ = call(tiny, "seed=1")  # it is there already
    assert code == 0 and out.startswith("0 finished, 1 skipped\n")


def test_paths_can_be_pasted_into_a_shell(tmp_path, call, monkeypatch):
    """The runs' folder has a blank in it; what no run reached is not called best."""
    file = sweep_file(tmp_path, {"seed": [0]})
    code, out, err = call(str(file), "runs=my runs")
    assert code == 0, err
    (folder,) = (tmp_path / "my runs" / "sweeps").iterdir()
    (name,) = outcome(tmp_path / "my runs")
    study = f"study: 'my runs/sweeps/{folder.name}'\n"
    assert study in out and study in err
    assert f"'my runs/{name}'" in out
    assert out.endswith("next: lcg table 'my runs'\n")
    assert f"{name}: started (seed=0)\n" in err
    assert "best: none, val/len_8/exact_match is 0 in every run; token" in out


def words_of(sweep) -> list[list[str]]:
    """The runs of a grid, whatever the order of their words."""
    return sorted(sorted(words) for words in configs(sweep))


def fake_timing(seconds: float, kinds: int | None = None):
    """Timings of runs that take so long, with 4 s to start; of the first kinds alone."""

    def time_runs(runs, environment):
        step = Timing(8, 8, 0.0, 20)
        found = Projection(1, 1, 2, step, {4: Timing(8, 8, seconds, 1)}, startup=4.0)
        return [found for _ in runs][:kinds]

    return time_runs


def test_dry_run(tiny, call, tmp_path, monkeypatch):
    """Each run with how far it is; one timing for all that differ in seed and rate alone."""
    timed = []
    monkeypatch.setattr(
        estimate, "time_runs", lambda *asked: timed.append(asked) or fake_timing(96.0)(*asked)
    )
    written = set(tmp_path.rglob("*"))
    code, out, _ = call(tiny, "--dry-run", "--workers=2")
    assert code == 0
    (((words,), environment),) = timed
    assert "trainer.threads=1" in words and environment["OMP_NUM_THREADS"]
    assert out.count("  new\n") == 2
    assert "copy · softmax · nape: 2 of 2 runs left, 100 s each; timed with 8 of 8 sequences" in out
    assert "together 100 s with 2 workers (3.3 min one after another)" in out
    assert set(tmp_path.rglob("*")) == written


def test_kinds_with_equal_choices_have_different_labels(tmp_path, call, monkeypatch):
    """By what the sweep varies in them; neither by seeds and rates nor by what is common."""
    varied = {
        "seed": [0, 1],
        "optimizer.lr": [0.01],
        "model.block": ["prenorm", "gemma2"],
        "attention": ["softmax", "entmax15"],
    }
    monkeypatch.setattr(estimate, "time_runs", fake_timing(96.0))
    code, out, _ = call(str(sweep_file(tmp_path, varied)), "--dry-run", "--workers=1")
    assert code == 0
    for attention in ("softmax", "entmax15"):
        for block in ("prenorm", "gemma2"):
            kind = f"  copy · {attention} · nape, block={block}: 2 of 2 runs left, 100 s each;"
            assert out.count(kind) == 1, out
    assert out.count("timed with 8 of 8 sequences in a step, 100 % of a validation\n") == 4


def test_the_runs_are_listed_before_they_are_timed(tiny, call, monkeypatch, capsys):
    listed = []

    def time_runs(runs, environment):
        listed.append(capsys.readouterr().out)
        return fake_timing(96.0)(runs, environment)

    monkeypatch.setattr(estimate, "time_runs", time_runs)
    assert call(tiny, "--dry-run")[0] == 0
    assert listed[0].count("  new\n") == 2


def test_kinds_that_were_not_timed_make_the_time_a_bound(call, monkeypatch):
    monkeypatch.setattr(estimate, "time_runs", fake_timing(96.0, kinds=1))
    code, out, _ = call("quick_factorial", "--dry-run", "--workers=1")
    assert code == 0
    assert out.count("6 of 6 runs left, 100 s each") == 1
    assert out.count("6 of 6 runs left, not timed\n") == 9
    assert "together more than 10 min with 1 worker (" in out


def test_dry_run_of_a_sweep_that_draws(call, monkeypatch):
    """The time of as many runs as it will draw, from a few examples."""
    monkeypatch.setattr(estimate, "time_runs", fake_timing(56.0))
    code, out, _ = call("lr_bracket", "--dry-run", "--workers=1")
    assert code == 0 and out.count("  new\n") == estimate.EXAMPLES
    assert "method bayes, 16 draws, about 16 different runs; 5 examples:" in out
    assert f"together {16 * 60 // 60} min with 1 worker (" in out


def test_draws_that_repeat_are_one_run(call, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "time_runs", fake_timing(56.0))
    file = sweep_file(tmp_path, {"seed": [0, 1, 2]}, method="random", run_cap=40)
    code, out, _ = call(str(file), "--dry-run", "--workers=1")
    assert code == 0 and out.count("  new\n") == 3
    assert "method random, 40 draws, about 3 different runs; 3 examples:" in out
    assert "together 3 min with 1 worker (" in out


@pytest.mark.slow
def test_a_real_timing(tiny, call):
    code, out, err = call(tiny, "--dry-run", "--workers=1")
    assert code == 0, err
    assert "2 of 2 runs left, " in out and "together " in out


def test_registering_with_wandb(call, monkeypatch, tmp_path):
    """W&B is given the overrides too, and the agent's command is printed."""
    import wandb

    given = {}

    def register(content, entity, project):
        given.update(content=content, entity=entity, project=project)
        return "abc123"

    monkeypatch.setattr("lcg.runs.wandb_logger.choose_mode", lambda requested: ("online", ""))
    monkeypatch.setattr(wandb, "sweep", register)
    words = ("quick_factorial", "--wandb", "wandb.entity=me", "wandb.project=mine", "seed=7")
    code, out, _ = call(*words)
    assert (code, out) == (0, "wandb agent me/mine/abc123\n")
    assert (given["entity"], given["project"]) == ("me", "mine")
    file = tmp_path / "registered.yaml"
    file.write_text(yaml.safe_dump(given["content"]))
    handed_out = read_sweep(file)
    assert handed_out.parameters["seed"].texts == ("7",)
    assert words_of(handed_out) == words_of(read_sweep("quick_factorial", [*words[2:]]))
    json.dumps(given["content"])
    assert not Path("runs").exists()
