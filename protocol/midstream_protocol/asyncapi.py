"""The protocol as an AsyncAPI 3 document: `python -m midstream_protocol.asyncapi`.

What travels is the schema's (schema.py); what it means, and the examples, are the sections of PROTOCOL.md that have its
name. So the document is made in a checkout, and `text` gives the one that was made. The module is long because it is
one document: each function is one part of it, in its order.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, get_args

from midstream_protocol import schema
from midstream_protocol.commands import COMMANDS, CONNECTION_COMMANDS, Ping, RunStart, WebhookEvent
from midstream_protocol.events import EVENTS
from midstream_protocol.frames import FRAMES, Pong, Receipt, RunReset
from midstream_protocol.ids import ID_PATTERN
from midstream_protocol.shape import Cursor
from midstream_protocol.version import PROTOCOL_VERSION

_HERE: Final = Path(__file__).parent
_PACKED: Final = _HERE / "asyncapi.json"
"""Where a wheel has it."""
_MADE: Final = _HERE.parent / "schema" / "asyncapi.json"
_LAW: Final = _HERE.parent / "PROTOCOL.md"

_SCHEMAS: Final = "#/components/schemas/"
_SECURITY: Final = "#/components/securitySchemes/"
_FEED_DROPPED: Final = "feed.dropped"
_START: Final = "http.start"
_STARTED: Final = "http.started"
_POSTED: Final = tuple(name for name in COMMANDS if name not in CONNECTION_COMMANDS)
"""Commands that need no connection."""

_INFO: Final = f"""What a client and a server say to each other while agents run: start, watch, approve, correct,
cancel and come back. Every event of a run is the same JSON text on every transport, numbered without holes; every
command is answered by exactly one `receipt`.

