"""YAML files of the user's: how large one may be when its anchors are written out.

A few lines of anchors that name each other stand for more values than any memory holds, and an
anchor inside itself for values without end.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from lcg.config.errors import ConfigError

BYTES = 10**6
VALUES = 10_000
DEPTH = 50


def read_node(path: Path, loader: type = yaml.SafeLoader) -> yaml.Node | None:
    """The graph of a YAML file, anchors not yet written out; None of an empty file.

    Raises ConfigError, in one line without the file's name, for a file of more than BYTES, one
    that stands for more than VALUES values or is nested more than DEPTH deep, one that is no YAML,
    and one that cannot be read.
    """
    try:
        if path.stat().st_size > BYTES:
            raise ConfigError(f"the file has more than {BYTES:,} bytes")
        node = yaml.compose(path.read_text(encoding="utf-8"), loader)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"it is nested more than {DEPTH} deep") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{line}{problem}") from None
    if node is not None and _values(node, {}, 0) > VALUES:
        raise ConfigError(f"it stands for more than {VALUES:,} values")
    return node


def _values(node: yaml.Node, known: dict[int, int | None], depth: int) -> int:
    """Count the values a node stands for; one that occurs again is counted again, not visited.

    known: the counts of nodes by their id, None while a node is being counted.
    """
    if depth > DEPTH:
        raise ConfigError(f"it is nested more than {DEPTH} deep")
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise ConfigError(f"line {node.start_mark.line + 1}: an anchor holds itself")
        return count
    known[id(node)] = None
    inner = node.value if isinstance(node, yaml.CollectionNode) else []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in inner for part in pair]
    count = 1 + sum(_values(part, known, depth + 1) for part in inner)
    known[id(node)] = count
    return count
