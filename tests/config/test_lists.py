"""Lists have every name with a line on it, a difference every field that differs and no more."""

import pytest

from lcg import registry
from lcg.config import ConfigError, choices, load_config, to_tree
from lcg.config.help import difference, listing


@pytest.mark.parametrize("kind", registry.HOMES)
def test_every_class_is_listed_with_a_line(kind, here):
    found = dict(listing(kind))
    assert set(registry.available(kind)) <= set(found)
    assert all(text and "\n" not in text for text in found.values())


@pytest.mark.parametrize("kind", ["attention", "experiment"])
def test_every_file_is_listed_with_its_comment(kind, here):
    found = dict(listing(kind))
    assert list(found) == choices(kind)
    assert all(found.values()), "every file begins with a comment that says what it is"


def test_the_comment_at_the_head_of_a_file(write):
    write("configs/experiment/two.yaml", "# What it\n# is. And more.\nseed: 1  # not this\n# nor\n")
    write("configs/experiment/none.yaml", "seed: 1\n# too late\n")
    found = dict(listing("experiment"))
    assert found["two"] == "What it is."
    assert found["none"] == ""
    assert "quick/copy" in found


def test_a_preset_of_a_class_s_name_is_listed_once(write):
    write("configs/task/copy.yaml", "# Copy of four.\nname: copy\nsymbols: 4\n")
    assert [text for name, text in listing("task") if name == "copy"] == ["Copy of four."]


def test_difference_has_every_field_that_differs(write):
    write("configs/experiment/a.yaml", "seed: 1\nattention: softmax\nmodel: {layers: 3}\n")
    write("configs/experiment/b.yaml", "base: a\nattention: ssmax\nevaluation: {lengths: [8, 9]}\n")
    lines = [line.split() for line in difference("a", "b").splitlines()]
    assert lines == [
        ["a", "b"],
        ["attention.scaling", "none", "log"],
        ["attention.scaling.bias", "—", "false"],
        ["attention.scaling.offset", "—", "1"],
        ["evaluation.lengths", "32,64,128,256,512", "8,9"],
    ]


def test_no_difference(write):
    write("configs/experiment/a.yaml", "seed: 1\n")
    write("configs/experiment/b.yaml", "base: a\n")
    assert difference("a", "b") == "a and b are the same"


def test_difference_of_an_unknown_experiment(here):
    with pytest.raises(ConfigError, match=r"experiment=quick/coppy is not known; did you mean"):
        difference("quick/copy", "quick/coppy")


# Those on text need files: tests/cli/test_text.py makes some.
@pytest.mark.parametrize("name", [n for n in choices("experiment") if not n.startswith("text/")])
def test_every_experiment_of_ours_resolves(name, here):
    assert to_tree(load_config([f"experiment={name}"]))["labels"]["task"]


@pytest.mark.parametrize("name", choices("attention"))
def test_every_attention_of_ours_resolves(name, here):
    assert load_config([f"attention={name}"]).labels["attention"] == name
