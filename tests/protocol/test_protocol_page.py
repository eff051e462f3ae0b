"""PROTOCOL.md is the product: its examples are frames that we read, and nothing of the wire is missing from it."""

import json
import re
from itertools import pairwise
from pathlib import Path

import jsonschema_rs
import pytest

from midstream_protocol import (
    COMMANDS,
    CONNECTION_COMMANDS,
    ERRORS,
    EVENTS,
    FRAMES,
    NORMAL,
    TERMINAL_TYPES,
    TOO_BIG,
    Close,
    Command,
    Event,
    decode_command,
    decode_frame,
    may_retry,
    terminal_digest,
    view_from_builtins,
)
from midstream_protocol.schema import build

PAGE = (Path(__file__).parents[2] / "protocol" / "PROTOCOL.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)
SECTIONS = dict(re.findall(r"\n### `([^`]+)`[^\n]*\n(.*?)(?=\n##)", PAGE, re.DOTALL))
SCHEMA = jsonschema_rs.validator_for(build())


def read(text):
    value = json.loads(text)
    if "cursor" in value:
        return view_from_builtins(value)
    return decode_command(text) if value["type"] in COMMANDS else decode_frame(text)


@pytest.mark.parametrize("text", BLOCKS)
def test_every_example_is_what_we_read(text):
    said = read(text)
    SCHEMA.validate(json.loads(text))
    if isinstance(said, Event):
        assert isinstance(said.payload, EVENTS[said.type])
        if said.type in TERMINAL_TYPES:
            assert said.payload.digest == terminal_digest(said.payload)
    elif isinstance(said, Command):
        assert isinstance(said.payload, COMMANDS[said.type])


@pytest.mark.parametrize("name", [*EVENTS, *COMMANDS, *FRAMES])
def test_everything_on_the_wire_has_a_section_with_an_example_of_it(name):
    example = re.search(r"```json\n(.*?)\n```", SECTIONS[name], re.DOTALL)
    assert json.loads(example[1])["type"] == name


@pytest.mark.parametrize("kind", [*EVENTS.values(), *COMMANDS.values(), *FRAMES.values()], ids=lambda kind: kind.TYPE)
def test_every_field_is_named_in_its_section(kind):
    unnamed = [field for field in kind.__struct_encode_fields__ if not re.search(rf"\b{field}\b", SECTIONS[kind.TYPE])]
    assert not set(unnamed) - ({"reason", "correction_id"} if kind.TYPE == "plan.updated" else set())


def test_connection_commands_are_marked():
    marked = set(re.findall(r"\n### `([^`]+)` \*\n", PAGE))
    assert marked == CONNECTION_COMMANDS


def test_every_refusal_stands_in_the_table():
    rows = dict(re.findall(r"\n\| `(\w+)` \| (\d{3} \| [\w, ]+?) \|", PAGE))
    assert rows == {
        code: f"{error.status} | " + ("yes" if error.remembered else "no, retryable" if error.retryable else "no")
        for code, error in ERRORS.items()
    }


def test_every_close_code_stands_in_the_table():
    rows = {int(code): retry == "yes" for code, retry in re.findall(r"\n\| (\d{4}) \|[^\n]*\| (yes|no) \|", PAGE)}
    assert rows == {code: may_retry(code) for code in (NORMAL, TOO_BIG, *Close)}


def test_the_fold_speaks_of_every_event():
    table = PAGE[PAGE.index("### The fold") : PAGE.index("## 7.")]
    for name in EVENTS:
        assert f"`{name}`" in table or (name.startswith("correction.") and "`correction.*`" in table)


def test_the_refusals_of_each_command_exist():
    for name in COMMANDS:
        for refusals in re.findall(r"Refusals: ([^\n]*)", SECTIONS[name]):
            assert {code for code in re.findall(r"`(\w+)`", refusals) if code != "resolution"} - {"errors"} <= set(
                ERRORS
            )


def test_sections_are_numbered_in_order():
    numbers = [int(number) for number in re.findall(r"\n## (\d)\. ", PAGE)]
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
