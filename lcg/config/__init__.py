"""Configs: their schema, the loader of overrides and YAML files, and the identity of a run.

Nothing here imports torch, so errors are reported quickly.
"""

import copyreg

from lcg.config.errors import ConfigError
from lcg.config.identity import experiment_identity, identity, run_directory, to_tree, to_yaml
from lcg.config.load import (
    choices,
    config_from_tree,
    load_config,
    load_task,
    with_changes,
    with_overrides,
)
from lcg.config.schema import COMPONENTS, Config

__all__ = [
    "COMPONENTS",
    "Config",
    "ConfigError",
    "choices",
    "config_from_tree",
    "experiment_identity",
    "identity",
    "load_config",
    "load_task",
    "run_directory",
    "to_tree",
    "to_yaml",
    "with_changes",
    "with_overrides",
]

# A config travels to data workers by the names of its classes: a user's file is no module that
# another process could import.
copyreg.pickle(Config, lambda config: (config_from_tree, (to_tree(config),)))
