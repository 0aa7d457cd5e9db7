"""The specs that come with the package: the built-in audit, and a template with comments for an audit of one's own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from underfire.audit.schema import AuditSpec
from underfire.audit.spec import parse_spec, read_yaml
from underfire.catalog import find
from underfire.errors import ModelError, UnderfireError
from underfire.model import Classifier
from underfire.records import Batch

_PLAIN = re.compile(r"[\w./][\w./:?=&+-]*[\w./]")


def builtin_spec() -> AuditSpec:
    """Return the spec of the built-in audit: a small network on handwritten digits among clutter."""
    return parse_spec(read_yaml(_text("default.yaml")))


def template(model: str | None = None, data: str | None = None, output: str | int | None = None) -> str:
    """Return a spec with a comment for every key, as YAML text.

    Args:
        model: the URI of the model; None is a network that comes with the package.
        data: the URI of the data; None is the data of that network.
        output: how the logits of the model are read; None leaves the key out.
    """
    text = _text("template.yaml")
    for section, uri in (("model", model), ("data", data)):
        if uri is not None:
            # a text that YAML could read in another way is quoted; JSON's quotes are also YAML's
            written = uri if _PLAIN.fullmatch(uri) else json.dumps(uri, ensure_ascii=False)
            before, _, after = text.partition(f"{section}:\n  uri: ")
            text = f"{before}{section}:\n  uri: {written} {after.partition(' ')[2].lstrip()}"
    if output is not None:
        before, _, after = text.partition("  # output: ")
        text = f"{before}  output: {json.dumps(output, ensure_ascii=False)} {after.partition(' ')[2].lstrip()}"
    return text


@dataclass(frozen=True)
class Usual:
    """The methods of the template that a model supports.

    Attributes:
        attacks: entries of a spec.
        interpreters: entries of a spec.
        left_out: why an interpreter was left out, with the attacks that are aimed at it, by its name.
    """

    attacks: list[Any]
    interpreters: list[str]
    left_out: dict[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each interpreter that was left out."""
        return tuple(f"{name} was left out: {reason.rstrip('.')}." for name, reason in self.left_out.items())


def usual_methods(model: Classifier, batch: Batch) -> Usual:
    """Return the methods of the template, except interpreters that fail on a few images, and attacks on them.

    Raises:
        ModelError: the answers of the model cannot be used by any method.
    """
    content = read_yaml(template())
    left_out = {}
    for name in content["interpreters"]:
        try:
            find("interpreter", name)(model, batch.x, batch.y)
        except ModelError:
            raise
        except UnderfireError as error:
            left_out[name] = str(error)
    return Usual(
        [entry for entry in content["attacks"] if entry.get("interpreter") not in left_out],
        [name for name in content["interpreters"] if name not in left_out],
        left_out,
    )


def _text(name: str) -> str:
    return files("underfire.audit").joinpath(name).read_text(encoding="utf-8")
