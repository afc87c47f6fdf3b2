"""A small W&B server on the loopback interface: what wandb 0.31 asks of one, and no more.

Seen to be asked, all of it GraphQL by POST /graphql unless a path is named:

    wandb agent   Viewer, SweepWithRuns, CreateAgent, Heartbeat (every 5 s, and when a run ends)
    wandb.init    ServerFeaturesQuery and others unknown here, RunResumeStatus, UpsertBucket
    a run         POST /files/ENTITY/PROJECT/RUN/file_stream: history, summary, and at its end
                  `complete` and `exitcode`; CreateRunFiles and a PUT for each file
    wandb.sweep   UpsertSweep
"""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

ENTITY, PROJECT, SWEEP = "someone", "lcg", "abcd1234"


@dataclass
class Run:
    """Everything the server was told of one run."""

    name: str
    display_name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    preempting: bool = False
    exit_code: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    upserts: int = 0

    @property
    def state(self) -> str:
        if self.exit_code is None:
            return "preempting" if self.preempting else "running"
        return "finished" if self.exit_code == 0 else "failed"


class WandbServer:
    """Hands out run commands to agents, and keeps what runs upload.

    `sweep` is the sweep file's content. Each call of `hand_out` adds a run; `stop` asks the agent
    to end one. After
    `hang` it accepts connections and says nothing, after `close` it is gone.
    """

    def __init__(self, sweep: str = "{}") -> None:
        self.sweep = sweep
        self.waiting: list[dict[str, Any]] = []
        self.stopping: set[str] = set()
        self.runs: dict[str, Run] = {}
        self.asked: list[str] = []
        self.registered: dict[str, Any] = {}
        self.problems: list[str] = []
        self.hanging = threading.Event()
        self._let_go = threading.Event()
        self._lock = threading.Lock()
        server = self

        class Handler(_Handler):
            wandb = server

        self._connections: set[socket.socket] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """Return the environment with which a process talks to this server and to no other."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",  # seconds; 15 at wandb.ai
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def hand_out(self, run_id: str, **arguments: Any) -> None:
        """The next agent that asks is to start this run."""
        args = {key.replace("__", "."): {"value": value} for key, value in arguments.items()}
        self.waiting.append({"type": "run", "run_id": run_id, "program": "lcg", "args": args})

    def stop(self, run_id: str) -> None:
        """As the stop button of a run: asked at every heartbeat while the run goes on."""
        self.stopping.add(run_id)

    def run(self, name: str) -> Run:
        return self.runs.setdefault(name, Run(name))

    def hang(self) -> None:
        """Accept connections from now on, and never answer."""
        self.hanging.set()

    def close(self) -> None:
        """No longer there: open connections break, new ones are refused."""
        self._let_go.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # ---- answers

    def answer(self, name: str, variables: dict[str, Any], query: str) -> dict[str, Any] | None:
        """The data of a GraphQL answer; None for what is not known here."""
        with self._lock:
            self.asked.append(name)
            known = getattr(self, f"_{name}", None)
            return None if known is None else known(variables, query)

    def _Viewer(self, variables, query):
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {
            "viewer": {
                "id": "user",
                "name": ENTITY,
                "username": ENTITY,
                "email": "",
                "admin": False,
                "entity": ENTITY,
                "flags": "{}",
                "teams": teams,
            }
        }

    def _GetDefaultEntity(self, variables, query):
        return {"viewer": {"id": "user", "entity": ENTITY}}

    def _OrganizationCoreWeaveOrganizationID(self, variables, query):
        return {"entity": None}

    def _SweepWithRuns(self, variables, query):
        sweep = {
            "id": "sweep",
            "name": SWEEP,
            "state": "RUNNING",
            "method": "grid",
            "config": self.sweep,
            "runs": {"edges": []},
        }
        return {"project": {"sweep": sweep}}

    def _CreateAgent(self, variables, query):
        return {"createAgent": {"agent": {"id": "agent"}}}

    def _Heartbeat(self, variables, query):
        running = json.loads(variables["runState"])
        commands = [{"type": "stop", "run_id": r} for r in self.stopping & set(running)]
        if not commands and not running:
            commands = [self.waiting.pop(0)] if self.waiting else [{"type": "exit"}]
        heartbeat = {"agent": {"id": "agent"}, "commands": json.dumps(commands)}
        return {"agentHeartbeat": heartbeat}

    def _UpsertSweep(self, variables, query):
        self.registered = variables
        project = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}
        sweep = {"name": SWEEP, "project": project}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _UpsertBucket(self, variables, query):
        run = self.run(variables["name"])
        run.upserts += 1
        run.display_name = variables.get("displayName") or run.display_name
        run.config |= json.loads(variables.get("config") or "{}")
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": run.upserts == 1}}

    def _CreateRunFiles(self, variables, query):
        where = f"{self.url}/upload/{variables['run']}"
        files = [{"name": name, "uploadUrl": f"{where}/{name}"} for name in variables["files"]]
        answer = {"runID": f"id-{variables['run']}", "uploadHeaders": [], "files": files}
        return {"createRunFiles": answer}

    def _MarkRunFilesUploaded(self, variables, query):
        return {"markRunFilesUploaded": {"success": True}}

    def _Runs(self, variables, query):
        """50 a page, as W&B has it; wandb asks for the summaries with `lazy=False`."""
        names = sorted(self.runs)
        first = int(variables["cursor"] or 0)
        page = names[first : first + variables["perPage"]]
        edges = [
            {"node": self._node(self.runs[name]), "cursor": str(first + i + 1)}
            for i, name in enumerate(page)
        ]
        more = first + len(page) < len(names)
        runs = {
            "edges": edges,
            "pageInfo": {"endCursor": str(first + len(page)), "hasNextPage": more},
        }
        facts = {"internalId": "1", "runCount": len(names), "readOnly": False}
        return {"project": facts | {"runs": runs}}

    def _node(self, run: Run) -> dict[str, Any]:
        user = {"name": ENTITY, "username": ENTITY}
        return {
            "projectId": "1",
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.display_name,
            "state": run.state,
            "tags": [],
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "historyLineCount": len(run.history),
            "historyKeys": {},
            "readOnly": False,
            "createdAt": "2026-01-01T00:00:00Z",
            "heartbeatAt": "2026-01-01T00:00:00Z",
            "user": user,
        }

    def _RunResumeStatus(self, variables, query):
        run = self.runs.get(variables["name"])
        bucket = None
        if run is not None and run.upserts:
            bucket = self._bucket(run) | {
                "historyLineCount": len(run.history),
                "eventsLineCount": 0,
                "logLineCount": 0,
                "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
                "eventsTail": "[]",
                "summaryMetrics": json.dumps(run.summary),
                "config": json.dumps(run.config),
                "wandbConfig": "{}",
                "tags": [],
            }
        return {"model": {"id": "p", "name": PROJECT, "bucket": bucket}}

    def _bucket(self, run: Run) -> dict[str, Any]:
        project = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}
        return {
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.display_name,
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.history),
        }

    def stream(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Take what a run appends to its history and summary."""
        with self._lock:
            run = self.run(name)
            for file, part in body.get("files", {}).items():
                lines = [json.loads(line) for line in part["content"] if file != "output.log"]
                if file == "wandb-history.jsonl":
                    run.history += lines
                elif file == "wandb-summary.json":
                    run.summary |= lines[-1]
            run.preempting |= bool(body.get("preempting"))
            if body.get("complete"):
                run.exit_code = body.get("exitcode")
            return {}


