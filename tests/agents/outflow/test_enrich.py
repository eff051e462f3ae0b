"""What catalogues say: asked once, in time, and done without."""

import asyncio

import pytest

from midstream.agents.outflow.contract import Outflow, ToolInfo
from midstream.agents.outflow.enrich import FAILED_KEEP_S, MAX_KEPT, Enrichment
from midstream.tasks import spawn, stop
from midstream.testing import ManualClock
from midstream_protocol import events as ev

DELTA = ev.MessageDelta(message_id="m", text="x")


def preparing(tool: str = "search") -> ev.ToolPreparing:
    return ev.ToolPreparing(tool_call_id="c", message_id="m", tool=tool, label="Declared")


class Catalogue:
    def __init__(self, *answers):
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.answers = list(answers)

    async def __call__(self, tool):
        self.asked.append(tool)
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def enrichment(*catalogues, **options):
    clock = ManualClock()
    return Enrichment(Outflow(enrich=catalogues, **options), clock=clock), clock


@pytest.mark.asyncio
async def test_the_first_catalogue_that_knows_a_thing_says_it():
    a, b = Catalogue(ToolInfo(icon="a")), Catalogue(ToolInfo(icon="b", label="Look"))
    it, _ = enrichment(a, Catalogue(None), b)
    assert (await it.enriched(preparing())).label == "Look"
    shown = await it.enriched(preparing())
    if hasattr(shown, "icon"):
        assert shown.icon == "a"
    assert a.asked == b.asked == ["search"]


@pytest.mark.asyncio
async def test_a_catalogue_may_be_a_plain_function():
    it, _ = enrichment(lambda tool: ToolInfo(label=f"The {tool}"))
    assert (await it.enriched(preparing())).label == "The search"


@pytest.mark.asyncio
async def test_it_is_kept_for_a_while_and_for_many_calls_at_once():
    catalogue = Catalogue(ToolInfo(label="One"), ToolInfo(label="Two"))
    it, clock = enrichment(catalogue, enrich_keep_s=10)
    catalogue.gate.clear()
    asking = [spawn(it.enriched(preparing()), name=f"asking {n}") for n in range(5)]
    await asyncio.sleep(0)
    await stop(asking[0])
    catalogue.gate.set()
    assert {(await each).label for each in asking[1:]} == {"One"}
    await clock.advance(9.9)
    assert (await it.enriched(preparing())).label == "One"
    assert catalogue.asked == ["search"]
    await clock.advance(0.2)
    assert it.enriched_now(preparing()).label == "Declared"
    assert (await it.enriched(preparing())).label == "Two"


@pytest.mark.asyncio
async def test_a_late_catalogue_is_not_waited_for():
    late, quick = Catalogue(ToolInfo(label="Late")), Catalogue(ToolInfo(label="Quick"))
    late.gate.clear()
    it, clock = enrichment(late, quick, enrich_timeout_s=0.5)
    asking = spawn(it.enriched(preparing()), name="asking")
    await clock.advance(0.4)
    assert not asking.done()
    await clock.advance(0.2)
    assert (await asking).label == "Quick"


@pytest.mark.parametrize("answer", [ValueError("no"), "a text", 7])
@pytest.mark.asyncio
async def test_a_failing_catalogue_is_asked_again_later(answer):
    catalogue = Catalogue(answer, ToolInfo(label="There"))
    it, clock = enrichment(catalogue)
    for _ in range(3):
        assert (await it.enriched(preparing())).label == "Declared"
    assert len(catalogue.asked) == 1
    await clock.advance(FAILED_KEEP_S)
    assert (await it.enriched(preparing())).label == "There"


@pytest.mark.asyncio
async def test_deltas_ask_nobody_and_without_catalogues_nobody_is_asked():
    catalogue = Catalogue(ToolInfo(label="x"))
    it, _ = enrichment(catalogue)
    assert await it.enriched(DELTA) is DELTA
    assert it.enriched_now(DELTA) is DELTA
    assert catalogue.asked == []
    bare, _ = enrichment()
    assert (await bare.enriched(preparing())).label == "Declared"


@pytest.mark.asyncio
async def test_what_is_kept_and_what_is_said_is_bounded():
    it, _ = enrichment(Catalogue(ToolInfo(label="x" * 10_000)))
    for number in range(MAX_KEPT + 5):
        shown = await it.enriched(preparing(f"tool_{number}"))
    assert len(shown.label) == 200
    assert len(it._known) == MAX_KEPT
    assert it._asking == {}
