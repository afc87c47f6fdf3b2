"""Weights & Biases, online or offline; its errors never stop training.

`wandb` is imported by the first run that uses it. Everything is in metrics.csv as well.
"""

from __future__ import annotations

import json
import netrc
import os
import shlex
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lcg.config import Config, to_tree
from lcg.log import log
from lcg.runs import provenance
from lcg.runs.record import RunRecord
from lcg.runs.wandb_reader import RECORD, one_line

LOGIN_VARIABLES = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
SERVICE = "api.wandb.ai"  # logins made before the service moved are under this name

# An agent kills 30 s after a stop request. With a server that accepts connections and is silent,
# wandb takes this long to finish, and then another 10 s, which cannot be set, to shut down.
FINISH_SECONDS = 8
START_SECONDS = 15


def choose_mode(requested: str, timeout: float = 5.0) -> tuple[str, str]:
    """Return the W&B mode to use, and a reason if it is unexpectedly not online.

    `wandb.init` waits 100 s without a network, so this checks first for a login, and for a server
    that accepts a connection, in at most `timeout` seconds. An invalid address of the server or of
    a proxy means offline.
    """
    if requested != "auto":
        return requested, ""
    if asked := os.environ.get("WANDB_MODE"):
        return {"dryrun": "offline", "run": "online"}.get(asked, asked), ""
    if not _has_login():
        return "offline", "there is no W&B login (wandb login)"
    url, source, preferred = _settings()
    if preferred in ("offline", "disabled"):
        return preferred, "wandb's own settings say so"
    try:
        host, port = _address(url, source, {"http": 80, "https": 443})
        place = _proxy(url, host) or (host, port)
    except ValueError as error:
        return "offline", str(error)
    if not _has_login(urlsplit(url).netloc, SERVICE):
        return "offline", f"there is no W&B login for {host} (wandb login)"
    if not _reachable(*place, timeout):
        return "offline", f"{host} does not answer"
    return "online", ""


def _has_login(*hosts: str) -> bool:
    """Look for a login at one of the hosts, or for any without hosts."""
    if any(map(os.environ.get, LOGIN_VARIABLES)):
        return True
    named = os.environ.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        with suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            logins = netrc.netrc(os.path.expanduser(path))
            if not hosts or any(map(logins.authenticators, hosts)):
                return True
    return False


def _settings() -> tuple[str, str, str | None]:
    """The server's address, what it is set by, and the mode that `wandb offline` may have set."""
    if address := os.environ.get("WANDB_BASE_URL"):
        return address, "WANDB_BASE_URL", None
    try:
        import wandb

        settings = wandb.setup().settings
        return settings.base_url, "base_url in wandb's settings", settings.mode
    except Exception:
        return f"https://{SERVICE}", "", None


