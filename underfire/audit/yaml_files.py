"""Read a YAML file from anywhere within stated limits: no tags, no repeated keys, no unlimited expansion.

A spec can come from a stranger. A short YAML text may stand for a very large value, because an alias (`*name`) or a
merge (`<<: *name`) repeats a part of it, and repetitions can be nested. So the values are counted before they are made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from underfire.errors import SpecError, shown

MOST_BYTES = 500_000
"""The largest size of a spec file in bytes."""

MOST_VALUES = 100_000
"""The largest number of keys and values in a spec, in which every alias counts as often as it is used."""

#: The tags that a value may have, by the kind of its node.
_TAGS: dict[type[yaml.Node], set[str]] = {
    yaml.ScalarNode: {"null", "bool", "int", "float", "str", "merge"},
    yaml.SequenceNode: {"seq"},
    yaml.MappingNode: {"map"},
}


class _Loader(yaml.SafeLoader):
    """Load plain values only; a date without quotes becomes a text."""

    def construct_document(self, node: yaml.Node) -> Any:
        """Return the values of a document after a check of their number."""
        _count(node, {})
        return super().construct_document(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return one value; raise YAMLError with its place if its tag is not in `_TAGS`, or it does not fit its tag."""
        tags = _TAGS.get(type(node), set())
        if node.tag.removeprefix("tag:yaml.org,2002:") not in tags:
            problem = f"a spec has no such value of type {shown(node.tag, 60)}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, IndexError, OverflowError):
            kind = node.tag.rsplit(":", 1)[-1]
            problem = f"{shown(node.value, 60)} is not a value of type {kind!r}, or has too many digits"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; raise YAMLError if a key occurs twice, which `SafeLoader` accepts."""
        seen = set()
        for key, _ in node.value:
            # A list or a mapping as a key has no name; `SafeLoader` refuses it.
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                problem = f"the key {shown(name, 60)} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen |= {name} - {None}
        return super().construct_mapping(node, deep)


# Texts that look like dates stay texts. This is a new table, because other programs use that of `SafeLoader`.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":timestamp", ":value"))]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Return the number of keys and values of a node, with all that it contains.

    Args:
        node: the node to count.
        known: the numbers of the nodes counted so far, by `id`; None for a node whose count has begun.

    Raises:
        yaml.YAMLError: a node contains itself, or the number is larger than `MOST_VALUES`.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise yaml.MarkedYAMLError(problem="a value contains itself", problem_mark=node.start_mark)
        return found
    known[id(node)] = None  # until it is counted
    parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
    total = 1 + sum(_count(part, known) for part in parts)
    if total > MOST_VALUES:
        problem = f"more than {MOST_VALUES:,} keys and values, with every use of an alias"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    known[id(node)] = total
    return total


def read_yaml(text: str) -> Any:
    """Return the content of a YAML text as plain values.

    Raises:
        yaml.YAMLError: it is not YAML, or has more than `MOST_VALUES` values.
        RecursionError: it has too many lists or mappings inside each other.
    """
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def load_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file as plain values: texts, numbers, booleans, lists and mappings.

    Raises:
        SpecError: the file cannot be read, is larger than `MOST_BYTES`, has more than `MOST_VALUES` values, or is not
            YAML; the message is one line with the place in the file.
    """
    what = f"the spec {str(path)!r}"
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise SpecError(f"{what} is larger than {MOST_BYTES:,} bytes")
        return read_yaml(content.decode("utf-8"))
    except OSError as error:
        raise SpecError(f"cannot read {what}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{what} is not a UTF-8 text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise SpecError(f"{what} is not valid YAML{place}: {problem}") from None
    except RecursionError:
        raise SpecError(f"{what} has too many lists or mappings inside each other") from None
