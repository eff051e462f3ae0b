"""The wire as JSON Schema (2020-12), made from the structs: `python -m midstream_protocol.schema`.

Every event, command and frame is an envelope with its own `type`, so `$defs/Event`, `$defs/Command` and `$defs/Frame`
are unions discriminated by it; a reader passes over types it does not know before it validates. What the structs write
as "or null" is here what it is on the wire: the field may be left out.
"""

import argparse
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from midstream_protocol.commands import (
    COMMANDS,
    AuthRefresh,
    ClientTool,
    FileBlock,
    ImageBlock,
    Ping,
    RunStart,
    ToolResult,
    ToolsOffer,
)
from midstream_protocol.events import EVENTS, Origin
from midstream_protocol.frames import FRAMES, RunReset
from midstream_protocol.ids import ID_PATTERN
from midstream_protocol.limits import MAX_INTEGER
from midstream_protocol.shape import View
from midstream_protocol.version import PROTOCOL_VERSION

_REF: Final = "#/$defs/"
_VERSION: Final = {"const": PROTOCOL_VERSION}
_ID: Final = {"type": "string", "pattern": ID_PATTERN}
_SEQ: Final = {"type": "integer", "minimum": 1, "maximum": MAX_INTEGER}
_TIME: Final = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"}
_ONE_SOURCE: Final = {"oneOf": [{"required": ["data"]}, {"required": ["url"]}]}


def build() -> dict[str, Any]:
    """The whole schema: any event, command, frame or view is valid against it; `$defs` has each by name."""
    payloads = [*EVENTS.values(), *COMMANDS.values(), *FRAMES.values()]
    _, components = msgspec.json.schema_components([*payloads, Origin, View], ref_template=_REF + "{name}")
    defs: dict[str, Any] = {name: _tidied(component) for name, component in components.items()}
    for block in (ImageBlock, FileBlock):
        defs[block.__name__] |= _ONE_SOURCE
    defs[ToolResult.__name__]["anyOf"] = [{"required": ["ok"]}, {"required": ["progress"]}]
    defs[RunStart.__name__]["anyOf"] = [{"required": ["input"]}, {"required": ["resume"]}]
    # The envelope may name the run instead, where other commands name it.
    defs[ToolsOffer.__name__]["required"].remove("run_id")
    defs[RunReset.__name__]["properties"]["snapshot"] = _ref(View.__name__)
    unions: dict[str, list[tuple[type[Struct], dict[str, Any]]]] = {
        "Event": [(kind, _event(kind, name)) for name, kind in EVENTS.items()],
        "Command": [(kind, _command(kind, name)) for name, kind in COMMANDS.items()],
        "Frame": [(kind, _frame(kind, name)) for name, kind in FRAMES.items()],
    }
    for union, members in unions.items():
        titled = {f"{kind.__name__}{union}": envelope for kind, envelope in members}
        defs |= {name: {"title": name, **envelope} for name, envelope in titled.items()}
        defs[union] = {
            "title": union,
            "oneOf": [_ref(name) for name in titled],
            "discriminator": {
                "propertyName": "type",
                "mapping": {envelope["properties"]["type"]["const"]: _REF + name for name, envelope in titled.items()},
            },
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Midstream protocol v{PROTOCOL_VERSION}",
        "description": "One frame of the wire contract, or a view. The law is PROTOCOL.md.",
        "anyOf": [_ref(name) for name in (*unions, View.__name__)],
        "$defs": dict(sorted(defs.items())),
    }


def text() -> str:
    """`build()` as it is committed."""
    return json.dumps(build(), indent=1, ensure_ascii=False) + "\n"


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF + name}


def _event(kind: type[Struct], name: str) -> dict[str, Any]:
    properties = {
        "v": _VERSION,
        "seq": _SEQ,
        "run_id": _ID,
        "type": {"const": name},
        "ts": _TIME,
        "payload": _ref(kind.__name__),
        "step_id": _ID,
        "origin": _ref(Origin.__name__),
        "from": _SEQ,
    }
    return _envelope(properties, required=["v", "seq", "run_id", "type", "ts", "payload"])


def _command(kind: type[Struct], name: str) -> dict[str, Any]:
    properties = {
        "v": _VERSION,
        "type": {"const": name},
        "command_id": _ID,
        "run_id": _ID,
        "payload": _ref(kind.__name__),
    }
    required = ["v", "type"]
    if kind is not Ping:
        required.append("command_id")
    if kind not in (RunStart, ToolsOffer, AuthRefresh, Ping):
        required.append("run_id")
    if kind is RunStart or any(field.required for field in msgspec.structs.fields(kind)):
        required.append("payload")
    return _envelope(properties, required=required)


def _frame(kind: type[Struct], name: str) -> dict[str, Any]:
    properties = {"v": _VERSION, "type": {"const": name}, "payload": _ref(kind.__name__)}
    return _envelope(properties, required=["v", "type", "payload"])


def _envelope(properties: dict[str, Any], *, required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _tidied(schema: Any) -> Any:
    """`schema` as the wire is: no null where absent is meant, ids as the grammar says, a tool by its bare name."""
    if isinstance(schema, list):
        return [_tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidied(value) for key, value in schema.items()}
    if isinstance(tidy.get("description"), str):
        # Newer Pythons strip a docstring's indentation themselves.
        tidy["description"] = inspect.cleandoc(tidy["description"])
    if tidy.get("required") == []:
        del tidy["required"]
    if tidy.get("default", "") is None:
        del tidy["default"]
    if "enum" in tidy:
        tidy["enum"] = [choice for choice in tidy["enum"] if choice is not None]
    if "anyOf" in tidy:
        left = [choice for choice in tidy.pop("anyOf") if choice != {"type": "null"}]
        tidy |= left[0] if len(left) == 1 else {"anyOf": left}
    if str(tidy.get("pattern", "")).startswith(ID_PATTERN):
        tidy["pattern"] = ID_PATTERN
    if tidy.get("items") == _ref(ClientTool.__name__):
        tidy["items"] = {"anyOf": [_ref(ClientTool.__name__), _ID]}
    return tidy


def main(arguments: list[str] | None = None) -> int:
    return written(text, module="midstream_protocol.schema", arguments=arguments)


def written(make: Callable[[], str], *, module: str, arguments: list[str] | None) -> int:
    """Print a generated document, write it to a file, or check that a file has it. Exit code 1: the file is stale."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=written.__doc__)
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--write", type=Path, metavar="PATH")
    target.add_argument("--check", type=Path, metavar="PATH")
    options = parser.parse_args(arguments)
    made = make()
    if options.write is not None:
        options.write.write_text(made, encoding="utf-8")
    elif options.check is not None:
        found = options.check.read_text(encoding="utf-8") if options.check.exists() else ""
        if found != made:
            sys.stderr.write(f"{options.check} is stale: run python -m {module} --write {options.check}\n")
            return 1
    else:
        sys.stdout.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
