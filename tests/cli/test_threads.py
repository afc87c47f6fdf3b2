import os
import subprocess
import sys
import time

import pytest

from lcg import cli

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who runs")


@linux
def test_a_busy_machine_is_noticed():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    end = time.monotonic() + 900
    try:
        while not cli._others_are_running():
            assert time.monotonic() < end
    finally:
        busy.kill()
        busy.wait()


@pytest.fixture
def waiting(monkeypatch):
    """Return what `lcg` makes of these variables: (OMP_WAIT_POLICY, GOMP_SPINCOUNT)."""

    def choose(busy, policy=None, spins=None):
        monkeypatch.setattr(cli, "_others_are_running", lambda: busy)
        for name, value in (("OMP_WAIT_POLICY", policy), ("GOMP_SPINCOUNT", spins)):
            monkeypatch.setenv(name, value or "")  # so that it is put back
            if value is None:
                monkeypatch.delenv(name)
        assert cli.main(["--version"]) == 0
        return os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")

    return choose


def test_threads_sleep_at_once_only_on_a_busy_machine(waiting):
    assert waiting(busy=True) == ("PASSIVE", None)
    assert waiting(busy=False) == (None, cli.SPINS)


def test_a_policy_chosen_by_another_lcg_is_chosen_again(waiting):
    assert waiting(busy=True, spins=cli.SPINS) == ("PASSIVE", None)
    assert waiting(busy=False, spins=cli.SPINS) == (None, cli.SPINS)
    assert waiting(busy=False, policy="PASSIVE", spins="0") == ("PASSIVE", "0")  # a sweep's


def test_the_users_own_choice_stays(waiting):
    assert waiting(busy=True, policy="ACTIVE") == ("ACTIVE", None)
    assert waiting(busy=False, spins="7") == (None, "7")
    assert waiting(busy=True, spins="7") == ("PASSIVE", "7")
