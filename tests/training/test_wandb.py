"""Weights & Biases: the mode is found within seconds, and nothing it does ends a run."""

import json
import os
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import at_step, differences, essence, metrics, only_run
from tiny import tiny

from lcg.runs import provenance, wandb_logger
from lcg.runs.record import RunRecord
from lcg.runs.wandb_logger import choose_mode
from lcg.runs.wandb_reader import RECORD, records
from lcg.training.loop import train


@pytest.fixture(autouse=True)
def stranger(tmp_path, monkeypatch):
    """Nobody is logged in, and no setting of this machine is seen."""
    for name in os.environ:
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "home").mkdir()


@pytest.fixture
def server(monkeypatch):
    """Something that accepts connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        port = listener.getsockname()[1]
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        yield listener


# ---- which mode


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_an_explicit_mode_is_used(mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online" if mode == "disabled" else "disabled")
    assert choose_mode(mode) == (mode, "")


@pytest.mark.parametrize(
    ("value", "mode"),
    [("online", "online"), ("disabled", "disabled"), ("dryrun", "offline"), ("run", "online")],
)
def test_auto_follows_the_environment(value, mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", value)
    assert choose_mode("auto") == (mode, "")


def test_without_a_login_it_is_offline_at_once(monkeypatch):
    """Nothing is connected to, and wandb is not asked."""
    monkeypatch.setattr(wandb_logger, "_reachable", None)
    monkeypatch.setattr(wandb_logger, "_settings", None)
    mode, why = choose_mode("auto")
    assert mode == "offline"
    assert "no W&B login" in why


def test_a_login_and_a_server_make_it_online(server, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert choose_mode("auto") == ("online", "")


def test_a_login_may_be_in_netrc(server, tmp_path):
    host = os.environ["WANDB_BASE_URL"].removeprefix("http://")
    (tmp_path / "netrc").write_text("machine elsewhere login user password secret\n")
    assert choose_mode("auto")[0] == "offline"
    (tmp_path / "netrc").write_text(f'machine "{host}" login user password secret\n')
    assert choose_mode("auto") == ("online", "")


def test_a_closed_port_makes_it_offline(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    assert choose_mode("auto") == ("offline", "127.0.0.1 does not answer")


def test_a_name_lookup_that_hangs_is_not_waited_for(monkeypatch):
    """`timeout=` of a connection does not cover it."""
    release = threading.Event()

    def hang(*words, **options):
        release.wait()
        raise OSError("at last")

    monkeypatch.setattr(socket, "create_connection", hang)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.invalid")
    found = choose_mode("auto", timeout=0.1)
    release.set()
    assert found == ("offline", "wandb.invalid does not answer")


def test_behind_a_proxy_it_is_the_proxy_that_must_answer(server, monkeypatch):
    proxy = os.environ["WANDB_BASE_URL"]
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.invalid")
    monkeypatch.setenv("https_proxy", proxy)
    assert choose_mode("auto") == ("online", "")


def test_wandb_is_asked_for_its_server_and_mode(monkeypatch, tmp_path):
    """`wandb login --host` and `wandb offline` write these."""
    (tmp_path / "netrc").write_text("machine lab.invalid login user password secret\n")
    settings = SimpleNamespace(base_url="https://lab.invalid", mode=None)
    fake = SimpleNamespace(setup=lambda: SimpleNamespace(settings=settings))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    asked = []
    monkeypatch.setattr(wandb_logger, "_reachable", lambda *a: not asked.append(a[:2]))
    assert choose_mode("auto") == ("online", "")
    assert asked == [("lab.invalid", 443)]
    settings.mode = "offline"
    assert choose_mode("auto")[0] == "offline"


# ---- whatever it does


class Fake:
    """The parts of wandb that are used; `trouble` is raised where it says."""

    def __init__(self, trouble: dict[str, Exception]):
        self.trouble, self.calls, self.inits = trouble, [], []
        self.dir, self.url, self.summary = "/folder/run/files", "https://run", self
        self.Settings = dict

    def _do(self, name, value):
        self.calls.append((name, value))
        if name in self.trouble:
            raise self.trouble[name]

    def init(self, **options):
        self.inits.append(options)
        self._do(f"init {options['mode']}", options)
        return self

    def teardown(self):
        """Nothing to forget."""

    def define_metric(self, *words, **options):
        self._do("define_metric", words)

    def log(self, row):
        self._do("log", row)

    def update(self, values):
        self._do("summary", values)

    def finish(self, exit_code):
        self._do("finish", exit_code)


class CommError(Exception):
    """As wandb's own."""


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (["init online"], "W&B: offline because it did not start: broken"),
        (["init online", "init offline"], "W&B: not used, broken; metrics are in metrics.csv"),
        (["define_metric"], "W&B: not used, broken"),
        (["log"], "W&B: stopped (broken)"),
        (["summary"], "W&B: stopped (broken)"),
        (["finish"], "W&B: stopped (broken)"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_trouble_is_a_line_and_training_continues(config, monkeypatch, capsys, where, said):
    fake = Fake(dict.fromkeys(where, CommError("broken")))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    outcome = train(config("wandb.mode=online"), progress=False)
    assert outcome.status == "finished"
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("broken") == 1
    assert [row["step"] for row in metrics(outcome.directory) if row["train/loss"]] == [
        *map(str, range(4, 30, 4)),
        "30",
    ]


def test_options_of_wandb_init(config, monkeypatch):
    fake = Fake({})
    monkeypatch.setitem(sys.modules, "wandb", fake)
    words = ("wandb.mode=online", "wandb.project=p", "wandb.group=g", "wandb.tags=a,b")
    outcome = train(config(*words), progress=False)
    (options,) = fake.inits
    assert options["project"] == "p" and options["group"] == "g" and options["tags"] == ["a", "b"]
    assert options["name"] == outcome.directory.name
    assert options["id"] == provenance.read_provenance(outcome.directory)["wandb_id"]
    assert options["config"]["optimizer"]["lr"] == 1e-3
    assert ("define_metric", ("trainer/step",)) in fake.calls
    steps = [row["trainer/step"] for name, row in fake.calls if name == "log"]
    assert steps == sorted(steps) and steps[-1] == 30
    assert ("finish", 0) in fake.calls
    summary = [value for name, value in fake.calls if name == "summary"][-1]
    assert summary["status"] == "finished"
    assert set(summary) == {"status", "best/len_4/exact_match", "best/len_8/exact_match", RECORD}
    found = RunRecord.from_dict(json.loads(summary[RECORD]))
    assert found == RunRecord.load(outcome.directory)


def test_the_agent_decides_the_run_id(config, monkeypatch):
    fake = Fake({})
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_RUN_ID", "from-the-agent")
    train(config("wandb.mode=online"), progress=False)
    assert fake.inits[0]["id"] == "from-the-agent"


# ---- the real one, offline


def test_it_is_imported_only_when_it_is_used(lcg, tmp_path):
    look = at_step(30, "assert not [m for m in __import__('sys').modules if m.startswith('wandb')]")
    process = lcg.run("train", *tiny(f"runs={tmp_path}", "_wandb_extra=1"), before=look)
    assert process.code == 0, process.err


def test_offline_runs_resume(lcg, uninterrupted, tmp_path):
    """A second offline folder of the same run, on the same axis of steps."""
    words = tiny(f"runs={tmp_path / 'my runs'}", "wandb.mode=auto")
    environment = {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "netrc")}
    environment |= dict.fromkeys(("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"))
    stop = at_step(18, "os.kill(os.getpid(), signal.SIGTERM)")
    first = lcg.run("train", *words, before=stop, environment=environment)
    assert first.code == 143, first.err
    second = lcg.run("train", *words, environment=environment)
    assert second.code == 0, second.err
    run = only_run(tmp_path / "my runs")
    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    for process, folder in zip((first, second), folders, strict=True):
        assert "W&B: offline because there is no W&B login" in process.err
        assert f"wandb sync '{folder}'" in process.err
    identifiers = {folder.name.rpartition("-")[2] for folder in folders}
    assert identifiers == {provenance.read_provenance(run)["wandb_id"]}
    axes = [logged_steps(folder) for folder in folders]
    assert axes == [[4, 8, 12, 15, 15, 16], [20, 24, 28, 30, 30, 30]]
    found = essence(run)
    assert differences(uninterrupted, found) == []


def logged_steps(folder: Path) -> list[int]:
    """trainer/step of every row in an offline run's file."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    steps = []
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            if item.key == "trainer/step" or list(item.nested_key) == ["trainer/step"]:
                steps.append(int(item.value_json))
    return steps
