"""The models by their formulas: one sequence, float64, plain matrix-vector products.

prenorm: x + attention(norm x), x + MLP(norm x). gemma2, the block of the ASEntmax authors: norms
before and after both, GeGLU, embeddings times √width. gpt2: as prenorm, with LayerNorm for RMSNorm
and biases. The head's matrix is in the state, tied to the embedding or not.
"""

from __future__ import annotations

import math

import torch
from oracles.attention import POSITIONS, Choices, State, attention, formula
from torch import Tensor


def rms_norm(x: Tensor, w: Tensor) -> Tensor:
    return x / (x.dot(x) / len(x) + 1e-6).sqrt() * (1 + w)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.sum() / len(x)
    return centred / (centred.dot(centred) / len(x) + 1e-5).sqrt() * weight + bias


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def decoder(tokens: list[int], state: State, choices: Choices, layers: int, block: str) -> Tensor:
    """Logits [tokens vocabulary]; state: the model's tensors by their names in its state dict."""
    return _logits(_side(tokens, state, choices, layers, block, "causal", ""), state)


def encoder(tokens: list[int], state: State, choices: Choices, layers: int, block: str) -> Tensor:
    """As `decoder`, but every token sees all others."""
    return _logits(_side(tokens, state, choices, layers, block, "full", ""), state)


def encoder_decoder(
    tokens: list[int],
    source: list[int],
    state: State,
    choices: Choices,
    cross: Choices,
    layers: tuple[int, int],
    block: str,
) -> Tensor:
    """Logits [tokens vocabulary] of a target given its source; layers of encoder and decoder."""
    memory = _side(source, state, choices, layers[0], block, "full", "source_")
    return _logits(
        _side(tokens, state, choices, layers[1], block, "causal", "", memory, cross), state
    )


def _logits(x: Tensor, state: State) -> Tensor:
    return torch.stack([state["head.weight"] @ row for row in x])


def _side(
    tokens: list[int],
    state: State,
    choices: Choices,
    layers: int,
    block: str,
    kind: str,
    prefix: str,
    memory: Tensor | None = None,
    cross: Choices | None = None,
) -> Tensor:
    """Tokens through the blocks and the last norm of one side, which may look at a memory."""
    gemma = block == "gemma2"

    def norm(x: Tensor, name: str) -> Tensor:
        if block == "gpt2":
            tensors = state[f"{name}.weight"], state[f"{name}.bias"]
            return torch.stack([layer_norm(row, *tensors) for row in x])
        return torch.stack([rms_norm(row, state[f"{name}.weight"]) for row in x])

    def mlp(row: Tensor, name: str) -> Tensor:
        inner = state[f"{name}.input.weight"] @ row + state.get(f"{name}.input.bias", 0.0)
        active = gelu(state[f"{name}.gate.weight"] @ row) * inner if gemma else gelu(inner)
        return state[f"{name}.output.weight"] @ active + state.get(f"{name}.output.bias", 0.0)

    embed = formula(POSITIONS, "position", choices.position.name).embed
    learned = _below(f"{prefix}position_state", state)
    rows = []
    for i, token in enumerate(tokens):
        row = state["embedding.weight"][token]
        row = row * math.sqrt(len(row)) if gemma else row
        rows.append(embed(row, i, choices.position.options, learned))
    x = torch.stack(rows)
    for layer in range(layers):
        name = f"{prefix}blocks.{layer}"
        heads, _ = attention(
            norm(x, f"{name}.attention_norm"), _below(f"{name}.attention", state), choices, kind
        )
        x = x + (norm(heads, f"{name}.attention_post_norm") if gemma else heads)
        if memory is not None:
            own, tensors = norm(x, f"{name}.cross_norm"), _below(f"{name}.cross", state)
            heads, _ = attention(own, tensors, cross, "cross", memory)
            x = x + (norm(heads, f"{name}.cross_post_norm") if gemma else heads)
        inner = torch.stack([mlp(row, f"{name}.mlp") for row in norm(x, f"{name}.mlp_norm")])
        x = x + (norm(inner, f"{name}.mlp_post_norm") if gemma else inner)
    return norm(x, f"{prefix}norm")


def _below(prefix: str, state: State) -> State:
    """The tensors whose names begin with `prefix.`, without it."""
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
