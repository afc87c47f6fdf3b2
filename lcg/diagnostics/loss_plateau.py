"""Find the loss plateau in a run's metrics, and whether scalers exploded.

A run that does not solve its task usually stays on a plateau of its loss: that of MQMTAR is near
0.53 nats, and the step at which a run leaves it predicts its accuracy at longer lengths.

Definition. Of the logged losses L(s) after half of the warm-up, not finite ones left out:

1. Smoothed: ℓ(s) = log of the running median over w rows, w = the odd number next to rows/40, at
   least 5. The median preserves steep drops and ignores single spikes.
2. A stretch of rows is level when max ℓ - min ℓ ≤ band = max(0.05, 5·σ/√w), at most 0.2; σ is the
   noise of one row, 1.4826·median |Δ log L|/√2.
3. A plateau is a level stretch of at least w rows and 3 % of the steps. It ends at 1.5 times the
   step at which it starts or later, and at its own slope ℓ would fall over all steps by less than
   30 % of what it did, or than 0.05: so that falling slowly is none. Its median is above 5 % of
   the first losses, so that being done is none. The longest counts.
4. It was left at the first logged step after it from which on, to the end, the smoothed loss stays
   below 0.75 of its median: `plateau_left_at`; None if it never does.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lcg.runs.metrics import MetricsReader, number

WINDOW = 5
BAND, MOST = 0.05, 0.2
NOISE = 5.0
STRETCH, PART, SLOPE = 1.5, 0.03, 0.3
DONE = 0.05
LEFT = 0.75
EXPLODED = {"p95": 10.0, "max": 100.0}
"""Larger scalers are recorded; ASEntmax runs stuck on the plateau were seen at a p95 of 18 to
84 and a maximum near 300."""
ROWS = 4000
"""Rows that are read; of longer tables every n-th is enough."""


def loss_plateau(metrics: Path, warmup_steps: int) -> dict[str, Any]:
    """Return the loss plateau and exploded scalers of a metrics.csv, in JSON types.

    plateau_loss: nats, None without a plateau; plateau_left_at: step, None if it was not left.
    scaler_p95, scaler_max: the largest of any layer in the last probe, only if one exploded.
    """
    steps, losses = array("q"), array("d")
    probe: dict[str, str] = {}
    for step, row in MetricsReader(metrics).rows():
        loss = number(row.get("train/loss", ""))
        if loss is not None:
            steps.append(step)
            losses.append(loss)
        scalers = {key: text for key, text in row.items() if key.startswith("scaler/") and text}
        probe = scalers or probe
    largest = {
        name: max((number(v) or 0.0 for k, v in probe.items() if k.endswith(f"/{name}")), default=0)
        for name in EXPLODED
    }
    facts = plateau(zip(steps, losses, strict=True), warmup_steps)
    if any(largest[name] > limit for name, limit in EXPLODED.items()):
        facts |= {f"scaler_{name}": round(value, 3) for name, value in largest.items()}
    return facts


def plateau(losses: Iterable[tuple[int, float]], warmup_steps: int = 0) -> dict[str, Any]:
    """`plateau_loss` and `plateau_left_at` of logged (step, loss); see above."""
    finite = [(step, loss) for step, loss in losses if math.isfinite(loss)]
    kept = [(step, max(loss, 1e-12)) for step, loss in finite if step > warmup_steps / 2]
    nothing = {"plateau_left_at": None, "plateau_loss": None}
    kept = kept[:: -(-len(kept) // ROWS) or 1]
    if len(kept) < 2 * WINDOW:
        return nothing
    steps = np.array([step for step, _ in kept])
    raw = np.log([loss for _, loss in kept])
    window = max(WINDOW, len(kept) // 40 | 1)
    half = window // 2  # fewer values at both ends
    smooth = np.array([np.median(raw[max(0, i - half) : i + half + 1]) for i in range(len(raw))])
    noise = 1.4826 * float(np.median(np.abs(np.diff(raw)))) / math.sqrt(2)
    band = min(MOST, max(BAND, NOISE * noise / math.sqrt(window)))
    first = float(np.median([loss for _, loss in finite[:WINDOW]]))
    floor = math.log(DONE * max(first, 1e-12))
    fall = max(BAND, SLOPE * (smooth[0] - smooth[-1]))

    def counts(some: slice) -> bool:
        slope = np.polyfit(steps[some], smooth[some], 1)[0]
        return bool(np.median(smooth[some]) > floor and -slope * steps[-1] < fall)

    longest = max(
        (some for some in _level(steps, smooth, window, band) if counts(some)),
        key=lambda some: steps[some.stop - 1] - steps[some.start],
        default=None,
    )
    if longest is None:
        return nothing
    level = float(np.median(smooth[longest]))
    above = np.flatnonzero(smooth >= level + math.log(LEFT))
    left = max(longest.start, above[-1] + 1 if len(above) else 0)
    return {
        "plateau_left_at": int(steps[left]) if left < len(steps) else None,
        "plateau_loss": round(math.exp(level), 4),
    }


def _level(steps: np.ndarray, smooth: np.ndarray, window: int, band: float) -> Iterator[slice]:
    """Return level stretches that cannot be extended to either side and are long enough."""
    start = 0
    for stop in range(1, len(steps) + 1):
        while np.ptp(smooth[start:stop]) > band:
            start += 1
        if stop < len(steps) and np.ptp(smooth[start : stop + 1]) <= band:
            continue
        first, last = steps[start], steps[stop - 1]
        if stop - start >= window and last >= STRETCH * first and last - first >= PART * steps[-1]:
            yield slice(start, stop)
