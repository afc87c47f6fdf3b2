"""What happens at step boundaries, in this order: check, log, probe, validate, save, stop.

Order matters: nothing is written of a step that was not finite, a checkpoint holds what validation
at the same step found, and a stop request is answered only after everything of its step is written.
"""

from lcg.training.callbacks.finite import Finite
from lcg.training.callbacks.metrics import Metrics
from lcg.training.callbacks.probing import HeadProbe
from lcg.training.callbacks.progress import Progress
from lcg.training.callbacks.saving import Checkpoints
from lcg.training.callbacks.stopping import GracefulStop, Stopped
from lcg.training.callbacks.validation import LadderValidation

__all__ = [
    "Checkpoints",
    "Finite",
    "GracefulStop",
    "HeadProbe",
    "LadderValidation",
    "Metrics",
    "Progress",
    "Stopped",
]
