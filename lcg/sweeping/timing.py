"""`python -m lcg.sweeping.timing WORDS`: the projection of a run as JSON, in its own process.

Like this a launcher needs no torch, and each timing starts with the memory of a real run.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict


def main(words: list[str]) -> None:
    started = time.perf_counter()
    from lcg.config import load_config
    from lcg.training.projection import measure

    config = load_config(words)
    importing = time.perf_counter() - started
    found = measure(config)
    seconds = found.training_seconds + found.validations * found.validation_seconds
    print(json.dumps(asdict(found) | {"importing": importing, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1:])
