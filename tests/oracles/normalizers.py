"""Formulas of normalizers that are no softmax: z [keys], those that a query sees, float64.

Written from the papers; `oracles.attention` has them in its table.
"""

from __future__ import annotations

import math

import torch


def sigmoid(z, options, learned, head):
    return torch.stack([1 / (1 + len(z) * (-value).exp()) for value in z])


def relu_n(z, options, learned, head):
    rows = [value ** options["power"] if value > 0 else 0 * value for value in z]
    return torch.stack(rows) / len(z) ** options["gamma"]


def relu_threshold(z, options, learned, head):
    above = [value - learned["threshold"][head] for value in z]
    return torch.stack([a ** options["power"] if a > 0 else 0 * a for a in above])


def softpick(z, options, learned, head):
    above = [value.exp() - 1 for value in z]
    total = sum(a if a > 0 else -a for a in above) + options["eps"]
    return torch.stack([a / total if a > 0 else 0 * a for a in above])


NORMALIZERS = {
    "sigmoid": sigmoid,
    "relu_n": relu_n,
    "relu_threshold": relu_threshold,
    "softpick": softpick,
}


def softmax_with_sink(z, sink):
    return [math.exp(value) / (math.exp(sink) + sum(map(math.exp, z))) for value in z]
