"""Validation during training at several lengths, and the selection of the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lcg.config import Config, to_tree
from lcg.evaluation.ladder import evaluate_lengths
from lcg.evaluation.test_sets import TestSet
from lcg.log import log
from lcg.runs import checkpoints
from lcg.runs.metrics import Tracking
from lcg.training.signals import Stopped, StopRequest

SCORES = ("exact_match", "token_accuracy")


def selection_key(candidate: dict[str, Any]) -> tuple[float, float, int]:
    """Return the sort key of checkpoints: exact match, token accuracy, steps."""
    return (*(candidate[name] for name in SCORES), candidate["step"])


class LadderValidation:
    """Evaluates at the validation lengths and keeps the best checkpoint.

    A validation that a stop request interrupts is `pending`: it is saved as such, and is done first
    when the run resumes, so that resuming changes nothing.
    """

    def __init__(self, config: Config, folder: Path, tracking: Tracking, stop: StopRequest) -> None:
        self.config, self.folder, self.tracking, self.stop = config, folder, tracking, stop
        self.monitored = config.validation.monitored
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.pending: int | None = None

    @property
    def solved(self) -> bool:
        """True once every sample of the monitored length was right."""
        best = self.best
        return best is not None and best["by"] == self.monitored and best["exact_match"] == 1

    def state_dict(self) -> dict[str, Any]:
        names = ("history", "best", "pending", "monitored")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pending = state.get("pending")
        before = state.get("monitored", self.monitored)
        if before == self.monitored:
            self.history, self.best = state["history"], state["best"]
        elif state["best"] is not None:
            log.info(
                f"the monitored length changed from {before} to {self.monitored}; selection "
                "restarts, without the checkpoints so far"
            )

    def run(self, model: nn.Module, step: int) -> bool:
        """Validate the weights of a step; return False when a stop request interrupted it."""
        asked = self.config.validation
        self.pending = step
        sets = [TestSet(self.config, "validation", n, asked.samples) for n in asked.lengths]
        cells = evaluate_lengths(model, sets, step=step, on_progress=self._go_on)
        try:
            cells = {cell.length: cell for cell in cells}
        except Stopped:
            return False
        self.pending = None
        lengths = {
            str(length): {name: getattr(cell, name) for name in SCORES}
            for length, cell in cells.items()
            if cell.state == "value"
        }
        if lengths:
            scores = ((n, name, v) for n, row in lengths.items() for name, v in row.items())
            self.tracking.log(step, {f"val/len_{n}/{name}": v for n, name, v in scores})
            self._select(model, step, lengths, cells[self.monitored])
        return True

    def _go_on(self, length: int, done: int, total: int) -> None:
        if self.stop.signal:
            raise Stopped

    def _select(self, model: nn.Module, step: int, lengths: dict[str, Any], monitored) -> None:
        """Keep these weights if they are the best so far, by the monitored length if possible."""
        used, missing = str(monitored.length), ""
        if used not in lengths:
            used = max(lengths, key=int)
            missing = f"{monitored.state.replace('_', ' ')}: {monitored.reason}"
        candidate = {"step": step, "lengths": lengths, "by": int(used), "missing": missing}
        candidate |= lengths[used]
        self.history = [h for h in self.history if h["step"] < step] + [candidate]
        if self.best is None or self._key(candidate) >= self._key(self.best):
            self.best = candidate
            content = {"state_dict": model.state_dict(), "step": step}
            content["config"] = to_tree(self.config)
            checkpoints.save(content, self.folder / checkpoints.BEST)

    def _key(self, candidate: dict[str, Any]) -> tuple:
        by = candidate.get("by", self.monitored)
        return (by == self.monitored, by, *selection_key(candidate))

    def selection(self) -> dict[str, Any] | None:
        """Return the selected checkpoint for the record, flagged if the monitor did not decide."""
        best = self.best
        if best is None:
            return None
        monitor = f"val/len_{self.monitored}/exact_match"
        values = {h["exact_match"] for h in self.history}
        missing, reason = best.get("missing"), ""
        if missing:
            reason = f"{monitor} has no value ({missing}); length {best['by']} decided"
        elif len(values) == 1 and len(self.history) > 1:
            reason = (
                f"{monitor} was {values.pop():g} at all {len(self.history)} validations; "
                "token accuracy, then the later step decided"
            )
        return {
            "step": best["step"],
            "monitor": monitor,
            "value": None if missing else best["exact_match"],
            "token_accuracy": best["token_accuracy"],
            "degenerate": bool(reason),
            "reason": reason,
        }
