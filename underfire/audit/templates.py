"""The specs that come with the package: the built-in audit, and a template with comments for an audit of one's own."""

from __future__ import annotations

import json
import re
from importlib.resources import files

from underfire.audit.schema import AuditSpec
from underfire.audit.spec import parse_spec, read_yaml

_PLAIN = re.compile(r"[\w./][\w./:?=&+-]*[\w./]")


def builtin_spec() -> AuditSpec:
    """Return the spec of the built-in audit: a small network on handwritten digits among clutter."""
    return parse_spec(read_yaml(_text("default.yaml")))


def template(model: str | None = None, data: str | None = None) -> str:
    """Return a spec with a comment for every key, as YAML text.

    Args:
        model: the URI of the model; None is a network that comes with the package.
        data: the URI of the data; None is the data of that network.
    """
    text = _text("template.yaml")
    for section, uri in (("model", model), ("data", data)):
        if uri is not None:
            # a text that YAML could read in another way is quoted; JSON's quotes are also YAML's
            written = uri if _PLAIN.fullmatch(uri) else json.dumps(uri, ensure_ascii=False)
            before, _, after = text.partition(f"{section}:\n  uri: ")
            text = f"{before}{section}:\n  uri: {written} {after.partition(' ')[2].lstrip()}"
    return text


def _text(name: str) -> str:
    return files("underfire.audit").joinpath(name).read_text(encoding="utf-8")
