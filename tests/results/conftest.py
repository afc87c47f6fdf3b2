"""Fabricated runs: what a record looks like, without training anything."""

from collections.abc import Callable

import pytest
from tiny import fabricate

from lcg.runs.record import RunRecord


@pytest.fixture
def make() -> Callable[..., RunRecord]:
    return fabricate
