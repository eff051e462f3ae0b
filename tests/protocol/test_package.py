"""The public surface, the committed schema, and the facts that stand in two places."""

import ast
import json
from pathlib import Path

import jsonschema_rs
import pytest

import midstream_protocol
from midstream_protocol import (
    COMMANDS,
    ERRORS,
    EVENTS,
    FRAMES,
    ID_PATTERN,
    Close,
    decode_command,
    encode_command,
    fold_all,
    http_status,
    is_id,
    may_retry,
    new_id,
    view_to_builtins,
)
from midstream_protocol.codec import decode_event
from midstream_protocol.schema import build, main, text

PROTOCOL = Path(__file__).parents[2] / "protocol"
SCHEMA = PROTOCOL / "schema" / "midstream.schema.json"
PUBLIC = Path(__file__).parent / "public_names.txt"


def test_the_public_names_are_these():
    assert list(midstream_protocol.__all__) == PUBLIC.read_text(encoding="utf-8").split()
    assert all(hasattr(midstream_protocol, name) for name in midstream_protocol.__all__)
    assert len(set(midstream_protocol.__all__)) == len(midstream_protocol.__all__)


def test_the_package_does_nothing_but_re_export():
    tree = ast.parse((PROTOCOL / "midstream_protocol" / "__init__.py").read_text(encoding="utf-8"))
    imports = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imports == set(midstream_protocol.__all__)
    assert {type(node) for node in tree.body} <= {ast.Expr, ast.ImportFrom, ast.Assign}


def test_the_committed_schema_is_fresh(tmp_path, capsys):
    assert SCHEMA.read_text(encoding="utf-8") == text(), "run python -m midstream_protocol.schema --write"
    assert main(["--check", str(SCHEMA)]) == 0
    stale = tmp_path / "stale.json"
    stale.write_text("{}")
    assert main(["--check", str(stale)]) == 1
    assert "stale" in capsys.readouterr().err
    assert main(["--check", str(tmp_path / "absent.json")]) == 1
    assert main(["--write", str(stale)]) == 0
    assert stale.read_text(encoding="utf-8") == text()


def test_the_schema_prints(capsys):
    assert main([]) == 0
    assert json.loads(capsys.readouterr().out) == build()


def _validator(name):
    return jsonschema_rs.validator_for({**build(), "anyOf": [{"$ref": f"#/$defs/{name}"}]})


def _conformance(pattern):
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((PROTOCOL / "conformance").glob(pattern))]


def test_real_events_and_views_fit_the_schema():
    event_schema, view_schema = _validator("Event"), _validator("View")
    seen = set()
    for case in _conformance("fold/*.json"):
        for event in case["events"]:
            if event["type"] in EVENTS:
                event_schema.validate(event)
                seen.add(event["type"])
        for view in case["views"].values():
            view_schema.validate(view)
        view_schema.validate(view_to_builtins(fold_all(decode_event(json.dumps(event)) for event in case["events"])))
    assert seen == set(EVENTS)


def test_real_commands_fit_the_schema():
    command_schema = _validator("Command")
    seen = set()
    for case in _conformance("decode/commands.json")[0]["cases"]:
        if "command" in case and "frame" in case and None not in case["frame"].get("payload", {}).values():
            command_schema.validate(case["frame"])
            command_schema.validate(json.loads(encode_command(decode_command(json.dumps(case["frame"])))))
            seen.add(case["frame"]["type"])
    assert seen == set(COMMANDS)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in _conformance("decode/commands.json")[0]["cases"]
        if case.get("error") in ("malformed", "unknown_command") and "frame" in case
    ],
    ids=lambda case: case["name"].replace(" ", "_"),
)
def test_what_the_schema_takes_and_the_decoder_refuses_is_this(case):
    beyond_a_schema = {
        "start, two run ids", "offer, two run ids", "offer without a run", "input empty", "no blocks", "bad base64",
        "base64 with a newline", "a bad media type", "an empty url", "a tool twice", "args too deep",
        "ok with an error", "not ok without an error", "not ok with a result",
        "progress and a result without ok", "resume with an empty input",
    }  # fmt: skip
    assert _validator("Command").is_valid(case["frame"]) == (case["name"] in beyond_a_schema)


def test_no_null_in_the_schema():
    assert "null" not in text().replace("null for", "")


def test_every_definition_is_titled_by_its_name():
    assert all(schema["title"] == name for name, schema in build()["$defs"].items())


def test_every_type_stands_in_a_union():
    defs = build()["$defs"]
    for union, types in (("Event", EVENTS), ("Command", COMMANDS), ("Frame", FRAMES)):
        assert set(defs[union]["discriminator"]["mapping"]) == set(types)


def test_ids():
    assert is_id(new_id("run"))
    assert new_id("run") != new_id("run")
    assert new_id("call").startswith("call_")
    for wrong in ("", "a" * 65, "a b", "a\n", "é", "a.b", None, 5):
        assert not is_id(wrong)
    assert ID_PATTERN.startswith("^")


def test_closes_come_in_two_bands():
    assert {code.name for code in Close if not may_retry(code)} == {
        "BAD_CREDENTIALS", "BAD_REQUEST", "FORBIDDEN", "TOO_MANY_CONNECTIONS", "TOO_MANY_ERRORS"
    }  # fmt: skip
    assert may_retry(1006)
    assert may_retry(4499)
    assert not may_retry(1000)
    assert not may_retry(1009)
    assert not may_retry(4500)


def test_errors():
    assert ERRORS["too_large"].status == 413
    assert http_status("already_resolved") == 409
    assert http_status("from_the_future") == 422
    # A refusal that invites to resend must not be remembered, or resending would get it again for ever.
    assert not [error for error in ERRORS.values() if error.retryable and error.remembered]
