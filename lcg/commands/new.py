"""Write a skeleton of a task, attention or position encoding of your own, with its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from string import Template

from lcg import registry
from lcg.commands.args import Parser

KINDS = {"task": "task", "attention": "normalizer", "position": "position"}
"""Name of a skeleton -> the kind of its class."""
TEMPLATES = Path(__file__).parents[1] / "templates"


def run(words: list[str]) -> int:
    parser = Parser("new", "task|attention|position NAME", __doc__)
    parser.add_argument("group", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("name", help="small letters, digits and _; of the files and of the class")
    options = parser.parse_intermixed_args(words)
    group, name = options.group, options.name
    if group not in KINDS:
        raise ValueError(f"there is no skeleton of {group}; {registry.nearest(group, [*KINDS])}")
    label = "".join(part.capitalize() for part in name.split("_"))
    texts = {
        Path(f"{start}{name}.py"): (TEMPLATES / f"{start}{group}.txt").read_text(encoding="utf-8")
        for start in ("", "test_")
    }
    _check_name(name, label, KINDS[group], "\n".join(texts.values()))
    for path in texts:
        if path.exists():
            raise ValueError(f"{path} is there already; choose another name, or remove it")
    if importlib.util.find_spec(name):
        raise ValueError(f"there is a module {name} already, which {name}.py would hide")
    for path, text in texts.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(Template(text).substitute(name=name, Name=label))
    print(f"wrote {' and '.join(map(str, texts))}; try them with")
    print(f"  lcg check {group}=./{name}.py:{label}")
    print(f"  python -m pytest test_{name}.py")
    return 0


def _check_name(name: str, label: str, kind: str, text: str) -> None:
    """Raise ValueError for an invalid name of a file, a class and a choice."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
        raise ValueError(
            f"NAME is {name!r:.80}; write a small letter, and then up to 63 small letters, digits "
            "or _"
        )
    if name in registry.available(kind):
        raise ValueError(f"{name} is a {kind} of lcg; choose another name")
    if keyword.iskeyword(name) or keyword.iskeyword(label) or re.search(rf"\b{label}\b", text):
        raise ValueError(f"{name} means something else in Python or in lcg; choose another name")
