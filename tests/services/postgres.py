"""A PostgreSQL server of a test's own, from the binaries of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

PASSWORD = "secret"
UNPRIVILEGED = 65534  # nobody: initdb and postgres refuse root


def binaries() -> Path | None:
    """The folder of initdb and postgres, the newest if there are several; None without."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(versions, key=lambda path: float(path.parts[-3]))[-1:]
    return newest[0].parent if newest else None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Postgres:
    """A server on the loopback interface, with a user `lcg` who has a password."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="lcg-postgres-"))  # not below a folder of root
        self._user = {}
        if os.geteuid() == 0:
            self._user = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
            os.chown(self._folder, UNPRIVILEGED, UNPRIVILEGED)
        (self._folder / "password").write_text(PASSWORD)
        (self._folder / "password").chmod(0o644)
        data = str(self._folder / "data")
        words = ["-D", data, "-U", "lcg", "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"]
        self._call("initdb", *words, f"--pwfile={self._folder / 'password'}")
        self._log = (self._folder / "log").open("w")
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder)]
        self._server = subprocess.Popen(
            [binaries() / "postgres", "-D", data, *where, "-F"],
            stdout=self._log,
            stderr=self._log,
            cwd=self._folder,
            **self._user,
        )

    def _call(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [binaries() / program, *words],
            capture_output=True,
            text=True,
            cwd=self._folder,
            env=os.environ | {"PGPASSWORD": PASSWORD},
            **self._user,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def version(self) -> str:
        """As the server says it."""
        words = [binaries() / "postgres", "--version"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def is_ready(self) -> bool:
        """Return True if it takes connections."""
        assert self._server.poll() is None, (self._folder / "log").read_text()
        words = ["-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run([binaries() / "pg_isready", *words]).returncode == 0

    def create(self, database: str) -> None:
        """Make an empty database."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "lcg"]
        self._call("createdb", *where, database)

    def close(self) -> None:
        self._server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients
        try:
            self._server.wait(60)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._log.close()
        shutil.rmtree(self._folder)
