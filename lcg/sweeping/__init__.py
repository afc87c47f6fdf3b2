"""Sweeps: W&B's sweep files, run without an account or a network, as an Optuna study.

`file` reads a sweep and lists its runs, `study` is who does what, `launcher` trains the runs in
`worker` processes, `state` reads how far each is, `estimate` says what a sweep will take. Nothing
here imports torch.
"""

from lcg.sweeping.file import Sweep, read_sweep

__all__ = ["Sweep", "read_sweep"]
