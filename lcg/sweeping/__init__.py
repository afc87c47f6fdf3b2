"""Sweeps: W&B's sweep files, run without an account or a network, as an Optuna study.

`file` parses a sweep, `combinations` lists a grid, `reading` joins the two, `study` is who does
what, `launcher` trains the runs in `worker` processes, `runs` reads how far each is, `projection`
says what a sweep will take. Nothing here imports torch.
"""

from lcg.sweeping.file import Sweep
from lcg.sweeping.grid import read_sweep

__all__ = ["Sweep", "read_sweep"]