def _address(url: str, source: str, ports: dict[str, int]) -> tuple[str, int]:
    """Host and port of a URL; ports: that of each scheme, where it names none.

    Raises ValueError, in one line that names the `source`, for a text that is no such URL.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in ports:
            raise ValueError(f"it does not begin with {' or '.join(ports)}://")
        if not (parts.hostname or "").encode("idna"):
            raise ValueError("it names no host")
        return parts.hostname, parts.port or ports[parts.scheme]
    except ValueError as error:
        raise ValueError(f"{source}={url} is not a valid URL: {one_line(error)}") from None


def _proxy(url: str, host: str) -> tuple[str, int] | None:
    """Host and port of the proxy for a URL, if any. Raises ValueError for one that is none."""
    name = f"{urlsplit(url).scheme}_proxy"
    proxy = urllib.request.getproxies().get(name.removesuffix("_proxy"))
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    set_by = next((v for v in os.environ if v.lower() == name and os.environ[v] == proxy), name)
    ports = dict.fromkeys(("http", "https", "socks", "socks4", "socks5", "socks5h"), 3128)
    return _address(proxy if "//" in proxy else f"http://{proxy}", set_by, ports)


def _reachable(host: str, port: int, timeout: float) -> bool:
    """Return True when a connection opens in time, name lookup included."""
    connected = threading.Event()

    def connect() -> None:
        with suppress(OSError, ValueError):  # ValueError: a name that cannot be looked up
            socket.create_connection((host, port), timeout=timeout).close()
            connected.set()

    # A thread, because a name lookup has no time-out of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout)
    return connected.is_set()


def summary(record: RunRecord) -> dict[str, Any]:
    """Return a W&B run's summary values, and the whole record as one text beside them.

    So it arrives in every case: it comes with the metrics, is in an offline run's folder too, and a
    project's records are read in a page of 50 runs a request, with no download for each run. W&B
    would flatten a mapping, and merge it with what was there.
    """
    shown: dict[str, Any] = {"status": record.training.status}
    for length, values in record.validation.items():
        shown[f"best/len_{length}/exact_match"] = values.exact_match
    return shown | {RECORD: json.dumps(record.to_dict(), allow_nan=False)}


def send_record(config: Config, directory: Path, exit_code: int = 0, new: bool = False) -> None:
    """Bring the record of a run that trains no more to its W&B run, which is opened again.

    A `new` one has no metrics yet, and a sweep that chose its arguments waits for some: it gets the
    selected checkpoint's validation. A run that W&B never knew gets nothing.
    """
    run_id = provenance.read_provenance(directory).get("wandb_id")
    if run_id is None:
        return
    record = RunRecord.load(directory)
    metrics = WandbMetrics(config, directory, run_id)
    if new and record.selection:
        values = record.validation.items()
        row = {f"val/len_{length}/exact_match": value.exact_match for length, value in values}
        metrics.log(record.selection.step, row)
    metrics.summarize(summary(record))
    metrics.close(exit_code)


class WandbMetrics:
    """A W&B run on a step axis of our own.

    An offline run that resumes starts a second offline folder, and W&B drops rows whose own step
    is lower than the last: hence `trainer/step` as the axis of every metric.
    """

    def __init__(self, config: Config, directory: Path, run_id: str) -> None:
        self.run = None
        mode, why = choose_mode(config.wandb.mode)
        if mode == "disabled":
            return
        if refused := _drop_refused_variables():
            mode, why = "offline", why or refused
        try:
            self._start(config, directory, run_id, mode)
        except Exception as error:
            why = f"it did not start: {one_line(error)}"
            try:
                _forget_start()
                self._start(config, directory, run_id, mode := "offline")
            except Exception as error:
                log.warning(f"W&B: not used, {one_line(error)}; metrics are in metrics.csv")
                return
        if mode == "offline":
            because = f" because {why}" if why else ""
            log.info(f"W&B: offline{because}; upload later with: {self._sync()}")
        else:
            log.info(f"W&B: {self.run.url}")

    def _start(self, config: Config, directory: Path, run_id: str, mode: str) -> None:
        import wandb

        run = wandb.init(
            project=config.wandb.project,
            entity=config.wandb.entity,
            group=config.wandb.group,
            tags=config.wandb.tags or None,
            name=directory.name,
            id=run_id,
            resume=None if mode == "offline" else "allow",
            config=to_tree(config),
            dir=directory,
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=START_SECONDS,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
            ),
        )
        run.define_metric("trainer/step")
        run.define_metric("*", step_metric="trainer/step")
        self.run = run

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Send a row."""
        self._try(lambda run: run.log({"trainer/step": step} | metrics))

    def summarize(self, values: dict[str, Any]) -> None:
        """Set what the run's page shows on top."""
        self._try(lambda run: run.summary.update(values))

    def close(self, exit_code: int = 0) -> None:
        """Wait for what is under way, but not for long: it is on disk as well."""
        run, sync = self.run, self._sync()
        self._try(lambda run: run.finish(exit_code=exit_code))
        if run is not None and self.run is None:
            log.warning(f"W&B: the upload is incomplete; upload the rest with: {sync}")
        self.run = None

    def _sync(self) -> str:
        """The command that uploads what is on disk."""
        return f"wandb sync {shlex.quote(str(Path(self.run.dir).parent))}" if self.run else ""

    def _try(self, action: Callable[[Any], None]) -> None:
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:
            self.run = None
            log.warning(f"W&B: stopped ({one_line(error)}); metrics.csv still has all metrics")
            if isinstance(error, ConnectionError):  # its process ended: at exit, it would be asked
                with suppress(ConnectionError):
                    _forget_start()


def _drop_refused_variables() -> str:
    """Take variables out of the environment with which wandb would not start; says which."""
    import wandb

    refused = []
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        try:
            wandb.Settings().update_from_env_vars({name: os.environ[name]})
        except Exception:
            refused.append(f"{name}={os.environ.pop(name)}")
    return f"wandb rejects {', '.join(refused)}" if refused else ""


def _forget_start() -> None:
    """A start that timed out keeps the run's id; wandb refuses another start under it."""
    import wandb

    wandb.teardown()