Connect to `/v1/ws`, wait for `connection.ready`, then send commands. Where WebSockets are blocked, read a run's events
from `/v1/runs/{{run_id}}/events` and post commands beside it. A reader passes over fields and types that it does not
know. `GET /v1/schema` is the JSON Schema of version {PROTOCOL_VERSION}; the endpoints that carry no messages are in
PROTOCOL.md."""


def text() -> str:
    """The document as JSON, as it was made."""
    return (_PACKED if _PACKED.exists() else _MADE).read_text(encoding="utf-8")


def build(law: str) -> dict[str, Any]:
    """The document. `law` is the text of PROTOCOL.md."""
    sections = _sections(law)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Midstream protocol",
            "version": str(PROTOCOL_VERSION),
            "description": _INFO,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": _messages(sections),
            "schemas": _schemas(),
            "securitySchemes": _security_schemes(),
        },
    }


# -- where, and by whom


def _servers() -> dict[str, Any]:
    host = {"default": "127.0.0.1:8484", "description": "Where `midstream serve` listens, or the name of your proxy."}
    both = {"host": "{host}", "variables": {"host": host}}
    credentials = [_ref(_SECURITY + "bearer")]
    return {
        "websocket": {
            **both,
            "protocol": "ws",
            "description": "`wss` behind TLS. Everything is on one connection, for any number of runs.",
            "security": [*credentials, _ref(_SECURITY + "subprotocol")],
        },
        "http": {
            **both,
            "protocol": "http",
            "description": "`https` behind TLS. The same events and commands, for who holds no socket.",
            "security": credentials,
        },
    }


def _security_schemes() -> dict[str, Any]:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "`Authorization: Bearer <token>`, where the server wants a token. Never a token in a URL.",
        },
        "subprotocol": {
            "type": "httpApiKey",
            "in": "header",
            "name": "Sec-WebSocket-Protocol",
            "description": "From a browser: a second subprotocol `bearer.<base64url(token)>`, which is never echoed.",
        },
        "signature": {
            "type": "httpApiKey",
            "in": "header",
            "name": "webhook-signature",
            "description": "How the receiver of a webhook knows its sender: Standard Webhooks, "
            "`v1,<base64(HMAC-SHA256)>` over `<webhook-id>.<webhook-timestamp>.<body>`.",
        },
    }


# -- channels


def _channels() -> dict[str, Any]:
    run_id = {"run_id": {"description": "The run's id: letters, digits, `_` and `-`, up to 64."}}
    return {
        "socket": {
            "address": "/v1/ws",
            "title": "WebSocket",
            "summary": "Everything: commands one way, receipts, events and connection frames the other.",
            "description": "The server speaks first. Subprotocols: `midstream.v1.json` (default) and "
            "`midstream.v1.msgpack`.",
            "servers": [_ref("#/servers/websocket")],
            "messages": _carried([*COMMANDS, *FRAMES, *EVENTS]),
            "bindings": {"ws": {"method": "GET", "query": _query(client_id=_ID_PARAMETER), "bindingVersion": "0.1.0"}},
        },
        "runs": {
            "address": "/v1/runs",
            "title": "Starting a run",
            "summary": "The body is the payload of a `run.start`, the `Idempotency-Key` its `command_id`.",
            "description": "Answered at once with 201, before any work. With `wait_s` the answer is held back: 200 "
            "with the view when the run has ended within it, else 202 with the view so far.",
            "servers": [_ref("#/servers/http")],
            "messages": _carried([_START, _STARTED]),
        },
        "runEvents": {
            "address": "/v1/runs/{run_id}/events",
            "title": "A run's events",
            "summary": "Server-sent events, or NDJSON with `Accept: application/x-ndjson`, from any place of the log.",
            "parameters": run_id,
            "servers": [_ref("#/servers/http")],
            "messages": _carried([*EVENTS, RunReset.TYPE, "heartbeat"]),
        },
        "runCommands": {
            "address": "/v1/runs/{run_id}/commands",
            "title": "Commands to a run",
            "summary": "The same commands over HTTP; the answer's body is the receipt's payload.",
            "parameters": run_id,
            "servers": [_ref("#/servers/http")],
            "messages": _carried([*_POSTED, Receipt.TYPE]),
        },
        "feed": {
            "address": "/v1/feed",
            "title": "The feed",
            "summary": "A sample of the events of all your runs; there may be gaps, and nothing is replayed.",
            "servers": [_ref("#/servers/http")],
            "messages": _carried([*EVENTS, _FEED_DROPPED]),
        },
        "webhooks": {
            # The receiver's URL: the operator's, or the one that a `run.start` names.
            "address": None,
            "title": "Webhooks",
            "summary": "The server tells of a run by signed HTTP requests: each event at least once, in order.",
            "messages": {f"webhook.{name}": _message_ref(f"webhook.{name}") for name in get_args(WebhookEvent)},
        },
    }


def _operations() -> dict[str, Any]:
    posted = {"http": {"method": "POST", "query": _query(client_id=_ID_PARAMETER), "bindingVersion": "0.3.0"}}
    operations: dict[str, Any] = {}
    for name, kind in COMMANDS.items():
        answer = Pong.TYPE if kind is Ping else Receipt.TYPE
        operations[_key(name)] = {
            "action": "receive",
            "channel": _ref("#/channels/socket"),
            "title": name,
            "messages": [_of("socket", name)],
            "reply": {"channel": _ref("#/channels/socket"), "messages": [_of("socket", answer)]},
        }
    operations["startRun"] = {
        "action": "receive",
        "channel": _ref("#/channels/runs"),
        "messages": [_of("runs", _START)],
        "reply": {"channel": _ref("#/channels/runs"), "messages": [_of("runs", _STARTED)]},
        "bindings": posted,
    }
    operations["runCommand"] = {
        "action": "receive",
        "channel": _ref("#/channels/runCommands"),
        "summary": "A command by HTTP. `v`, `run_id` and, with an `Idempotency-Key`, `command_id` may be left out.",
        "messages": [_of("runCommands", name) for name in _POSTED],
        "reply": {
            "channel": _ref("#/channels/runCommands"),
            "messages": [_of("runCommands", Receipt.TYPE)],
        },
        "bindings": posted,
    }
    streams = {
        "events": ("socket", list(EVENTS), "Events of the runs that the connection is attached to.", None),
        "frames": ("socket", list(FRAMES), "What the connection itself says.", None),
        "runEvents": ("runEvents", [*EVENTS, RunReset.TYPE, "heartbeat"], "One run, to its end.", _STREAM),
        "feed": ("feed", [*EVENTS, _FEED_DROPPED], "A sample of all runs.", _FEED),
    }
    for key, (channel, names, summary, query) in streams.items():
        operations[key] = {
            "action": "send",
            "channel": _ref(f"#/channels/{channel}"),
            "summary": summary,
            "messages": [_of(channel, name) for name in names],
        }
        if query is not None:
            operations[key]["bindings"] = {"http": {"method": "GET", "query": query, "bindingVersion": "0.3.0"}}
    operations["webhooks"] = {
        "action": "send",
        "channel": _ref("#/channels/webhooks"),
        "summary": "One POST an event. A repetition has the same `webhook-id`.",
        "security": [_ref(_SECURITY + "signature")],
        "messages": [_of("webhooks", f"webhook.{name}") for name in get_args(WebhookEvent)],
        "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
    }
    return operations


def _query(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_ID_PARAMETER: Final = {
    "type": "string",
    "pattern": ID_PATTERN,
    "description": "Made by the client, the same over its reconnects; by it a client hosts its tools.",
}
_STREAM: Final = _query(
    since_seq={"type": "integer", "minimum": 0, "description": "The last seq you have. Default 0: from the beginning."},
    epoch={"type": "string", "description": "The history that you have it from."},
    replay={"enum": ["full", "merged", "snapshot"], "description": "Default `full`."},
)
_FEED: Final = _query(
    types={"type": "string", "description": "Types, or prefixes that end in a dot, separated by commas."},
    run_id={"type": "string", "pattern": ID_PATTERN},
)


# -- messages


def _messages(sections: dict[str, "_Section"]) -> dict[str, Any]:
    messages = {}
    by_tag: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("command", COMMANDS, "$message.payload#/command_id"),
        ("frame", FRAMES, ""),
        ("event", EVENTS, ""),
    )
    for tag, kinds, correlation in by_tag:
        for name, kind in kinds.items():
            section = sections[name]
            message = section.message(name, tag=tag, payload=_ref(f"{_SCHEMAS}{kind.__name__}{tag.title()}"))
            location = "$message.payload#/payload/command_id" if name == Receipt.TYPE else correlation
            if location:
                message["correlationId"] = {"location": location}
            messages[name] = message
    for name in get_args(WebhookEvent):
        event = EVENTS[name]
        messages[f"webhook.{name}"] = {
            "name": name,
            "title": f"{name} (webhook)",
            "summary": sections[name].summary,
            "tags": [{"name": "webhook"}],
            "headers": _ref(_SCHEMAS + "WebhookHeaders"),
            "payload": {
                "allOf": [
                    _ref(_SCHEMAS + "WebhookBody"),
                    {"properties": {"type": {"const": name}, "payload": _ref(_SCHEMAS + event.__name__)}},
                ]
            },
        }
    return messages | _plain_messages()


def _plain_messages() -> dict[str, Any]:
    """The few that have no section of their own in PROTOCOL.md."""
    messages: dict[str, Any] = {}
    run_id, text_ = {"type": "string", "pattern": ID_PATTERN}, {"type": "string"}
    messages[_START] = {
        "name": _START,
        "title": "POST /v1/runs",
        "summary": "A `run.start` without its envelope.",
        "tags": [{"name": "http"}],
        "payload": {
            "allOf": [
                _ref(f"{_SCHEMAS}{RunStart.__name__}"),
                {
                    "properties": {
                        "wait_s": {"type": "number", "minimum": 0, "description": "Hold the answer back so long."},
                        "background": {"type": "boolean", "description": "202 at once, with `Retry-After`."},
                    }
                },
            ]
        },
        "examples": [{"payload": {"input": "Fix the login test.", "agent": "coder"}}],
    }
    messages[_STARTED] = {
        "name": _STARTED,
        "title": "201 Created",
        "summary": "Which run it is, and where to go on. `as` says what became of a start in a busy thread.",
        "tags": [{"name": "http"}],
        "payload": {
            "type": "object",
            "properties": {
                **dict.fromkeys(("run_id", "thread_id"), run_id),
                "status": {"enum": ["running", "queued"]},
                "as": {"enum": ["started", "queued", "corrected"]},
                "cursor": _ref(f"{_SCHEMAS}{Cursor.__name__}"),
                "links": {
                    "type": "object",
                    "properties": dict.fromkeys(("self", "events", "commands", "cancel"), text_),
                    "required": ["self", "events", "commands", "cancel"],
                },
            },
            "required": ["run_id", "thread_id", "status", "cursor", "links"],
        },
    }
    messages[_FEED_DROPPED] = {
        "name": _FEED_DROPPED,
        "title": _FEED_DROPPED,
        "summary": "So many events were left out since this was last said.",
        "tags": [{"name": "frame"}],
        "payload": {
            "type": "object",
            "properties": {
                "v": {"const": PROTOCOL_VERSION},
                "type": {"const": _FEED_DROPPED},
                "payload": {
                    "type": "object",
                    "properties": {"count": {"type": "integer", "minimum": 1}},
                    "required": ["count"],
                },
            },
            "required": ["v", "type", "payload"],
        },
    }
    return messages


class _Section:
    """What PROTOCOL.md says of one message."""

    def __init__(self, body: str) -> None:
        self.description = re.sub(r"\n{3,}", "\n\n", _EXAMPLE.sub("", body)).strip()
        self.examples = [json.loads(found) for found in _EXAMPLE.findall(body)]
        first = self.description.split("\n\n")[0].replace("\n", " ")
        self.summary = _SENTENCE.match(first)[0].strip() if first and not first.startswith("|") else ""  # type: ignore[index]

    def message(self, name: str, *, tag: str, payload: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"name": name, "title": name, "tags": [{"name": tag}], "payload": payload}
        message |= {"summary": self.summary} if self.summary else {}
        message |= {"description": self.description} if self.description else {}
        message |= {"examples": [{"payload": example} for example in self.examples]} if self.examples else {}
        return message


_HEADING: Final = re.compile(r"^### `([a-z._]+)`[^\n]*\n(.*?)(?=^###? |\Z)", re.MULTILINE | re.DOTALL)
_EXAMPLE: Final = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SENTENCE: Final = re.compile(r".*?[^.]\.(?= |$)|.*$")


def _sections(law: str) -> dict[str, _Section]:
    return {name: _Section(body) for name, body in _HEADING.findall(law)}


# -- schemas


def _schemas() -> dict[str, Any]:
    defs = {name: _moved(each) for name, each in schema.build()["$defs"].items()}
    text_, integer = {"type": "string"}, {"type": "integer"}
    defs["WebhookBody"] = {
        "title": "WebhookBody",
        "description": "`payload` is the event's own; its fields over 64 KiB are left out, and named in `left_out`.",
        "type": "object",
        "properties": {
            **dict.fromkeys(("type", "run_id", "thread_id", "user", "ts"), text_),
            "seq": integer,
            "payload": {"type": "object"},
            "left_out": {"type": "array", "items": text_},
            "links": {"type": "object", "properties": dict.fromkeys(("self", "events", "commands"), text_)},
        },
        "required": ["type", "run_id", "thread_id", "user", "seq", "ts", "payload", "links"],
    }
    defs["WebhookHeaders"] = {
        "title": "WebhookHeaders",
        "type": "object",
        "properties": dict.fromkeys(("webhook-id", "webhook-timestamp", "webhook-signature"), text_),
        "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
    }
    return dict(sorted(defs.items()))


def _moved(part: Any) -> Any:
    """A part of the schema at its place in this document."""
    if isinstance(part, list):
        return [_moved(item) for item in part]
    if not isinstance(part, dict):
        return part
    moved = {key: _moved(value) for key, value in part.items()}
    if isinstance(moved.get("$ref"), str):
        moved["$ref"] = moved["$ref"].replace("#/$defs/", _SCHEMAS)
    if isinstance(moved.get("discriminator"), dict):
        # AsyncAPI names the property alone; which type is which schema is in the `const` of each.
        moved["discriminator"] = moved["discriminator"]["propertyName"]
    return moved


def _ref(target: str) -> dict[str, str]:
    return {"$ref": target}


def _message_ref(name: str) -> dict[str, str]:
    return _ref(f"#/components/messages/{name}")


def _carried(names: Iterable[str]) -> dict[str, dict[str, str]]:
    return {name: _message_ref(name) for name in names}


def _of(channel: str, name: str) -> dict[str, str]:
    return _ref(f"#/channels/{channel}/messages/{name}")


def _key(name: str) -> str:
    """A message's name as an operation's: `run.start` is `runStart`."""
    first, *rest = re.split(r"[._]", name)
    return first + "".join(word.title() for word in rest)


def main(arguments: list[str] | None = None) -> int:
    def made() -> str:
        return json.dumps(build(_LAW.read_text(encoding="utf-8")), indent=1, ensure_ascii=False) + "\n"

    return schema.written(made, module="midstream_protocol.asyncapi", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
