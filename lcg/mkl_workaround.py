"""Importing this makes torch's vectorised functions ready for use by several threads.

The first sqrt, exp or log of a process sets up MKL's vector library. Where two threads of torch
arrive there at once, one of them may compute that first tensor to 12 bits: with torch 2.13 on two
cores every twelfth process had a relative error of 3e-4 in half of its first large tensor, and none
that had called such a function in one thread before.
"""

import torch

for _type in (torch.float32, torch.float64):
    torch.ones(16, dtype=_type).sqrt().exp()
