"""The guide for writers of tools: its programs are run, and do what it says."""

import inspect
import re
from typing import Any

import pytest

from midstream import Agent, ask_when
from midstream.agents.tools.definition import _make
from midstream.testing import call, play
from tests.house.checkout import code_blocks, read

GUIDE = read("docs/tools.md")


def programs() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "guide"}
    for number, block in enumerate(code_blocks(GUIDE, "python")):
        exec(compile(block, f"docs/tools.md, program {number + 1}", "exec"), names)
    return names


NAMES = programs()
DESK = Agent("desk", instructions="…", tools=[NAMES["order"], NAMES["refund"], NAMES["apply_edit"]])


@pytest.mark.asyncio
async def test_small_refunds_do_not_ask_and_large_ones_do():
    small = call("refund", order_id="17", amount=9.9, iban="DE00")
    large = call("refund", order_id="18", amount=240, iban="DE00")
    async with play(DESK, [small, large, "Done."]) as run:
        asked = (await run.until("approval.required")).payload
        assert (asked.label, asked.risk) == ("Refund 240 on order 18", "high")
        assert asked.reason == "More than 50 needs a second pair of eyes."
        assert asked.preview is not None
        assert asked.preview.data == "The customer gets an e-mail."
        assert "DE00" not in str(asked)
        await run.approve()
        assert await run.result() == "Done."
        assert [done.preview[:14] for done in run.of_type("tool.completed")] == ["Refunded 9.90 ", "Refunded 240.0"]


@pytest.mark.asyncio
async def test_arguments_that_do_not_fit_go_back_to_the_model():
    async with play(DESK, [call("order", order_id=[17]), "I see."]) as run:
        assert await run.result() == "I see."
        assert run.of_type("tool.failed")[0].code == "invalid_args"


def test_its_options_exist():
    told = {name for row in re.findall(r"^\| (`.*?) \|", GUIDE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert {"approval", "preview", "editable", "redact"} <= told
    assert told - {"reason"} <= set(inspect.signature(_make).parameters)
    assert "reason" in inspect.signature(ask_when).parameters
