"""Training: the loop over steps, exact resuming, checkpoints that survive anything, a record."""
