"""A line for the person in front of the terminal; results go to stdout, this does not."""

from __future__ import annotations

import os
import sys


def is_first_process() -> bool:
    """Whether this is the process that keeps the books; Lightning starts the others for DDP."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0 and int(os.environ.get("NODE_RANK", 0)) == 0


def say(text: str) -> None:
    """A line on stderr, once however many processes there are."""
    if is_first_process():
        print(text, file=sys.stderr, flush=True)
