"""What the triton backend cannot run is refused in one line that says what can, without triton."""

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from lcg.attention import Attention, backends
from lcg.attention.attend import Bias, attend
from lcg.attention.backends import check_backend, usable
from lcg.attention.backends.triton import obstacle
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.topk import TopK
from positional.base import PositionEncoding
from positional.slopes import NAPE


@dataclass
class Bent(PositionEncoding):
    """A bias that is not a slope."""

    name: ClassVar[str] = "bent"

    def bias(self, context, learned):
        return None


def refused(attempt, *words):
    with pytest.raises(ValueError) as error:
        attempt()
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in (*words, "blockwise")), message


def problem(width=16, **fields):
    q, positions = torch.randn(1, 2, 3, width), torch.arange(3)
    return q, Bias(positions, positions, **fields)


def test_a_machine_without_cuda(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    q, bias = problem()
    refused(lambda: attend(q, q, q, Entmax(), bias, backend="triton"), "triton")


def test_a_machine_without_triton(monkeypatch):
    monkeypatch.setattr(backends, "TRITON", False)
    q, bias = problem()
    refused(lambda: attend(q, q, q, Entmax(), bias, backend="triton"), "lcg[triton]")


def test_a_bias_that_is_not_a_slope():
    q, bias = problem(additive=lambda queries, keys, learned: None)
    refused(lambda: attend(q, q, q, Entmax(), bias, backend="triton"), "bias")
    refused(lambda: check_backend("triton", Entmax(), Bent()), "position=bent", "slopes")
    assert usable(Entmax(), Bent()) == ["reference", "blockwise"]
    assert "triton" in usable(Entmax(), NAPE())


def test_a_normalizer_without_kernels_and_a_head_that_is_too_wide():
    refused(lambda: Attention(TopK(), backend="triton"), "normalizer=topk")
    wide, bias = problem(130)
    assert "head_dim" in obstacle(wide, Entmax(), bias)


def test_nothing_imports_triton_before_it_runs():
    code = (
        "import sys, lcg.attention.attend, lcg.attention.backends.triton\n"
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