class _Handler(BaseHTTPRequestHandler):
    wandb: WandbServer
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        self.wandb._connections.add(self.connection)
        with suppress(ConnectionError):
            super().handle()
        self.wandb._connections.discard(self.connection)

    def do_POST(self) -> None:
        body = self._body()
        path = urlparse(self.path).path
        if path == "/graphql":
            query = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            name = name.group(1) if name else "unnamed"
            data = self.wandb.answer(name, query.get("variables") or {}, query["query"])
            if data is None:
                error = {"message": f"Cannot query {name} here"}
                self._send({"errors": [error], "data": None}, 400)
            else:
                self._send({"data": data})
        elif match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
            self._send(self.wandb.stream(match.group(1), json.loads(body)))
        else:
            self.wandb.problems.append(f"POST {self.path}")
            self._send({}, 404)

    def do_PUT(self) -> None:
        body = self._body()
        _, _, run, name = urlparse(self.path).path.split("/", 3)
        self.wandb.run(run).files[name] = body
        self._send({})

    def do_GET(self) -> None:
        self.wandb.asked.append(f"GET {self.path}")
        self._send({}, 404)

    def _body(self) -> bytes:
        if self.wandb.hanging.is_set():
            self.wandb._let_go.wait()
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            data = gzip.decompress(data)
        return data

    def _send(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words) -> None:
        """Nothing."""
