"""One small trained run with a scaler, for whoever looks at it."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_run(train_once) -> Path:
    """The directory of a TINY run of two layers with ASEntmax, finished."""
    return train_once("attention=asentmax", "model.layers=2")
