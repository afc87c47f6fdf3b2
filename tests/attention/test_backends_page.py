"""docs/attention-backends.md holds the tables that the code gives."""

from pathlib import Path

from lcg.config.help import backends

PAGE = Path(__file__).parents[2] / "docs" / "attention-backends.md"


def test_the_page_shows_what_lcg_list_backends_prints():
    assert backends() in PAGE.read_text(), "paste the output of `lcg list backends`"


def test_what_is_listed_is_what_runs():
    assert "| `stick_breaking` | yes | yes |" in backends()
    assert "| `nape` | yes | yes |" in backends()
