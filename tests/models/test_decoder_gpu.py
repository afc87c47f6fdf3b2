"""A CUDA device gives what the CPU gives."""

import pytest
import torch
from oracles.registered import assert_near, labels, pairwise, small_decoder, tokens, variants
from sampling import sampled

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
KINDS = map(variants, ("normalizer", "scaling", "position"))


@pytest.mark.parametrize("row", sampled(*KINDS, whole=pairwise), ids=labels)
def test_logits_gradients_and_decoding_are_those_of_the_cpu(row):
    results = []
    for device in ("cpu", "cuda"):
        model, words = small_decoder(*row).to(device), tokens(2, 9).to(device)
        logits = model(words)
        logits.square().mean().backward()
        gradients = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
        results.append((logits.cpu(), gradients, model.greedy(words, 4).cpu()))
    (expected, gradients, decoded), (logits, other_gradients, other_decoded) = results
    assert_near(logits, expected, 1e-4)
    assert gradients.keys() == other_gradients.keys()
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert_near(other_gradients[name], gradient, 1e-3, name, at_least=0.05 * largest)
    assert torch.equal(other_decoded, decoded)
