"""Training: Lightning modules, exact resuming, checkpoints that survive anything."""
