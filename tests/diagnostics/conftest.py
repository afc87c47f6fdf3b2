"""One small trained run with a scaler, for whoever looks at it."""

import pytest
from processes import tiny

from lcg.config import load_config
from lcg.training.loop import train


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The directory of a TINY run of two layers with ASEntmax, finished."""
    runs = tmp_path_factory.mktemp("looked_at")
    words = tiny(f"runs={runs}", "attention=asentmax", "model.layers=2")
    return train(load_config(words), progress=False).directory
