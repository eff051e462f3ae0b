"""Write the `views` of every case in `fold/` anew: `python protocol/conformance/record.py [--check]`.

A case's events are written by hand. Its views are what `fold` makes of them, and a change in them is a change of the
contract: read the diff before you commit it.
"""

# ruff: noqa: INP001 - a script, not a package

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from midstream_protocol import decode_event, fold, view_to_builtins

CASES = Path(__file__).parent / "fold"


def recorded(case: dict[str, Any]) -> str:
    """The text of `case`'s file: an event and a view a line, so that a diff shows what changed."""
    view = None
    views: dict[str, Any] = {}
    for event in case["events"]:
        view = fold(view, decode_event(json.dumps(event)), epoch=case.get("epoch"))
        views[str(view.cursor.seq)] = view_to_builtins(view)
    head = {key: value for key, value in case.items() if key not in ("events", "views")}
    lines = [f" {json.dumps(key)}: {_line(value)}" for key, value in head.items()]
    lines.append(' "events": [\n' + ",\n".join(f"  {_line(event)}" for event in case["events"]) + "\n ]")
    lines.append(' "views": {\n' + ",\n".join(f'  "{seq}": {_line(view)}' for seq, view in views.items()) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _line(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def main() -> int:
    stale = 0
    for path in sorted(CASES.glob("*.json")):
        found = path.read_text(encoding="utf-8")
        made = recorded(json.loads(found))
        if made == found:
            continue
        stale = 1
        if "--check" in sys.argv:
            sys.stderr.write(f"{path} does not have the views that fold makes\n")
        else:
            path.write_text(made, encoding="utf-8")
            sys.stderr.write(f"wrote {path}\n")
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
