"""The example of the research desk does what its page says."""

from pathlib import Path
from typing import Any

import pytest

from examples.research_desk.desk import app, no_personal_data
from examples.research_desk.library import Library, calculate, list_documents, read_document, search_documents
from examples.research_desk.watch import QUESTION, WIDTH, Timeline
from midstream import Allow, Stop, ToolError
from midstream.agents.planning.contract import Request
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.runs.contract import Principal
from midstream.testing import ManualClock, PlayedRun, staged
from midstream_protocol.events import TERMINAL_TYPES
from tests.house.checkout import ROOT, code_blocks, read

SCRIPT = ROOT / "examples" / "research_desk" / "script.yaml"
MOST_TICKS = 2_000


async def played(question: str) -> PlayedRun:
    clock = ManualClock()
    async with staged(app, ScriptedProvider(SCRIPT, clock=clock), clock=clock) as stage:
        run = await stage.start(question)
        for _ in range(MOST_TICKS):
            await run.catch_up()
            if run.events[-1].type in TERMINAL_TYPES:
                return run
            await run.advance(0.05)
    raise AssertionError(f"the run does not end: {run.events[-1]}")


def told(run: PlayedRun) -> str:
    timeline = Timeline()
    lines = [timeline.line(event) for event in run.events]
    return "".join(f"{line}\n" for line in lines if line is not None)


@pytest.mark.asyncio
async def test_its_timeline_is_the_one_on_the_page():
    run = await played(QUESTION)
    assert code_blocks(read("examples/README.md"), "text") == [told(run)]
    assert all(len(line) <= WIDTH for line in told(run).splitlines())


@pytest.mark.asyncio
async def test_its_tools_are_called_and_its_figures_are_right():
    run = await played(QUESTION)
    assert [each.preview for each in run.of_type("tool.completed")][-3:] == ["35.0", "90.0", "31.1667"]
    assert not run.of_type("tool.failed")
    shown = {each.data["name"] for each in run.of_type("object.created")}
    assert shown == {"ridership-2023", "ridership-2024", "plan-2030", "punctuality-2024"}
    result = run.of_type("run.completed")[0].result
    assert all(number in result for number in ("31.17", "35.00", "90.00"))
    # Only the last step's text streamed.
    assert run.text == result


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("question", "guard"), [("How is the weather?", "scope"), ("Mail it to a@example.org.", "no_personal_data")]
)
async def test_what_is_not_its_business_does_not_begin(question: str, guard: str):
    run = await played(question)
    assert [each.name for each in run.of_type("guardrail.triggered")] == [guard]
    assert run.of_type("run.failed")[0].code == "guardrail"
    assert not run.of_type("plan.created")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("asked", "verdict"),
    [("Call 0123 456 7890", Stop), ("Write to me@example.org", Stop), ("8,520,000 boardings in 2024?", Allow)],
)
async def test_its_function_guardrail(asked: str, verdict: type):
    principal = Principal(id="p", name="P")
    fields: dict[str, Any] = {"run_id": "r", "thread_id": "t", "agent": "desk", "history": (), "metadata": {}}
    assert isinstance(await no_personal_data(Request(input=asked, principal=principal, **fields)), verdict)


LIBRARY = Library.shipped()


@pytest.mark.asyncio
async def test_the_documents():
    listed = await list_documents(LIBRARY)
    assert len(listed) == len(list(Path(SCRIPT).with_name("documents").iterdir())) == 8
    assert all(each.title for each in listed)
    hits = await search_documents("WEIR bridge", LIBRARY)
    assert {hit.name for hit in hits} == {"network", "plan-2030", "punctuality-2024"}
    with pytest.raises(ToolError, match="there are: costs-2024"):
        await read_document("none", LIBRARY, None)
    with pytest.raises(ToolError):
        await search_documents("  ", LIBRARY)


@pytest.mark.asyncio
async def test_the_calculator():
    assert await calculate("(29,400,000 + 8,000,000) / 1,200,000") == 31.1667
    assert await calculate("-2 * (3 - 1.5)") == -3
    for wrong in ("1 / 0", "2 ** 9", "__import__('os')", "", "True", "1e308 * 1e308", "9" * 201, "(" * 199):
        with pytest.raises(ToolError):
            await calculate(wrong)


def test_the_numbers_of_the_documents_agree():
    """A reader will add them up."""
    for year in ("2023", "2024"):
        lines = [row.split("|") for row in LIBRARY.text(f"ridership-{year}").splitlines() if row.startswith("|")][2:]
        counts = [int(row[2].replace(",", "")) for row in lines]
        assert sum(counts[:-1]) == counts[-1]
    for row in LIBRARY.text("costs-2024").splitlines():
        if row.startswith("| ") and "000" in row:
            *parts, total = [int(cell.replace(",", "")) for cell in row.strip("| ").split("|")[1:]]
            assert sum(parts) == total
