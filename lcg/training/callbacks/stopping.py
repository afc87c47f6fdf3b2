"""Stopping when asked to: at a step boundary, with everything saved."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import torch
from lightning import Callback

from lcg.ranks import is_rank_zero
from lcg.training.callbacks.saving import Checkpoints
from lcg.training.processes import stop_requests

NOTICE = b"\nstopping after this step; Ctrl-C again stops at once, without saving\n"


class Stopped(SystemExit):
    """Asked to stop where nothing needs to be saved first."""


class GracefulStop(Callback):
    """A request to stop sets a flag; the step under way is finished, saved, and then we stop.

    Stopping inside a step would save new weights under an old step count. A second Ctrl-C stops at
    once. `signal` is the number received, 0 if none.
    """

    def __init__(self, saver: Checkpoints) -> None:
        self.saver = saver
        self.signal = 0
        self._group = None
        self._nothing_to_save = False

    def listening(self) -> AbstractContextManager[None]:
        """Answer signals in here."""
        return stop_requests(self._received)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Signals that arrive in here raise Stopped: a batch of a long length may take minutes."""
        self._nothing_to_save = True
        try:
            yield
        finally:
            self._nothing_to_save = False

    def _received(self, number: int, frame) -> None:
        if self._nothing_to_save:
            self._nothing_to_save, self.signal = False, number
            raise Stopped(128 + number)
        if self.signal and number == signal.SIGINT:
            # Not KeyboardInterrupt: Lightning would turn it into exit code 1.
            raise SystemExit(128 + number)
        if not self.signal and is_rank_zero():
            with suppress(OSError):  # a terminal that was closed
                os.write(2, NOTICE)  # print is not safe in a handler
        self.signal = self.signal or number

    def on_train_start(self, trainer, module) -> None:
        if trainer.world_size > 1:  # on the CPU, so that asking never waits for a GPU
            self._group = torch.distributed.new_group(backend="gloo")
        if self._asked():
            trainer.should_stop = True  # before the first step there is nothing to save

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx: int) -> None:
        if self._asked():
            self.saver.save(trainer, module)
            trainer.should_stop = True

    def _asked(self) -> bool:
        """Whether any process was asked to stop: all of them must stop at the same step."""
        if self._group is None:
            return self.signal != 0
        asked = torch.tensor(self.signal)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX, self._group)
        agreed = int(asked)
        if agreed:  # else a signal that came in the meantime would be forgotten
            self.signal = agreed
        return agreed != 0
