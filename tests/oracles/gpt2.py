"""Prints the logits of Hugging Face's GPT-2 that test_gpt2_block.py compares with.

pip install transformers==4.57.1
python tests/oracles/gpt2.py > tests/oracles/gpt2_logits.json
"""

import json
import math

import torch

VOCABULARY, WIDTH, HIDDEN, HEADS, LAYERS, ROOM = 11, 12, 20, 3, 2, 16
TOKENS = [[3, 1, 4, 1, 5, 9, 2, 6], [10, 0, 7, 7, 8, 2, 10, 1]]


def weight(number: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Made of sines, so that every library makes the same; those of vectors differ from 0 and 1."""
    count = math.prod(shape)
    angles = torch.arange(1, count + 1, dtype=torch.float64) * (1.7 + 0.31 * number) + number
    return (0.4 * torch.sin(angles)).reshape(shape)


def main() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": WIDTH, "n_inner": HIDDEN, "n_head": HEADS, "n_layer": LAYERS}
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=ROOM, **sizes, **off)
    model = GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(weight(number, tuple(parameter.shape)))
        logits = {"learned": model(torch.tensor(TOKENS)).logits}
        model.transformer.wpe.weight.zero_()
        logits["none"] = model(torch.tensor(TOKENS)).logits
    print(json.dumps({name: rows.tolist() for name, rows in logits.items()}))


if __name__ == "__main__":
    main()
