"""The decoder by its formulas: one sequence, float64, plain matrix-vector products.

prenorm: x + attention(norm x), x + MLP(norm x). gemma2, the block of the ASEntmax authors: norms
before and after both, GeGLU, embeddings times √width. The head is not tied to the embedding.
"""

from __future__ import annotations

import math

import torch
from oracles.attention import POSITIONS, Choices, State, attention, formula
from torch import Tensor


def rms_norm(x: Tensor, w: Tensor) -> Tensor:
    return x / (x.dot(x) / len(x) + 1e-6).sqrt() * (1 + w)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def decoder(tokens: list[int], state: State, choices: Choices, layers: int, block: str) -> Tensor:
    """Logits [tokens vocabulary]; state: the model's tensors by their names in its state dict."""
    gemma = block == "gemma2"

    def norm(x: Tensor, name: str) -> Tensor:
        return torch.stack([rms_norm(row, state[f"{name}.weight"]) for row in x])

    def mlp(row: Tensor, name: str) -> Tensor:
        inner = state[f"{name}.input.weight"] @ row
        active = gelu(state[f"{name}.gate.weight"] @ row) * inner if gemma else gelu(inner)
        return state[f"{name}.output.weight"] @ active

    embed = formula(POSITIONS, "position", choices.position.name).embed
    rows = []
    for i, token in enumerate(tokens):
        row = state["embedding.weight"][token]
        row = row * math.sqrt(len(row)) if gemma else row
        rows.append(embed(row, i, choices.position.options, _below("position_state", state)))
    x = torch.stack(rows)
    for layer in range(layers):
        name = f"blocks.{layer}"
        heads, _ = attention(
            norm(x, f"{name}.attention_norm"), _below(f"{name}.attention", state), choices
        )
        x = x + (norm(heads, f"{name}.attention_post_norm") if gemma else heads)
        inner = torch.stack([mlp(row, f"{name}.mlp") for row in norm(x, f"{name}.mlp_norm")])
        x = x + (norm(inner, f"{name}.mlp_post_norm") if gemma else inner)
    return torch.stack([state["head.weight"] @ row for row in norm(x, "norm")])


def _below(prefix: str, state: State) -> State:
    """The tensors whose names begin with `prefix.`, without it."""
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
