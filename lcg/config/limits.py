"""Numbers that no option takes, since no machine has so much of anything.

The limits are generous and fixed: whoever meets one has mistyped a number. A size below them may
still be too large for one machine, which `lcg.training.devices` says.
"""

from __future__ import annotations

from typing import Any

PARAMETERS = 2**40
COUNT = 10**12  # lengths, samples, steps, tokens of a batch
RATE = 10**6  # learning rates and what else multiplies a gradient or a weight
PROCESSES = 1024
THREADS = 4096
HEADS = 10**6  # of all layers; each has columns of its own
SHORTEST = 2**20  # the least length of a task
VOCABULARY = 2**31 - 1  # tokens are assembled as 32-bit numbers
SEED = 2**63


def shown(number: float) -> str:
    """A number for a message: short, however large it is."""
    return f"{number:,}" if abs(number) < 10**15 else f"{float(number):.3g}"


def require_between(
    section: Any, names: tuple[str, ...], least: float, most: float, what: str = ""
) -> None:
    """Raise ValueError for a field that is set and not within [least, most]; what: of a message
    about one that is too small.
    """
    for name in names:
        value = getattr(section, name)
        if value is None:
            continue
        if not value >= least:
            raise ValueError(f"{name} must {what or f'be at least {least}'}, got {value:g}")
        if value > most:
            raise ValueError(f"{name} must be at most {shown(most)}, got {shown(value)}")
