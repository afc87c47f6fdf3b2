"""`lcg list`: every kind under the words that choose it."""

import pytest

from lcg import registry
from lcg.commands.list import LISTS
from lcg.config import choices, load_config
from lcg.config.load import sweep_files


@pytest.mark.parametrize("title", LISTS)
def test_one_list(title, call):
    code, out, err = call("list", title)
    assert (code, err) == (0, "")
    kind, usage = LISTS[title]
    head, *rows = out.splitlines()
    assert head == f"{title} ({usage})"
    rows = [row for row in rows if not row.endswith(":")]  # families
    names = [row.split()[0] for row in rows]
    known = set(sweep_files()) if title == "sweeps" else set(choices(kind))
    if kind in registry.HOMES:
        known |= set(registry.available(kind))
    assert set(names) == known
    starts = {len(row) - len(row.lstrip().partition("  ")[2].lstrip()) for row in rows}
    assert len(starts) == 1, "the texts are aligned"


def test_everything(call):
    code, out, _ = call("list")
    assert code == 0
    blocks = out.split("\n\n")
    assert [block.split()[0] for block in blocks] == list(LISTS)


@pytest.mark.parametrize("title", sorted(LISTS.keys() - {"experiments", "sweeps"}))
def test_names_that_are_listed_can_be_chosen(title, call):
    """The help of the first name, and all of them as words of a config."""
    usage = LISTS[title][1]
    rows = call("list", title)[1].splitlines()[1:]
    names = [row.split()[0] for row in rows if not row.endswith(":")]
    for word in usage.split(" or "):
        code, _, err = call("train", word.replace("NAME", names[0]), "--help")
        assert code == 0, err
        for name in names:
            load_config([word.replace("NAME", name)], fitting=False)


def test_a_users_sweeps_are_listed_too(call, tmp_path, monkeypatch):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("# My own sweep. More of it.\nmethod: grid\n")
    monkeypatch.chdir(tmp_path)
    rows = call("list", "sweeps")[1].splitlines()
    assert any(row.split() == ["mine", "My", "own", "sweep."] for row in rows)
    assert any(row.startswith("  quick_copy ") for row in rows)


def test_difference(call):
    code, out, _ = call("list", "--diff", "paper/reverse", "repo/reverse")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert rows["model.d_ff"] == ["512", "1024"]


def test_the_catalogue(call):
    code, out, err = call("list", "catalogue")
    assert (code, err) == (0, "") and out.startswith("# Catalogue\n")
    for name in (*registry.available("position"), *registry.available("task")):
        assert f"### `{name}`" in out
