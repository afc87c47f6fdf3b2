"""A study in a real PostgreSQL, reached directly and through Optuna's gRPC proxy."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import optuna
import pytest
from processes import kill, wait_until
from services.conftest import make_sweep, page
from services.postgres import free_port
from sweeping.tiny_sweeps import outcome, table

from lcg.sweeping.study import open_storage

pytestmark = pytest.mark.slow
pytest.importorskip("psycopg", reason="needs psycopg: pip install 'lcg[postgres]'")

# `lcg` on a host of that name, which is soon taken for dead.
ON_HOST = """
import platform, sys
platform.node = lambda: {host!r}
from lcg.sweeping import study
study.HEARTBEAT, study.SILENCE = 1.0, 15.0
from lcg.cli import main
sys.exit(main())
"""


@pytest.fixture
def url(postgres, tmp_path) -> str:
    """The page's URL, of an empty database on this machine."""
    name = re.sub(r"\W", "", tmp_path.name).lower()
    postgres.create(name)
    documented = re.search(r"export STUDY=(\S+)", page("createdb lcg"))[1]
    host = f"@127.0.0.1:{postgres.port}/{name}"
    return documented.replace("@db.example.org/lcg", host)


@pytest.fixture
def proxy(url, tmp_path) -> str:
    """The page's proxy in front of it."""
    pytest.importorskip("grpc", reason="needs grpcio: pip install 'lcg[grpc]'")
    port = free_port()
    line = next(line for line in page("run_grpc_proxy_server").splitlines() if "python -c" in line)
    line = line.replace("python -c", f"exec {sys.executable} -c").replace("port=13000", f"{port=}")
    with (tmp_path / "proxy.log").open("w") as log:
        server = subprocess.Popen(
            ["bash", "-c", line],
            env={"STUDY": url, "PATH": "/usr/bin:/bin"},
            stdout=log,
            stderr=log,
        )
    yield f"grpc://localhost:{port}"
    assert server.poll() is None, (tmp_path / "proxy.log").read_text()
    server.kill()
    server.wait()


def test_launchers_that_make_the_tables_at_the_same_moment(url, tmp_path):
    start = Barrier(8)

    def opened(_) -> int:
        start.wait()
        storage = open_storage(url, tmp_path)
        return optuna.create_study(study_name="one", storage=storage, load_if_exists=True)._study_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(opened, range(8)))) == 1


class Launcher:
    """`lcg sweep` of the tiny sweep on a host of some name."""

    def __init__(self, host: str, folder: Path, storage: str) -> None:
        self.log = folder / f"{host}.log"
        words = [str(make_sweep(folder)), f"runs={folder / 'runs'}", "--workers=1"]
        lcg = [sys.executable, "-c", ON_HOST.format(host=host)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*lcg, "sweep", *words, "--storage", storage],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait(self) -> None:
        """For its end, which must be a good one."""
        wait_until(lambda: self.process.poll() is not None, 300, lambda: self.said)
        assert self.process.returncode == 0, self.said
        assert "Traceback" not in self.said


@contextmanager
def launchers(*hosts: str, folder: Path, storage: str):
    """Start a launcher on each host in the same moment."""
    started = [Launcher(host, folder, storage) for host in hosts]
    try:
        yield started
    finally:
        for each in started:
            kill(each.process.pid)
            each.process.wait()


def steps(folder: Path, said: str) -> list[int]:
    """Return the saved step of each run that a launcher started."""
    names = re.findall(r"^(?:lcg: )?(\S+): started", said, re.M)
    return [len(list((folder / "runs" / name).glob("checkpoints/last.ckpt"))) for name in names]


@pytest.mark.parametrize("through", ["url", "proxy"])
def test_a_launcher_is_killed_and_another_finishes(through, request, alone, tmp_path):
    """Two start on an empty database, one is killed with its run under way, a third comes in.

    The killed one was on another host: only its silence, told by the heartbeats in the trials, says
    that it is dead.
    """
    storage = request.getfixturevalue(through)
    with launchers("one", "two", folder=tmp_path, storage=storage) as (one, two):
        wait_until(lambda: any(steps(tmp_path, one.said)), 120, lambda: one.said + two.said)
        kill(one.process.pid)
        with launchers("three", folder=tmp_path, storage=storage) as (three,):
            two.wait()
            three.wait()
    said = two.said + three.said
    assert ": resumes at step" in said, said
    assert outcome(tmp_path / "runs") == alone[0]
    assert table(tmp_path / "runs") == alone[1]
    trials = optuna.load_study(study_name=None, storage=open_storage(storage, tmp_path)).trials
    assert len(trials) >= len(alone[0]) and all(trial.state.is_finished() for trial in trials)
