"""The kernels run on a CUDA device, or on a CPU through Triton's interpreter (`make test-kernels`).

The interpreter is chosen when the kernels' module is imported, so it needs a process of its own:
TRITON_INTERPRET=1 is set for pytest as a whole. Where neither is there, nothing here is collected;
without the interpreter only what needs a device.
"""

import importlib.util
import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INSTALLED = importlib.util.find_spec("triton") is not None
if not INSTALLED or not (INTERPRETED or torch.cuda.is_available()):
    collect_ignore_glob = ["test_*"]
elif not INTERPRETED:
    collect_ignore_glob = ["test_compile.py", "test_gpu_*.py"]


def pytest_collection_modifyitems(items):
    """On a CUDA device these are tests that need one."""
    if not INTERPRETED:
        for item in items:
            if "kernels" in item.path.parts:
                item.add_marker(pytest.mark.gpu)
