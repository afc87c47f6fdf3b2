"""docs/attention-backends.md holds the tables that the code gives."""

from pathlib import Path

import pytest
import torch

from lcg import registry
from lcg.attention import Attention
from lcg.attention.backends import BACKENDS, FORMS, OPTIONS, check_backend, usable
from lcg.attention.backends.triton import obstacle
from lcg.attention.functional import Bias
from lcg.attention.normalizers.softmax import Softmax
from lcg.config.help import backends
from lcg.positional.base import PositionEncoding
from lcg.positional.groups import Heads
from lcg.positional.nope import NoPE
from lcg.positional.polar import PoPE
from lcg.positional.wrappers import Randomised

PAGE = Path(__file__).parents[2] / "docs" / "attention-backends.md"


def test_the_page_shows_what_lcg_list_backends_prints():
    assert backends() in PAGE.read_text(), "paste the output of `lcg list backends`"


def marks(start: str) -> list[str]:
    """The marks of the row of the tables that begins with that."""
    (row,) = (line for line in backends().splitlines() if line.startswith(start))
    return row.split(" | ")[-len(BACKENDS) :]


@pytest.mark.parametrize("form", FORMS)
def test_an_encoding_with_a_form_runs_on_the_backends_of_the_table(form):
    """An encoding that fills in this hook alone is refused by the backends without a mark."""
    cls = type("Form", (PositionEncoding,), {"name": "form", form: lambda self, *arguments: None})
    for backend, mark in zip(BACKENDS, marks(f"| `{form}`:"), strict=True):
        if mark.startswith("yes"):
            check_backend(backend, Softmax(), cls())
        else:
            with pytest.raises(ValueError, match=f"backend={backend}: it has a {form}"):
                check_backend(backend, Softmax(), cls())


@pytest.mark.parametrize("name", registry.available("normalizer"))
def test_a_normalizer_runs_on_the_backends_of_the_table(name):
    normalizer = registry.available("normalizer")[name]()
    for backend, mark in zip(BACKENDS, marks(f"| `{name}` |"), strict=True):
        if mark.startswith("yes"):
            check_backend(backend, normalizer)
        else:
            with pytest.raises(ValueError, match=f"normalizer={name} has no {backend} backend"):
                check_backend(backend, normalizer)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_runs_on_the_backends_of_the_table(option):
    value = {"sink": "zero", "softcap": 9.0, "selective": True}[option]
    for backend, mark in zip(BACKENDS, marks(f"| `attention.{option}` |"), strict=True):
        if mark.startswith("yes"):
            assert backend in Attention(**{option: value}, backend=backend).backends
        else:
            with pytest.raises(ValueError, match=rf"attention\.{option} has no {backend} backend"):
                Attention(**{option: value}, backend=backend)
            assert backend not in Attention(**{option: value}).backends


@pytest.mark.parametrize("name", registry.available("output_norm"))
def test_an_output_norm_runs_where_the_table_says(name):
    norm = registry.available("output_norm")[name]()
    for backend, mark in zip(BACKENDS, marks(f"| `{name}` |"), strict=True):
        if mark.startswith("yes"):
            assert backend in Attention(output_norm=norm, backend=backend).backends
        else:
            with pytest.raises(ValueError, match=f"output_norm={name} has no {backend} backend"):
                Attention(output_norm=norm, backend=backend)


@pytest.mark.parametrize("form", FORMS)
def test_the_kernels_take_the_forms_that_the_table_says(form, monkeypatch):
    """A bias of this form alone, on a device that runs kernels."""
    monkeypatch.setattr("lcg.attention.backends.unrunnable", lambda backend, device: None)
    fields = {
        "slopes": {"slopes": torch.ones(2)},
        "table": {"table": torch.ones(2, 3)},
        "separable": {"rows": torch.ones(1, 2, 3), "columns": torch.ones(1, 2, 3)},
        "window": {"window": torch.ones(2, dtype=torch.int64)},
        "bias": {"additive": lambda tile, learned: None},
        "map_scores": {"score_map": lambda scores, tile, learned: scores},
    }
    q, places = torch.ones(1, 2, 3, 16), torch.arange(3)
    problem = obstacle(q, q, Softmax(), Bias(places, places, **fields[form]))
    assert (problem is None) == marks(f"| `{form}`:")[-1].startswith("yes")
    assert problem is None or form in problem


def test_wider_queries_are_refused_by_the_kernels():
    """Also those of one group of heads, and of what an encoding wraps."""
    for position in (PoPE(), Heads([PoPE(), NoPE()], [2, 2]), Randomised(PoPE())):
        assert usable(Softmax(), position) == ["reference", "blockwise"]
        with pytest.raises(ValueError, match="backend=triton: it has a wider query and key"):
            check_backend("triton", Softmax(), position)
