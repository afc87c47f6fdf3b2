"""The shapes in signatures are checked while testing, and cost nothing otherwise."""

import importlib.util
import sys

import pytest
import torch
from jaxtyping import TypeCheckError
from oracles.registered import SIZES, small_decoder, tokens

import lcg.shapes
from lcg.attention.functional import Bias, attend, attention_weights
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import NoScaling
from lcg.evaluation.scoring import score_teacher_forcing
from lcg.positional.nope import NoPE


def q(*shape):
    return torch.randn(*shape)


def bias(queries=3, keys=3):
    return Bias(torch.arange(queries), torch.arange(keys))


@pytest.mark.parametrize(
    ("k", "v"),
    [
        (q(2, 4, 3, 5), q(2, 4, 2, 5)),  # another number of keys
        (q(2, 4, 3, 6), q(2, 4, 3, 6)),  # another width
        (q(1, 4, 3, 5), q(1, 4, 3, 5)),  # another batch
        (q(4, 3, 5), q(4, 3, 5)),  # no batch
        (q(2, 4, 3, 5).long(), q(2, 4, 3, 5)),  # no floating point
    ],
)
def test_attend_refuses_shapes_that_do_not_fit(k, v):
    with pytest.raises(TypeCheckError):
        attend(q(2, 4, 3, 5), k, v, Softmax(), bias())


def test_weights_model_and_scoring_are_checked_too():
    model = small_decoder(Softmax(), NoScaling(), NoPE())
    words, layer = tokens(2, 4), model.blocks[0].attention
    for call in (
        lambda: attention_weights(q(2, 4, 3, 5), q(2, 4, 3, 6), Softmax(), bias()),
        lambda: model(words.float()),
        lambda: model(words[0]),
        lambda: model(words, select=torch.tensor([[0, 1]])),
        lambda: layer(q(4, SIZES[1].d_model), torch.arange(4)),
        lambda: layer(q(2, 4, SIZES[1].d_model), select=torch.zeros(4)),
        lambda: score_teacher_forcing(model, words, words[:, :-1]),
    ):
        with pytest.raises(TypeCheckError):
            call()


def test_an_annotation_is_the_array_type_where_jaxtyping_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxtyping", None)
    spec = importlib.util.spec_from_file_location("shapes_alone", lcg.shapes.__file__)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    for name in alone.__all__:
        kind = getattr(alone, name)
        assert kind[torch.Tensor, "b t"] is torch.Tensor
        assert kind[torch.Tensor, "b t"] | None == torch.Tensor | None
