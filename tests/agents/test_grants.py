"""An approval that is remembered: how far it reaches, how long it holds, and what it never answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from midstream import Agent, ask_when, tool
from midstream.agents.tools.signature import BadTool
from midstream.runs import Principal
from midstream.runs.grants import Grant
from midstream.runs.keys import namespace
from midstream.testing import PlayedRun, Refused, Stage, call, staged
from midstream.testing.played import TESTER
from midstream_protocol.errors import NotFound
from tests.agents.kit import agent, check_log

pytestmark = pytest.mark.asyncio

SPACE = namespace(TESTER.id)


def refund(ran: list[int], **options: Any) -> Any:
    @tool(**{"approval": "always", "label": "Refund {amount}", **options})
    async def refund(amount: int) -> str:
        """Refund."""
        ran.append(amount)
        return "refunded"

    return refund


@asynccontextmanager
async def shop(*agents: Agent, calls: int = 1) -> AsyncIterator[Stage]:
    """Each run of it makes so many refunds, one after the other."""
    turns = [*(call("refund", amount=n) for n in range(1, calls + 1)), "Done."]
    async with staged(list(agents), {"turns": turns, "loop": True}) as stage:
        yield stage


async def asked(run: PlayedRun) -> Any:
    return (await run.until("approval.required")).payload


async def unasked(run: PlayedRun) -> str:
    """The run ends without a question; what it says of the grant."""
    await run.result()
    assert run.of_type("approval.required") == []
    (notice,) = run.of_type("notice")
    assert (notice.level, notice.code) == ("info", "approval_granted")
    check_log(run)
    return str(notice.text)


async def grants(stage: Stage, space: str = SPACE) -> list[Grant]:
    items, _ = await stage.registry.grants.page(space, after=None, limit=100)
    return items


async def given(stage: Stage, scope: Any, *, thread: str = "t1", **options: Any) -> Grant:
    """A run in which the refund is approved for that scope."""
    run = await stage.start("Go.", thread_id=thread)
    question = await asked(run)
    assert question.remember_scopes == ["run", "thread", "always"]
    await run.approve(remember=scope, **options)
    await run.result()
    (resolved,) = run.of_type("approval.resolved")
    (grant,) = await grants(stage)
    assert resolved.grant_id == grant.grant_id
    assert grant.given_at.run_id == run.run_id
    return grant


async def test_for_the_thread() -> None:
    ran: list[int] = []
    async with shop(agent(refund(ran))) as stage:
        grant = await given(stage, "thread")
        assert (grant.scope, grant.tool, grant.agent, grant.thread_id) == ("thread", "refund", "tester", "t1")
        assert (grant.by, grant.risk, grant.given_at.label, grant.expires_at) == (TESTER.id, "medium", "Refund 1", None)
        text = await unasked(await stage.start("Again.", thread_id="t1"))
        assert text == f"Refund 1: approved for this thread ({grant.grant_id})"
        elsewhere = await stage.start("Elsewhere.", thread_id="t2")
        await asked(elsewhere)
        assert ran == [1, 1]


async def test_for_every_run_of_that_agent_and_person() -> None:
    ran: list[int] = []
    other = Agent("other", instructions="", tools=[refund(ran)])
    async with shop(agent(refund(ran)), other) as stage:
        grant = await given(stage, "always")
        assert (grant.scope, grant.thread_id) == ("always", None)
        text = await unasked(await stage.start("Elsewhere."))
        assert text == f"Refund 1: approved for every run ({grant.grant_id})"
        await asked(await stage.start("Another agent.", agent="other"))
        assert await grants(stage, namespace("somebody else")) == []
        assert ran == [1, 1]


async def test_for_the_run_only_is_no_grant_of_others() -> None:
    async with shop(agent(refund([])), calls=2) as stage:
        run = await stage.start("Go.", thread_id="t1")
        await asked(run)
        await run.approve(remember=True)
        await run.result()
        assert len(run.of_type("approval.required")) == 1
        assert await grants(stage) == []
        await asked(await stage.start("Again.", thread_id="t1"))


async def test_a_denial_is_not_remembered() -> None:
    async with shop(agent(refund([]))) as stage:
        run = await stage.start("Go.")
        await asked(run)
        await run.deny()
        await run.result()
        assert await grants(stage) == []


@pytest.mark.parametrize("scope", ["thread", "always"])
async def test_it_ends_in_its_time(scope: Any) -> None:
    async with shop(agent(refund([]))) as stage:
        await given(stage, scope, expires_in_s=60)
        await stage.clock.advance(59)
        await unasked(await stage.start("In time.", thread_id="t1"))
        await stage.clock.advance(1)
        await asked(await stage.start("Late.", thread_id="t1"))
        assert await grants(stage) == []


async def test_a_grant_for_the_run_ends_in_its_time() -> None:
    ran: list[int] = []
    async with shop(agent(refund(ran)), calls=4) as stage:
        run = await stage.start("Go.")
        await asked(run)
        await run.approve(remember=True, expires_in_s=0)
        await asked(run)
        await run.approve(remember=True, expires_in_s=60)
        await run.result()
        assert len(run.of_type("approval.required")) == 2
        assert ran == [1, 2, 3, 4]


async def test_given_again_it_is_the_same_grant_with_the_newer_end() -> None:
    async with shop(agent(refund([]))) as stage:
        first = await given(stage, "thread", expires_in_s=60)
        await stage.clock.advance(61)
        second = await given(stage, "thread")
        assert second.grant_id == first.grant_id
        assert second.expires_at is None
        assert second.given_at.run_id != first.given_at.run_id


async def test_revoked_it_holds_for_no_further_call_also_of_a_running_run() -> None:
    ran: list[int] = []
    reached, go_on = asyncio.Event(), asyncio.Event()

    @tool(approval="always")
    async def refund(amount: int) -> str:
        """Refund."""
        ran.append(amount)
        if len(ran) > 2:
            reached.set()
            await go_on.wait()
        return "refunded"

    async with shop(agent(refund), calls=2) as stage:
        grant = await given(stage, "always")
        run = await stage.start("Again.")
        await reached.wait()
        with pytest.raises(NotFound):
            await stage.registry.grants.revoke(namespace("somebody else"), grant.grant_id)
        await stage.registry.grants.revoke(SPACE, grant.grant_id)
        with pytest.raises(NotFound):
            await stage.registry.grants.revoke(SPACE, grant.grant_id)
        go_on.set()
        await asked(run)
        assert ran == [1, 2, 1]


async def test_revoked_it_ends_also_for_the_run_that_it_was_given_in() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    @tool(approval="always")
    async def refund(amount: int) -> str:
        """Refund."""
        reached.set()
        await go_on.wait()
        return "refunded"

    async with shop(agent(refund), calls=2) as stage:
        run = await stage.start("Go.")
        await asked(run)
        await run.approve(remember="always")
        await reached.wait()
        (grant,) = await grants(stage)
        await stage.registry.grants.revoke(SPACE, grant.grant_id)
        go_on.set()
        await asked(run)


async def test_it_outlives_the_server() -> None:
    async with shop(agent(refund([]))) as stage:
        grant = await given(stage, "thread")
        await stage.crash()
        assert await grants(stage) == [grant]
        await unasked(await stage.start("Again.", thread_id="t1"))
        await stage.restart()
        await unasked(await stage.start("Again.", thread_id="t1"))


async def test_what_does_great_harm_is_asked_in_each_run() -> None:
    policy = ask_when(lambda _: True, risk="high")
    for options in ({"risk": "high"}, {"approval": policy}):
        async with shop(agent(refund([], **options))) as stage:
            run = await stage.start("Go.")
            assert (await asked(run)).remember_scopes == ["run"]
            with pytest.raises(Refused) as refused:
                await run.approve(remember="always")
            assert refused.value.receipt.code == "invalid_args"
            await run.approve(remember=True)
            await run.result()


async def test_a_tool_says_itself_how_far_a_grant_for_it_may_reach() -> None:
    async with shop(agent(refund([], risk="high", remember=["always", "run"]))) as stage:
        assert (await asked(await stage.start("Go."))).remember_scopes == ["run", "always"]
    async with shop(agent(refund([], remember=()))) as stage:
        assert (await asked(await stage.start("Go."))).remember_scopes == []
    for wrong in ("always", ["for ever"]):
        with pytest.raises(BadTool, match="remember is a list of run, thread, always"):
            refund([], remember=wrong)


async def test_an_app_that_allows_less_than_before_ends_the_grants_that_reach_further() -> None:
    tools = [refund([]), refund([], remember=["run", "thread"])]
    serving = Agent("tester", instructions="", tools=tools[:1])
    async with shop(serving) as stage:
        await given(stage, "always")
        stricter = Agent("tester", instructions="", tools=tools[1:])
        async with shop(stricter) as later:
            for record in await stage.store.records.list(f"grant.{SPACE}"):
                await later.store.records.put(f"grant.{SPACE}", record.id, record.data)
            assert len(await grants(later)) == 1
            await asked(await later.start("Again."))


async def test_a_grant_does_not_answer_whether_to_run_again_what_may_have_run() -> None:
    hangs = asyncio.Event()
    ran: list[int] = []

    @tool(approval="always", on_unknown="ask")
    async def refund(amount: int) -> str:
        """Refund."""
        ran.append(amount)
        if len(ran) == 2:
            hangs.set()
            await asyncio.Event().wait()
        return "refunded"

    async with shop(agent(refund)) as stage:
        await given(stage, "always")
        run = await stage.start("Again.")
        await hangs.wait()
        await stage.crash()
        question = await asked(run)
        assert (question.reason, question.remember_scopes) == ("unknown_outcome", [])


async def test_a_grant_does_not_answer_for_a_call_whose_like_may_have_had_its_effect() -> None:
    ran: list[int] = []

    @tool(approval="always", timeout=5)
    async def refund(amount: int) -> str:
        """Refund."""
        ran.append(amount)
        if len(ran) == 3:
            await asyncio.Event().wait()
        return "refunded"

    twice = [call("refund", amount=1), call("refund", amount=1), "Done."]
    async with staged(agent(refund), {"turns": twice, "loop": True}) as stage:
        await given(stage, "always")
        run = await stage.start("Again.")
        await run.until("tool.started")
        await run.advance(6)
        question = await asked(run)
        assert [p.outcome for p in run.of_type("tool.failed")] == ["unknown"]
        assert (question.reason, question.remember_scopes) == ("unknown_outcome", [])
        assert ran == [1, 1, 1]


async def test_a_thread_that_is_erased_takes_its_grants_along() -> None:
    async with shop(agent(refund([]))) as stage:
        grant = await given(stage, "thread")
        again = await stage.start("Again.", thread_id="t1")
        await unasked(again)
        await stage.registry.delete(TESTER, grant.given_at.run_id)
        assert await grants(stage) == [grant]
        await stage.registry.delete(TESTER, again.run_id)
        assert await grants(stage) == []
        await asked(await stage.start("As new.", thread_id="t1"))


async def test_a_grant_for_every_run_stays_when_its_run_is_erased() -> None:
    async with shop(agent(refund([]))) as stage:
        grant = await given(stage, "always")
        await stage.registry.delete(TESTER, grant.given_at.run_id)
        assert await grants(stage) == [grant]


async def test_pages_are_newest_first_and_whole() -> None:
    names = [f"agent{n}" for n in range(5)]
    async with shop(*(Agent(name, instructions="", tools=[refund([])]) for name in names)) as stage:
        for name in names:
            run = await stage.start("Go.", agent=name)
            await asked(run)
            await run.approve(remember="always")
            await run.result()
            await stage.clock.advance(1)
        seen, after = [], None
        while True:
            items, after = await stage.registry.grants.page(SPACE, after=after, limit=2)
            seen += [grant.agent for grant in items]
            if after is None:
                break
        assert seen == names[::-1]


async def test_two_in_one_step() -> None:
    """Both approvals are answered before the run's writer looks: of the same grant, the last counts."""
    two = {"steps": [{"call": {"tool": "refund", "args": {"amount": n}}} for n in (1, 2)]}
    async with staged(agent(refund([])), [two, "Done."]) as stage:
        run = await stage.start("Go.")
        keys = [(await asked(run)).approval_id, (await asked(run)).approval_id]
        await asyncio.gather(*(run.approve(key, remember="always") for key in keys))
        await run.result()
        (grant,) = await grants(stage)
        assert grant.given_at.approval_id == keys[1]


async def test_it_is_nobody_elses() -> None:
    ran: list[int] = []
    async with shop(agent(refund(ran))) as stage:
        await given(stage, "always")
        other = Principal(id="other", name="other")
        assert (
            await stage.registry.grants.find(
                namespace(other.id), agent="tester", tool="refund", thread_id="t1", scopes=("thread", "always")
            )
            is None
        )
