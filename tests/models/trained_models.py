"""Small models trained in seconds, and what they predict by one backend or another."""

import numpy as np
import torch
from torch.nn import functional as F

from lcg.attention import Attention
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.normalizers.topk import TopK
from lcg.attention.output_norms import RMSNorm
from lcg.attention.scalings import AdaptiveScaling
from lcg.config.schema import Model
from lcg.evaluation.scoring import scored_positions
from lcg.models.transformer import Decoder
from lcg.positional.groups import NAPE
from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi
from lcg.tasks.base import IGNORE
from lcg.tasks.copy import Copy

METHODS = {
    "softmax-nape": (Attention(Softmax()), NAPE()),
    "asentmax-nape": (Attention(Entmax(), AdaptiveScaling()), NAPE()),
    "entmax_learned-alibi": (Attention(LearnedEntmax()), ALiBi()),
    "topk-rope": (Attention(TopK(k=4)), RoPE()),
    "relu-nape": (Attention(ReLU(), output_norm=RMSNorm()), NAPE()),
}
TASK = Copy(symbols=8)
LADDER = (12, 24, 48, 96, 192)


def samples(seed, length, batch):
    encoded = TASK.encode(np.random.default_rng(seed), np.full(batch, length))
    return torch.from_numpy(encoded.inputs), torch.from_numpy(encoded.labels)


def trained(method):
    torch.manual_seed(0)
    model = Decoder(Model(d_model=32, heads=4, d_ff=64), *METHODS[method], TASK.vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(500):
        inputs, labels = samples(step, 4 + step % 9, 48)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def predictions(model, backend, inputs, select):
    for block in model.blocks:
        block.attention.backend = backend
    return model(inputs, select=select).topk(2, dim=-1)


def agree(model, backend, length, batch):
    """Share of the scored tokens that both backends get right, and that are clear at all.

    Asserts that they predict the same tokens, wherever the reference's two best logits are not
    within rounding of each other.
    """
    # The kernels run on a device, where there is one.
    device = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    model = model.to(device)
    inputs, labels = (part.to(device) for part in samples(10_000 + length, length, batch))
    select = scored_positions(labels)
    expected = predictions(model, "reference", inputs, select)
    actual = predictions(model, backend, inputs, select)
    clear = expected.values[..., 0] - expected.values[..., 1] > 1e-3
    same = expected.indices[..., 0] == actual.indices[..., 0]
    assert same[clear].all()
    right = actual.indices[..., 0] == labels[:, select]
    return right.float().mean().item(), clear.float().mean().item()
