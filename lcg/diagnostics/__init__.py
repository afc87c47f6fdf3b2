"""Look into models: what heads do, what a model gets wrong, what became of the loss.

`capture` takes what attention layers work on, `heads` measures it, `probe` does so while training,
`tables` and `plots` show it; `columns` names what a run logs of it, `loss_plateau` reads it back.
Importing this package does not import torch.
"""
