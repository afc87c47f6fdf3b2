"""The report as a W&B artifact: by a stand-in for the library, and by the library offline."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lcg.cli import main


class Stand(ModuleType):
    """The part of wandb's interface that an upload uses; notes what it was called with."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: dict = {}
        self.logged: list = []
        self.finished = 0
        self.Settings = SimpleNamespace

    def init(self, **options):
        self.started = options
        return SimpleNamespace(
            url="https://wandb.example/run", log_artifact=self.logged.append, finish=self._finish
        )

    def _finish(self) -> None:
        self.finished += 1

    class Artifact:
        def __init__(self, name: str, type: str, metadata: dict) -> None:
            self.name, self.type, self.metadata = name, type, metadata
            self.files: dict[str, str] = {}

        def add_file(self, path: str, name: str) -> None:
            self.files[name] = Path(path).read_text(encoding="utf-8")

        def new_file(self, name: str, encoding: str):
            import contextlib
            import io

            @contextlib.contextmanager
            def opened():
                file = io.StringIO()
                yield file
                self.files[name] = file.getvalue()

            return opened()


@pytest.fixture
def stand(monkeypatch) -> Stand:
    stand = Stand()
    monkeypatch.setitem(sys.modules, "wandb", stand)
    return stand


@pytest.fixture
def alone(tmp_path: Path, run_of, write) -> Path:
    """One run with a loss curve: a page of two figures."""
    return write(tmp_path / "runs", run_of({32: 200, 64: 100}), heads=False)


def send(folder: Path, page: Path) -> int:
    return main(["report", str(folder), "-o", str(page), "--no-maps", "--wandb", "lab/carry"])


def test_page_and_figures_are_one_artifact(
    alone: Path, tmp_path: Path, stand: Stand, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    page = tmp_path / "report.html"
    assert send(alone, page) == 0
    assert (stand.started["entity"], stand.started["project"]) == ("lab", "carry")
    assert stand.started["mode"] == "online"
    (artifact,) = stand.logged
    assert artifact.type == "report"
    assert artifact.metadata["runs"] == ["copy-softmax-nape-s0-lr0.001"]
    assert artifact.files.pop("report.html") == page.read_text()
    assert len(artifact.files) == 2
    assert all(
        name.startswith("figures/") and name.endswith(".svg") and text.rstrip().endswith("</svg>")
        for name, text in artifact.files.items()
    )
    assert stand.finished == 1
    assert "https://wandb.example/run" in capsys.readouterr().err


def test_errors_of_wandb_are_a_line(
    alone: Path, tmp_path: Path, stand: Stand, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")

    def refuse(**options):
        raise RuntimeError("permission\ndenied")

    stand.init = refuse
    page = tmp_path / "report.html"
    assert send(alone, page) == 0
    assert page.exists()
    assert "the report was not sent (permission denied)" in capsys.readouterr().err


def test_disabled_means_disabled(
    alone: Path, tmp_path: Path, stand: Stand, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert send(alone, tmp_path / "report.html") == 0
    assert not stand.started
    assert "nothing was sent" in capsys.readouterr().err


def test_offline_by_the_library_itself(alone: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """The offline run's file holds the artifact's record with every name, to be synced later."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    page = tmp_path / "report.html"
    assert send(alone, page) == 0
    said = capsys.readouterr().err
    assert "W&B: offline; send the report later with: wandb sync " in said
    run = Path(said.rpartition("wandb sync ")[2].strip())
    (record,) = run.glob("*.wandb")
    names = (b"report.html", b"figures/task-1-copy-accuracy.svg", b"figures/task-1-copy-loss")
    # wandb's service writes behind finish(); it has when it is gone.
    import wandb

    wandb.teardown()
    content = record.read_bytes()
    assert [name for name in names if name not in content] == []
