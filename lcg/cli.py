"""The `lcg` command: `lcg NAME …` runs lcg/commands/NAME.py.

Results go to stdout, everything else to stderr. Torch, lightning, wandb and matplotlib are imported
by the commands that need them, so that help, lists and config errors are quick.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from lcg import __version__, ranks
from lcg.commands.args import EXIT_CODES, first_line
from lcg.log import discard, log, log_to_stderr, open_streams
from lcg.registry import fault, nearest
from lcg.runs.files import Busy
from lcg.system import is_storage_error

COMMANDS = (
    *("train", "sweep", "reproduce", "eval", "select", "table", "plot", "report", "inspect"),
    "sparsefinder",
    *("list", "show", "new", "check", "demo"),
)
SPINS = "10000"
"""Rounds of waiting, about half a millisecond, before a thread sleeps."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    open_streams()
    log_to_stderr()
    _choose_how_threads_wait()
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        log.error("lcg: stopped")
        return 130
    except Busy as error:
        log.warning(f"lcg: {error}")
        return 3
    except BrokenPipeError:  # | head
        discard(sys.stdout)
        return 0
    except ValueError as error:
        log.error(f"lcg: {fault(error) or ' '.join(str(error).split())}")
        return 2
    except MemoryError as error:
        log.error(f"lcg: not enough memory: {' '.join(str(error).split())}")
        return 1
    except OSError as error:
        if error.filename is not None:
            log.error(f"lcg: {error.filename}: {error.strerror}")
        elif _is_nowhere():
            log.error("lcg: the current folder is gone; change to one that exists")
        elif is_storage_error(error):
            log.error(f"lcg: cannot write: {error.strerror}")
            discard(sys.stdout)  # which may be what is full
        else:
            raise
        return 1
    except (Exception, SystemExit) as error:
        line = fault(error)
        if line is None:
            raise
        log.error(f"lcg: {line}")
        return 2


def _is_nowhere() -> bool:
    """Return True when the current folder was removed, so that relative paths lead nowhere."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _others_are_running() -> bool:
    """Return True when another process is running each time; False if that is unknown."""
    with suppress(OSError, IndexError):
        for _ in range(3):
            running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
            if int(running) <= 1:
                return False
            time.sleep(0.004)
        return True
    return False


def _choose_how_threads_wait() -> None:
    """Set the waiting policy that OpenMP reads when torch is imported, unless it is set.

    If two threads share a core, the one that spins while it waits keeps the other from working.
    Alone, spinning is two to three times faster than sleeping between the short operations of a
    small model or of long attention, but long spinning is very slow as soon as another program
    runs. SPINS is long enough for those operations and short for a scheduler.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    if not _others_are_running():
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if os.environ.get("GOMP_SPINCOUNT") == SPINS:  # from the `lcg` that started this one
        del os.environ["GOMP_SPINCOUNT"]  # which would win


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    name, *rest = words
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        raise ValueError(f"there is no command {name}; {nearest(name, list(COMMANDS))}")
    if name != "train":  # which knows how many processes its run has
        ranks.run_alone()
    return importlib.import_module(f"lcg.commands.{name}").run(rest)


def _overview() -> str:
    width, lines = max(map(len, COMMANDS)), []
    for name in COMMANDS:
        about = first_line(importlib.import_module(f"lcg.commands.{name}").__doc__)
        lines.append(f"  lcg {name:<{width}}  {about}".rstrip())
    commands = "\n".join(lines)
    return f"""Train short, evaluate long.

{commands}

Help on a command: lcg COMMAND --help

examples:

  lcg train experiment=quick/copy attention=asentmax position=rope seed=3
  lcg eval runs/copy-* lengths=1024,2048
  lcg table runs/copy-*

{EXIT_CODES}"""
