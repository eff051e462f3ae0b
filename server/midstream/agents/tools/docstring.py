"""What a tool's docstring says: a description for the model, and one for each argument (Google style `Args:`)."""

import inspect
import re
from typing import Final

from msgspec import Struct

_SECTIONS: Final = frozenset(
    {"args:", "arguments:", "returns:", "return:", "raises:", "yields:", "example:", "examples:", "note:", "notes:"}
)
_ARGUMENT: Final = re.compile(r"^(?P<indent>\s+)\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)$")


class Described(Struct, kw_only=True, frozen=True):
    text: str
    args: dict[str, str]


def parse_docstring(doc: str | None) -> Described:
    """Split a docstring. `Returns:` and later sections are for programmers: the model is told what comes before."""
    text: list[str] = []
    args: list[str] = []
    into: list[str] | None = text
    for line in inspect.cleandoc(doc or "").splitlines():
        heading = line.strip().lower()
        if not line.startswith(" ") and heading in _SECTIONS:
            into = args if heading in ("args:", "arguments:") else None
        elif into is args and line and not line.startswith(" "):
            # A paragraph at the left margin ends the section.
            into = text
            text.append(line)
        elif into is not None:
            into.append(line)
    return Described(text="\n".join(text).strip(), args=_arguments(args))


def _arguments(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    name = ""
    indent = ""
    for line in lines:
        match = _ARGUMENT.match(line)
        # Deeper lines belong to the argument above, whatever they look like.
        if match and (not indent or len(match["indent"]) <= len(indent)):
            name, indent = match["name"], match["indent"]
            found[name] = [match["text"].strip()]
        elif name and line.strip():
            found[name].append(line.strip())
    return {name: " ".join(part for part in parts if part) for name, parts in found.items()}
