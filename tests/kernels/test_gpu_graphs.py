"""Steps that are recorded as a CUDA graph, and those that are not, with a mock device."""

import contextlib

import pytest
import torch

from benchmarks.gpu import graphs


class Pretended:
    """Counts what is done to the device, and fails where it is told to."""

    def __init__(self, monkeypatch, refuses=None):
        self.done, self.refuses, self.recording = [], refuses, False
        stream = type("Stream", (), {"wait_stream": lambda self, other: None})
        graph = type("CUDAGraph", (), {"replay": lambda graph: self.done.append("replay")})
        for name, made in {
            "Stream": stream,
            "CUDAGraph": graph,
            "current_stream": lambda: "the first stream",
            "stream": lambda stream: contextlib.nullcontext(),
            "graph": self.graph,
            "set_stream": lambda stream: self.done.append(f"back to {stream}"),
            "synchronize": lambda: None,
            "empty_cache": lambda: self.done.append("emptied"),
        }.items():
            monkeypatch.setattr(torch.cuda, name, made)

    @contextlib.contextmanager
    def graph(self, graph):
        self.recording = True
        yield
        self.recording = False

    def __call__(self):
        self.done.append("recorded" if self.recording else "called")
        if isinstance(self.refuses, Exception) or (self.refuses and self.recording):
            raise self.refuses if isinstance(self.refuses, Exception) else RuntimeError("a sync")


def test_a_graph_is_replayed(monkeypatch):
    call = Pretended(monkeypatch)
    run = graphs.recorded("ours", call, capture=True)
    assert call.done == ["called"] * graphs.WARM + ["recorded"]
    run()
    assert call.done[-1] == "replay"


def test_what_shall_not_be_recorded_is_called(monkeypatch):
    call = Pretended(monkeypatch)
    assert graphs.recorded("theirs", call, capture=False) is call
    assert call.done == ["called"] * graphs.WARM


def test_what_cannot_be_recorded_is_called_where_it_was(monkeypatch, capsys):
    call = Pretended(monkeypatch, refuses="while it is recorded")
    assert graphs.recorded("theirs", call, capture=True) is call
    assert call.done[-1] == "back to the first stream"
    assert "theirs is no CUDA graph" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.cuda.OutOfMemoryError("no"), "out of memory"),
        (AssertionError("only\nsome lengths"), "AssertionError: only some lengths"),
    ],
)
def test_failing_steps_are_not_timed(monkeypatch, error, said):
    with pytest.raises(graphs.Unready, match=said):
        graphs.recorded("theirs", Pretended(monkeypatch, refuses=error), capture=True)


def test_short_calls_are_run_several_times():
    calls, waits = [], []
    sample, times, once = graphs.sampled(lambda: calls.append(1), lambda: waits.append(1))
    assert times > 10 and 0 < once < graphs.LEAST
    calls.clear(), waits.clear()
    sample()
    assert len(calls) == times and len(waits) == 1
