"""What a run is made of: the schema, how words become a config, and the run's identity.

Nothing here imports torch, so a mistake is answered at once.
"""

from lcg.config.identity import (
    experiment_identity,
    identity,
    run_directory,
    to_tree,
    to_yaml,
)
from lcg.config.resolve import (
    COMPONENTS,
    ConfigError,
    choices,
    config_from_tree,
    load_config,
    with_overrides,
)
from lcg.config.schema import Config

__all__ = [
    "COMPONENTS",
    "Config",
    "ConfigError",
    "choices",
    "config_from_tree",
    "experiment_identity",
    "identity",
    "load_config",
    "run_directory",
    "to_tree",
    "to_yaml",
    "with_overrides",
]
