import os
import subprocess
import sys

import pytest

from lcg import cli

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who runs")


@linux
def test_a_busy_machine_is_noticed():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert any(cli._others_are_running() for _ in range(20))
    finally:
        busy.kill()
        busy.wait()


@pytest.mark.parametrize("busy", [True, False])
def test_threads_sleep_while_they_wait_only_on_a_busy_machine(monkeypatch, busy):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is put back
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(cli, "_others_are_running", lambda: busy)
    assert cli.main(["--version"]) == 0
    assert os.environ.get("OMP_WAIT_POLICY") == ("PASSIVE" if busy else None)


def test_the_users_own_policy_stays(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr(cli, "_others_are_running", lambda: True)
    assert cli.main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
