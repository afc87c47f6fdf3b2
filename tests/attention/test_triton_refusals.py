"""The triton backend refuses in one line, which says what can run instead; without triton."""

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from lcg.attention import Attention, backends
from lcg.attention.backends import blockwise, check_backend, usable
from lcg.attention.backends.triton import obstacle
from lcg.attention.functional import Bias, attend, check_sizes
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.topk import TopK
from lcg.positional.base import PositionEncoding
from lcg.positional.groups import NAPE


@dataclass
class Bent(PositionEncoding):
    """A bias that is a function of positions."""

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


def test_a_bias_that_is_a_function():
    q, bias = problem(additive=lambda tile, learned: None)
    refused(lambda: attend(q, q, q, Entmax(), bias, backend="triton"), "bias")
    refused(lambda: check_backend("triton", Entmax(), Bent()), "position=bent", "has a bias")
    assert usable(Entmax(), Bent()) == ["reference", "blockwise"]
    assert "triton" in usable(Entmax(), NAPE())


def test_a_normalizer_without_kernels_and_a_head_that_is_too_wide():
    refused(lambda: Attention(TopK(), backend="triton"), "normalizer=topk")
    wide, bias = problem(130)
    assert "head_dim" in obstacle(wide, wide, Entmax(), bias)


@pytest.mark.parametrize("scale", [0.0, -0.25, 1e-3, 1e4])
def test_a_scale_that_is_too_small_or_too_large(scale):
    q, bias = problem(scale=scale)
    refused(lambda: attend(q, q, q, Entmax(), bias, backend="triton"), "scale", f"{scale:.3g}")


@dataclass
class Promising(TopK):
    """It lists the backend, and names no kernel."""

    name: ClassVar[str] = "promising"
    backends: ClassVar[tuple[str, ...]] = ("reference", "blockwise", "triton")


def test_a_normalizer_that_names_no_kernel():
    q, bias = problem()
    assert obstacle(q, q, Promising(), bias) == "cannot run normalizer=promising"


def test_nothing_imports_triton_before_it_runs():
    code = (
        "import sys, lcg.attention.functional, lcg.attention.backends.triton\n"
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"v": (1, 2, 5, 4)}, "v must be"),
        ({"k": (1, 2, 6, 8), "v": (1, 2, 6, 8)}, "k must be"),
        ({"k": (3, 2, 6, 4), "v": (3, 2, 6, 4)}, "k must be"),
        ({"q": (1, 3, 6, 4), "slopes": (3,), "a": (3,)}, "cannot share"),
        ({"q_positions": (5,)}, "q_positions must be [6]"),
        ({"k_positions": (7,)}, "k_positions must be [6]"),
        ({"slopes": (1,)}, "slopes must be [2]"),
        ({"q_ids": (5,), "k_ids": (6,)}, "q_ids must be [6] or [1, 6]"),
        ({"q_ids": (6,), "k_ids": (2, 6)}, "k_ids must be [6] or [1, 6]"),
        ({"table": (1, 6)}, "table must be [2 …]"),
        ({"rows": (1, 2, 5), "columns": (1, 2, 6)}, "rows must be [1, 2, 6]"),
        ({"window": (3,)}, "window must be [2]"),
        ({"key_mask": (1, 4)}, "key_mask must be"),
        ({"q": (2, 6, 4)}, "q must be [batch heads"),
        ({"a": (3,)}, "learned a must be [2 …]"),
        ({"a": (1,)}, "learned a must be [2 …]"),
    ],
)
def test_sizes_that_do_not_fit(change, named):
    """Kernels would read beyond what is there; in tests others check the shapes of `attend`."""
    sizes = dict.fromkeys("qkv", (1, 2, 6, 4)) | {"q_positions": (6,), "k_positions": (6,)}
    sizes |= {"slopes": (2,), "key_mask": (1, 6), "a": (2,)} | change
    made = {name: torch.ones(shape) for name, shape in sizes.items()}
    tensors = [made.pop(name) for name in "qkv"]
    learned = {"a": made.pop("a")}
    bias = Bias(**made | {"key_mask": made["key_mask"].bool()})
    with pytest.raises(ValueError, match=re.escape(named)):
        check_sizes(*tensors, bias, learned)


def test_slopes_that_learn_have_a_gradient_or_are_refused(monkeypatch):
    for name, size in {"SMALL": 0, "KEPT": 0, "TILE": 16}.items():
        monkeypatch.setattr(blockwise, name, size)
    q, bias = problem()
    found = []
    for backend in ("reference", "blockwise"):
        slopes = torch.tensor([0.5, 0.1], requires_grad=True)
        out = attend(q, q, q, Entmax(1.0), bias._replace(slopes=slopes), backend=backend)
        out.square().sum().backward()
        found.append(slopes.grad)
    assert (found[0] != 0).all()
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    refused(
        lambda: attend(q, q, q, Entmax(), bias._replace(slopes=slopes), backend="triton"),
        "gradient of the slopes",
    )


def test_top_k_propagates_nan():
    q, bias = problem()
    k = q.clone()
    k[:, :, 1] = torch.nan
    out = attend(q, k, q, TopK(k=2), bias)
    assert out[:, :, 1:].isnan().all() and out[:, :, 0].isfinite().all()
