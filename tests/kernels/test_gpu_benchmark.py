"""The comparison on CUDA devices, gone through in sizes that mean nothing: nobody may have one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.attention import Case, goal
from benchmarks.gpu.results import HEADER

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_benchmark_runs_to_its_end():
    pretended = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu", "--rehearse"]
    done = subprocess.run(command, cwd=ROOT, env=pretended, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if " | " in line]
    rows = [row for row in rows if row != HEADER]
    assert {row[2] for row in rows} == {"SDPA", "uncompiled", "blockwise", ""}
    assert all(len(row) == len(HEADER) and float(row[4] or 0) >= 0 for row in rows)
    assert {"with" if "NAPE" in row[0] else "without" for row in rows} == {"with", "without"}
    assert sum(not row[2] for row in rows) == 1  # the longest, which has no peer
    assert [f"# {section}" in done.stdout for section in gpu.SECTIONS] == [True] * 5


def test_it_names_the_missing_package(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert gpu.main(["--rehearse"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "needs a CUDA device" in said[0] and "TRITON_INTERPRET" in said[1]


@pytest.mark.parametrize(
    "words",
    [
        ["attention", "--types", "bf16"],
        ["attention", "--types", "fp8"],
        ["attention", "--lengths", "0"],
        ["short", "--widths", "200"],
        ["--rounds", "0"],
        ["model", "--run", "nowhere"],
        ["what"],
    ],
    ids=" ".join,
)
def test_a_wrong_word_is_refused(words, capsys, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    try:
        code = gpu.main([*words, "--rehearse"])
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and "Traceback" not in said[0]
    assert any(word.lstrip("-") in said[-1] for word in words)


@pytest.mark.parametrize(
    ("case", "mine", "peer", "wanted"),
    [
        (Case(8192, 64, "bf16"), "triton", "adasplash v2", "≥ 1"),
        (Case(16384, 64, "bf16"), "triton", "adasplash v2", "≥ 1.3"),
        (Case(16384, 64, "bf16"), "triton with NAPE", "adasplash v2", "≥ 2"),
        (Case(8192, 64, "bf16"), "triton with NAPE", "adasplash v2", ""),
        (Case(32768, 64, "bf16"), "triton with NAPE", "SDPA flash", "≥ 1"),
        (Case(32768, 64, "bf16"), "triton", "SDPA flash", ""),
        (Case(98, 32, "bf16", batch=128), "triton", "SDPA flash", "≥ 0.67"),
    ],
)
def test_goals(case, mine, peer, wanted):
    assert goal(case, mine, peer) == wanted
