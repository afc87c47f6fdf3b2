"""Work around a race in MKL: importing this calls torch's vectorised functions in one thread.

The first sqrt, exp or log of a process initialises MKL's vector library. If two threads of torch do
so at once, one of them may compute that first tensor to 12 bits: with torch 2.13 on two cores every
twelfth process had a relative error of 3e-4 in half of its first large tensor, and no process that
had called such a function in one thread before.
"""

import torch

for _type in (torch.float32, torch.float64):
    torch.ones(16, dtype=_type).sqrt().exp()
