"""A bad environment never ends a run: W&B is offline, and a line says why."""

import pwd

import pytest

from lcg.runs import wandb_logger
from lcg.runs.wandb_logger import choose_mode

LOGIN = {"WANDB_API_KEY": "0" * 40}
NO_ADDRESS = {
    "WANDB_BASE_URL": [
        *("http://localhost:abc", "http://localhost:99999", "http://[::1", "http://"),
        *("localhost:8080", "ftp://localhost", f"http://{'a' * 70}.org"),
    ],
    "HTTPS_PROXY": ["http://proxy:abc", "proxy:99999", "http://["],
    "https_proxy": ["http://proxy:abc"],
}


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No variable of W&B or of a proxy, and an empty home."""
    for name in list(wandb_logger.os.environ):
        if name.startswith("WANDB_") or name.lower().endswith("_proxy") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in NO_ADDRESS.items() for value in values]
)
def test_an_invalid_address_means_offline(name, value, alone):
    for known, text in (LOGIN | {name: value}).items():
        alone.setenv(known, text)
    mode, why = choose_mode("auto")
    assert mode == "offline"
    assert f"{name}=" in why and value in why and "\n" not in why


def test_without_a_home_there_is_no_login(alone):
    def nobody(uid):
        raise KeyError(uid)

    alone.delenv("HOME")
    alone.setattr(pwd, "getpwuid", nobody)
    assert choose_mode("auto") == ("offline", "there is no W&B login (wandb login)")


def test_a_netrc_that_is_not_text_has_no_login(alone, tmp_path):
    (tmp_path / ".netrc").write_bytes(b"\xff\xfe machine")
    alone.setenv("WANDB_BASE_URL", "http://localhost:9")
    assert choose_mode("auto") == ("offline", "there is no W&B login (wandb login)")


def test_variables_that_wandb_refuses_are_left_out_and_named(alone):
    alone.setenv("WANDB_SILENT", "maybe")
    alone.setenv("WANDB_NOTES", "mine")
    why = wandb_logger._drop_refused_variables()
    assert why == "wandb rejects WANDB_SILENT=maybe"
    assert "WANDB_SILENT" not in wandb_logger.os.environ
    assert wandb_logger._drop_refused_variables() == ""


@pytest.mark.parametrize(
    "name", ["WANDB_BASE_URL", pytest.param("HTTPS_PROXY", marks=pytest.mark.slow)]
)
def test_a_run_with_no_address_is_trained_offline(name, lcg, words, tmp_path):
    asked = {"WANDB_BASE_URL": "https://api.wandb.ai", name: "http://proxy:abc"}
    process = lcg("train", *words("evaluation.after_training=false"), environment=asked)
    assert process.code == 0, process.err
    assert f"W&B: offline because {name}=http://proxy:abc is not a valid URL: Port" in process.err
    assert list(tmp_path.glob("runs/*/wandb/offline-run-*"))
