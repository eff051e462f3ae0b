"""The AsyncAPI document says what the schema says, and what PROTOCOL.md shows of it."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import jsonschema_rs
import pytest

from midstream_protocol import asyncapi
from midstream_protocol.commands import COMMANDS, CONNECTION_COMMANDS, WebhookEvent
from midstream_protocol.events import EVENTS
from midstream_protocol.frames import FRAMES
from tests.house.checkout import ROOT, read

PATH = ROOT / "protocol" / "schema" / "asyncapi.json"
DOCUMENT: dict[str, Any] = asyncapi.build(read("protocol/PROTOCOL.md"))
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def found(reference: str) -> Any:
    part: Any = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        part = part[name]
    return part


def test_the_committed_document_is_the_one_that_is_made(capsys):
    assert asyncapi.main(["--check", str(PATH)]) == 0
    assert asyncapi.main([]) == 0
    assert capsys.readouterr().out == PATH.read_text(encoding="utf-8") == asyncapi.text()


def test_a_stale_one_is_noticed_and_written_anew(tmp_path, capsys):
    path = tmp_path / "asyncapi.json"
    assert asyncapi.main(["--check", str(path)]) == 1
    path.write_text("{}")
    assert asyncapi.main(["--check", str(path)]) == 1
    assert "--write" in capsys.readouterr().err
    assert asyncapi.main(["--write", str(path)]) == 0
    assert asyncapi.main(["--check", str(path)]) == 0


def test_every_message_of_the_protocol_is_there_with_its_meaning_and_an_example():
    for kinds in (COMMANDS, FRAMES, EVENTS):
        for name in kinds:
            message = MESSAGES[name]
            assert message["examples"], name
            assert message.get("description") or name in ("pong", "correction.revoked"), name
            assert "```" not in message.get("description", "")
            # A summary is a sentence of the description, and never half of one.
            assert re.search(r"[.)`]$", message.get("summary", ".")), message["summary"]
    assert {f"webhook.{name}" for name in get_args(WebhookEvent)} <= MESSAGES.keys()


def test_all_that_is_referred_to_is_there():
    targets = set(references(DOCUMENT))
    assert len(targets) > 200
    for target in targets:
        found(target)


def test_nothing_of_it_is_left_over():
    used = set(references(DOCUMENT))
    unions = {"Event", "Command", "Frame"}
    left = {name for name in DOCUMENT["components"]["schemas"] if f"#/components/schemas/{name}" not in used} - unions
    assert left == set()


@pytest.mark.parametrize("name", [name for name, message in MESSAGES.items() if message.get("examples")])
def test_an_example_is_what_its_message_says(name: str):
    schemas = {"$defs": DOCUMENT["components"]["schemas"]}
    payload = json.loads(
        json.dumps([MESSAGES[name]["payload"], schemas]).replace("#/components/schemas/", "#/1/$defs/")
    )
    # The discriminator is a word here and an object in JSON Schema; a validator passes over both.
    validator = jsonschema_rs.validator_for({**payload[0], "1": payload[1]})
    for example in MESSAGES[name]["examples"]:
        assert [str(error) for error in validator.iter_errors(example["payload"])] == []
        if "type" in example["payload"]:
            assert example["payload"]["type"] == name
            assert not validator.is_valid({**example["payload"], "type": "another"})
        else:
            assert not validator.is_valid({})


def test_each_command_has_an_operation_with_its_answer():
    operations = DOCUMENT["operations"]
    asked = {
        found(message["$ref"])["$ref"].rpartition("/")[2]: operation
        for operation in operations.values()
        for message in operation["messages"]
        if operation["action"] == "receive" and operation["channel"]["$ref"] == "#/channels/socket"
    }
    assert asked.keys() == COMMANDS.keys()
    answers = {name: [each["$ref"].rpartition("/")[2] for each in asked[name]["reply"]["messages"]] for name in asked}
    assert answers.pop("ping") == ["pong"]
    assert set(map(tuple, answers.values())) == {("receipt",)}
    posted = {message["$ref"].rpartition("/")[2] for message in operations["runCommand"]["messages"]}
    assert posted == COMMANDS.keys() - CONNECTION_COMMANDS


def test_an_operation_speaks_only_of_what_its_channel_carries():
    for operation in DOCUMENT["operations"].values():
        channel = operation["channel"]["$ref"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/")
