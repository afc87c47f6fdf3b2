"""Where metrics go: metrics.csv always, Weights & Biases unless it is turned off."""

from __future__ import annotations

import csv
import io
import netrc
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lcg.results import write_atomic


class CSVMetrics:
    """One row per logged step, columns fixed at the start, appended to as training goes.

    Resuming drops the rows of steps that are done again.
    """

    def __init__(self, path: Path, columns: list[str], resume_step: int) -> None:
        self.columns = ["step", *columns]
        rows = []
        if path.exists():
            with path.open(newline="") as file:
                rows = [
                    r for r in csv.DictReader(file) if _whole(r) and int(r["step"]) <= resume_step
                ]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, text.getvalue())
        self._file = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, self.columns, extrasaction="ignore", restval="")

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Append one row and hand it to the system."""
        self._writer.writerow({"step": step} | metrics)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _whole(row: dict[str, str | None]) -> bool:
    """Whether a row was written to its end; the last one of a killed run may not be."""
    return None not in row.values() and (row.get("step") or "").isdigit()


def choose_mode(requested: str, timeout: float = 2.5) -> tuple[str, str]:
    """The W&B mode to use, and why it is not online where that needs saying.

    `wandb.init` waits 100 s for a network that is not there, so this looks first: for a login, and
    for a server that accepts a connection, in at most `timeout` seconds.
    """
    requested = os.environ.get("WANDB_MODE", requested) if requested == "auto" else requested
    if requested == "dryrun":
        requested = "offline"
    if requested in ("offline", "disabled", "online"):
        return requested, ""
    url = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    if not _has_login(url.hostname or ""):
        return "offline", "there is no W&B login (wandb login)"
    port = url.port or (443 if url.scheme == "https" else 80)
    if not _reachable(url.hostname or "", port, timeout):
        return "offline", f"{url.hostname} does not answer"
    return "online", ""


def _has_login(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if name and netrc.netrc(os.path.expanduser(name)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _reachable(host: str, port: int, timeout: float) -> bool:
    """Whether a connection opens in time, name lookup included."""
    import threading

    answer: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout).close()
            answer.append(True)
        except OSError:
            answer.append(False)

    # A thread, because a name lookup has no time-out of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout)
    return answer == [True]


class WandbMetrics:
    """A W&B run, online or offline, on a step axis of our own.

    An offline run that resumes starts a second offline folder, and W&B drops rows whose own step
    is lower than the last: hence `trainer/step` as the axis of every metric.
    """

    def __init__(
        self, config, tree: dict[str, Any], directory: Path, name: str, run_id: str
    ) -> None:
        self.mode, why = choose_mode(config.wandb.mode)
        self.run = None
        self.note = ""
        if self.mode == "disabled":
            return
        import wandb

        settings = wandb.Settings(silent=True, init_timeout=20, console="off")
        self.run = wandb.init(
            project=config.wandb.project,
            entity=config.wandb.entity,
            group=config.wandb.group,
            tags=config.wandb.tags or None,
            name=name,
            id=os.environ.get("WANDB_RUN_ID") or run_id,
            resume="allow" if self.mode == "online" else None,
            config=tree,
            dir=directory,
            mode=self.mode,
            settings=settings,
        )
        self.run.define_metric("trainer/step")
        self.run.define_metric("*", step_metric="trainer/step")
        if self.mode == "offline":
            folder = Path(self.run.dir).parent
            because = f" because {why}" if why else ""
            self.note = f"W&B: offline{because}; upload later with: wandb sync {folder}"
        else:
            self.note = f"W&B: {self.run.url}"

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        if self.run is not None:
            self.run.log({"trainer/step": step} | metrics)

    def summarize(self, values: dict[str, Any]) -> None:
        if self.run is not None:
            self.run.summary.update(values)

    def close(self, exit_code: int = 0) -> None:
        if self.run is not None:
            self.run.finish(exit_code=exit_code)
