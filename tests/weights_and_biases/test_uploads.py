"""`lcg` against a W&B server: what arrives there, also when a run is stopped or the server goes.

Seen with wandb 0.31, of a server that accepts connections and is silent: `finish` gives up after
finish_timeout, and shutting down takes wandb another 10 s, which nothing sets. An agent kills 30 s
after its stop request, so both together stay below 20 s.
"""

import json
import os
import signal
from contextlib import suppress

import pytest
from processes import at_step, metrics, only_run, record, wait_until

from lcg.runs import provenance, wandb_logger
from lcg.runs.record import RunRecord
from lcg.runs.wandb_reader import RECORD

LADDER = ("evaluation.after_training=true", "evaluation.lengths=4,8")

# Do something when a length of the test ladder is under way.
AT_LENGTH = """
import os, signal, time
import lcg.evaluation.evaluate as evaluation
evaluate_lengths = evaluation.evaluate_lengths
def watched(model, test_sets, **options):
    if [(s.length, s.split) for s in test_sets] == [({length}, "test")]:
        {action}
    yield from evaluate_lengths(model, test_sets, **options)
evaluation.evaluate_lengths = watched
"""
SIGTERM = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(10**6)"


def uploaded(server, run) -> RunRecord:
    """The record that the server has of a run directory."""
    name = provenance.read_provenance(run)["wandb_id"]
    return RunRecord.from_dict(json.loads(server.runs[name].summary[RECORD]))


def test_the_record_arrives_with_the_ladder_and_after_each_evaluation(server, lcg, words, tmp_path):
    process = lcg("train", *words(*LADDER))
    assert process.code == 0, process.err
    run = only_run(tmp_path / "runs")
    assert [cell.length for cell in uploaded(server, run).ladder] == [4, 8]
    assert uploaded(server, run) == RunRecord.load(run)
    (there,) = server.runs.values()
    assert there.exit_code == 0 and there.upserts > 0
    assert there.summary["status"] == "finished"

    before = there.upserts
    assert lcg("eval", str(run), "lengths=4", "--device=cpu").code == 0
    assert there.upserts == before, "nothing new, so nothing to send"
    process = lcg("eval", str(run), "lengths=12", "--device=cpu")
    assert process.code == 0, process.err
    assert list(server.runs) == [there.name]
    assert [cell.length for cell in uploaded(server, run).ladder] == [4, 8, 12]
    assert uploaded(server, run) == RunRecord.load(run)
    assert len(there.history) == 12, "an evaluation adds no row to the history of training"

    # The agent hands out a run that is finished here, under an id of its own.
    agent = {"WANDB_RUN_ID": "again", "WANDB_SWEEP_ID": "abcd1234"}
    process = lcg("train", *words(*LADDER), environment=agent)
    assert process.code == 0, process.err
    assert provenance.read_provenance(run)["wandb_ids"] == [there.name, "again"]
    again = server.runs["again"]
    assert uploaded(server, run) == RunRecord.load(run)
    value = RunRecord.load(run).validation[8].exact_match
    assert [row["val/len_8/exact_match"] for row in again.history] == [value]
    assert again.exit_code == 0


@pytest.mark.parametrize(
    "name, code", [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.slow)]
)
def test_a_stop_in_the_ladder_is_answered_at_once(server, lcg, words, tmp_path, name, code):
    """In the middle of a batch, with nothing to wait for: what was climbed is on disk and on W&B.

    W&B takes exit code 130 as it takes any but 0: the run is not finished.
    """
    before = AT_LENGTH.format(length=8, action=SIGTERM.replace("SIGTERM", name))
    process = lcg("train", *words(*LADDER), before=before)  # returns, so it did not sleep on
    assert process.code == code, process.err
    assert "Traceback" not in process.err
    run = only_run(tmp_path / "runs")
    assert [cell["length"] for cell in record(run)["ladder"]] == [4]
    assert record(run)["training"]["status"] == "finished"
    (there,) = server.runs.values()
    assert (there.exit_code, there.state) == (code, "failed")
    assert uploaded(server, run) == RunRecord.load(run)

    process = lcg("train", *words(*LADDER))
    assert process.code == 0, process.err
    assert [cell.length for cell in uploaded(server, run).ladder] == [4, 8]
    assert (list(server.runs), there.exit_code) == ([there.name], 0)


