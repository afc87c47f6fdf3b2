"""On trained models the kernels find the same samples right as the reference, on the ladder."""

import pytest
from models.trained_models import agree, trained


@pytest.mark.parametrize("method", ["softmax-nape", "asentmax-nape"])
def test_the_same_samples_are_right(method):
    model = trained(method)
    found = [agree(model, "triton", length, 4) for length in (12, 24, 48)]
    assert min(clear for _, clear in found) > 0.95
    assert found[0][0] > 0.5, found  # where a random one has 1/8
