"""Properties that a task, an attention or a position encoding must have, tried on small inputs."""
