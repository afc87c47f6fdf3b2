"""Diagnostics of models: head statistics, errors, and the loss curve.

`capture` captures the inputs of attention layers, `heads` measures heads, `probe` does so during
training, `tables` and `plots` show the results; `columns` defines the logged columns, and
`loss_plateau` reads them. Importing this package does not import torch.
"""
