"""Properties that tasks, attentions, encodings, mixers and loops must have, on small inputs."""