def test_interrupted_training_is_not_finished_on_wandb(server, lcg, words, tmp_path):
    """SIGINT, which W&B's own hooks count as finished when nobody tells it an exit code."""
    before = at_step(17, "os.kill(os.getpid(), signal.SIGINT)")
    process = lcg("train", *words(), before=before)
    assert process.code == 130, process.err
    (there,) = server.runs.values()
    assert (there.exit_code, there.state) == (130, "failed")
    run = only_run(tmp_path / "runs")
    assert uploaded(server, run).training.status == "interrupted"


def below(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        started = [int(child) for child in file.read().split()]
    return started + [each for child in started for each in below(child)]


def test_a_scheduler_that_stops_every_process_of_the_run(server, lcg, words, tmp_path):
    """As Slurm and systemd do: W&B's own process ends at once, the run saves and says so."""
    process = lcg("train", *words("trainer.steps=100000"), wait=False)
    wait_until(
        lambda: any(run.history for run in server.runs.values()), explain=lambda: process.err
    )
    for pid in [*below(process.pid), process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    assert process.wait() == 143, process.err
    assert "Traceback" not in process.err, process.err
    assert process.err.count("W&B: stopped (") == 1
    assert record(only_run(tmp_path / "runs"))["training"]["status"] == "interrupted"


def test_a_run_that_was_stopped_under_an_agent_ends_by_the_signal(server, lcg, words, tmp_path):
    """The agent counts exit codes above 0 as failures, and this is none."""
    before = at_step(17, "os.kill(os.getpid(), signal.SIGTERM)")
    agent = {"WANDB_RUN_ID": "one", "WANDB_SWEEP_ID": "abcd1234"}
    process = lcg("train", *words(), before=before, environment=agent)
    assert process.code == -signal.SIGTERM, process.err
    assert server.runs["one"].exit_code == 143
    assert record(only_run(tmp_path / "runs"))["training"]["status"] == "interrupted"


@pytest.mark.slow
def test_a_server_that_goes_away(server, lcg, words, tmp_path):
    """Training goes on, metrics.csv is whole, and the last line says how to upload the rest."""
    ready, gone = tmp_path / "ready", tmp_path / "gone"
    wait = f"open({str(ready)!r}, 'w').close()\n        "
    wait += f"while not os.path.exists({str(gone)!r}): time.sleep(0.01)"
    process = lcg("train", *words(*LADDER), before=at_step(15, wait), wait=False)
    wait_until(ready.exists, explain=lambda: process.err)
    server.close()
    gone.touch()
    assert process.wait() == 0, process.err
    run = only_run(tmp_path / "runs")
    assert [row["step"] for row in metrics(run)][-1] == "30"
    assert [cell["length"] for cell in record(run)["ladder"]] == [4, 8]
    (folder,) = (run / "wandb").glob("run-*")
    sync = f"wandb sync {folder}"
    assert f"W&B: the upload is incomplete; upload the rest with: {sync}" in process.err
    assert "Traceback" not in process.err


@pytest.mark.slow
@pytest.mark.parametrize("where", ["validation", "ladder"])
def test_a_stop_with_a_silent_server_ends(server, lcg, words, tmp_path, where):
    """The agent would kill after 30. With finish_timeout=5 wandb took 5.1 s and 10.0 s to end."""
    assert wandb_logger.FINISH_SECONDS + 10 < 20
    ready, gone = tmp_path / "ready", tmp_path / "gone"
    wait = f"open({str(ready)!r}, 'w').close()\n        "
    wait += f"while not os.path.exists({str(gone)!r}): time.sleep(0.01)"
    if where == "ladder":
        before = AT_LENGTH.format(length=8, action=wait + "\n        time.sleep(10**6)")
    else:
        before = at_step(15, wait)
    process = lcg("train", *words(*LADDER), before=before, wait=False)
    wait_until(ready.exists, explain=lambda: process.err)
    server.hang()
    gone.touch()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 143, process.err
    run = only_run(tmp_path / "runs")
    assert record(run)["training"]["status"] == ("finished" if where == "ladder" else "interrupted")
    assert "W&B: the upload is incomplete; upload the rest with: wandb sync" in process.err


@pytest.mark.slow
def test_a_server_that_is_silent_from_the_start(server, lcg, words, tmp_path):
    """A connection opens, so it seems to be there: after START_SECONDS the run goes on offline.

    wandb holds on to the id of the run whose start timed out ("run ID … is in use"), until it is
    torn down, which takes those 10 s.
    """
    server.hang()
    process = lcg("train", *words())
    assert process.code == 0, process.err
    assert "W&B: offline because it did not start" in process.err
    assert "upload later with: wandb sync" in process.err
    assert [row["step"] for row in metrics(only_run(tmp_path / "runs"))][-1] == "30"
