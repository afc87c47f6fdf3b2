"""What the heads do: support, weights, scalers, what became of the loss.

`look` runs a trained model and returns its weights; `watching` is how any forward pass is observed,
`measures` the numbers, `headers` the names of what a run logs of them, `fate` what a loss curve
says. Importing this package does not import torch.
"""

from lcg.diagnostics.looking import LayerLook, Look, look

__all__ = ["LayerLook", "Look", "look"]
