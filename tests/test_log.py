"""The command shows what lcg logs; elsewhere a program decides."""

import subprocess
import sys

import pytest

LOGGED = "from lcg.log import log; log.info('done'); log.warning('no \\x1b[31mlocks')"


def _shown(before: str) -> str:
    done = subprocess.run([sys.executable, "-c", f"{before}\n{LOGGED}"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    return done.stderr.decode()


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        ("", "no \x1b[31mlocks\n"),
        (
            "import logging; logging.basicConfig(level='INFO', format='mine: %(message)s')",
            "mine: done\nmine: no \x1b[31mlocks\n",
        ),
        ("from lcg.log import log_to_stderr; log_to_stderr()", "done\nno \\x1b[31mlocks\n"),
        (
            "import logging; logging.basicConfig(level='INFO')\n"
            "from lcg.log import log_to_stderr; log_to_stderr(); log_to_stderr()",
            "done\nno \\x1b[31mlocks\n",
        ),
    ],
)
def test_only_the_command_shows_log_messages_by_default(before, shown):
    assert _shown(before) == shown


def test_of_several_processes_one_logs_and_each_tells_its_errors():
    second = "import lcg.ranks; lcg.ranks._rank = 1; from lcg.log import log, log_to_stderr"
    assert _shown(f"{second}; log_to_stderr(); log.error('lcg: no')") == "lcg: no\n"
