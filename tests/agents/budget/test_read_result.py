"""Reading a shortened result again, part by part."""

import pytest

from midstream.agents.journal import journal_record
from midstream.agents.tools.context import ToolError
from midstream.agents.tools.read_result import read_result, reading, result_in
from midstream.agents.tools.shown import REDACTED, keep
from midstream.runs.contract import ResultRecord

RESULTS = {"call_1": "abcdefghij", "call_2": ""}


async def whole(call_id):
    return RESULTS.get(call_id)


@pytest.mark.asyncio
async def test_part_by_part_comes_the_whole():
    tool, text, offset, parts = reading(whole, slice_chars=4), "", 0, 0
    while offset is not None:
        part = await tool(call_id="call_1", offset=offset)
        assert (part["characters"], part["offset"]) == (10, offset)
        text, offset, parts = text + part["text"], part["next_offset"], parts + 1
    assert (text, parts) == (RESULTS["call_1"], 3)
    assert (await tool(call_id="call_2", offset=0))["next_offset"] is None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("call_id", "offset", "says"),
    [("call_9", 0, "no result"), ("call_1", 10, "offset must be 0 to 9"), ("call_1", -1, "offset must be 0 to 9")],
)
async def test_what_cannot_be_read_says_what_to_do(call_id, offset, says):
    with pytest.raises(ToolError, match=says):
        await reading(whole)(call_id=call_id, offset=offset)


@pytest.mark.asyncio
async def test_people_do_not_see_what_its_own_tool_may_have_hidden_from_them():
    kept = keep(await reading(whole)(call_id="call_1", offset=0), redact=read_result.redact)
    assert RESULTS["call_1"] not in kept.preview
    assert REDACTED in kept.preview
    assert kept.record.value["text"] == RESULTS["call_1"]


def test_it_may_be_called_again_and_asks_nobody():
    assert (read_result.idempotent, read_result.on_unknown, read_result.approval) == (True, "retry", "never")
    assert sorted(read_result.input_schema["properties"]) == ["call_id", "offset"]


def test_a_result_as_the_journal_has_it():
    journal = [
        journal_record("result", "call_1", ResultRecord(ok=True, value={"a": 1})),
        journal_record("result", "call_1", ResultRecord(ok=True, value="second")),
        journal_record("result", "call_2", ResultRecord(ok=True, value="text")),
        journal_record("result", "call_3", ResultRecord(ok=False, error="denied", text="No.")),
    ]
    assert result_in(journal, "call_1") == '{"a":1}'
    assert result_in(journal, "call_2") == "text"
    assert result_in(journal, "call_3") == "denied: No."
    assert result_in(journal, "call_4") is None
