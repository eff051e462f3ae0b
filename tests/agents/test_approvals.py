"""Nothing dangerous runs unapproved, and what was approved is what runs."""

import asyncio

import pytest

from midstream import Preview, ToolError, ask_when, tool
from midstream.testing import Refused, call, calls
from tests.agents.kit import acting, agent, check_log


def refund(ran, **options):
    @tool(**{"approval": "always", "label": "Refund {amount}", **options})
    async def refund(amount: int, note: str = "") -> str:
        """Refund."""
        ran.append((amount, note))
        return f"refunded {amount}"

    return refund


@pytest.mark.asyncio
async def test_approved():
    ran = []
    async with acting(agent(refund(ran)), [call("refund", amount=7), "Done."]) as (run, model, _):
        asked = (await run.until("approval.required")).payload
        assert (asked.reason, asked.args, asked.label) == ("policy", {"amount": 7}, "Refund 7")
        assert asked.args_schema["required"] == ["amount"]
        assert ran == []
        await run.approve()
        assert await run.result() == "Done."
        assert ran == [(7, "")]
        assert model.told() == ["refunded 7"]
        check_log(run)


@pytest.mark.asyncio
async def test_denied_with_a_reason():
    ran = []
    async with acting(agent(refund(ran)), [call("refund", amount=7), "All right."]) as (run, model, _):
        await run.until("approval.required")
        await run.deny("Too much.")
        assert await run.result() == "All right."
        assert ran == []
        assert model.told() == ["denied: The user denied this call. They said: Too much."]
        assert [(p.code, p.outcome) for p in run.of_type("tool.failed")] == [("denied", "not_started")]
        check_log(run)


@pytest.mark.asyncio
async def test_edited_arguments_run_and_the_model_is_told():
    ran = []
    async with acting(agent(refund(ran)), [call("refund", amount=7, note="n"), "Done."]) as (run, model, _):
        await run.until("approval.required")
        with pytest.raises(Refused) as wrong:
            await run.approve(edit={"amount": "all"})
        assert wrong.value.receipt.errors[0].path == "/amount"
        await run.approve(edit={"amount": 3})
        await run.result()
        assert ran == [(3, "n")]
        assert model.told() == ['[The user changed the arguments of this call to {"amount":3,"note":"n"}]\nrefunded 3']
        assert run.of_type("tool.started")[0].args_preview == {"amount": 3, "note": "n"}
        check_log(run)


@pytest.mark.asyncio
async def test_a_hidden_argument_that_is_sent_back_is_refused():
    ran = []
    async with acting(agent(refund(ran, redact=["note"])), [call("refund", amount=7, note="n"), "x"]) as (run, _, _s):
        asked = (await run.until("approval.required")).payload
        assert asked.args == {"amount": 7, "note": "[hidden]"}
        with pytest.raises(Refused):
            await run.approve(edit={"amount": 3, "note": "[hidden]"})
        await run.approve(edit={"amount": 3})
        await run.result()
        assert ran == [(3, "n")]


@pytest.mark.asyncio
async def test_expired_denies():
    ran = []
    async with acting(agent(refund(ran, expires_s=60)), [call("refund", amount=7), "Well."]) as (run, model, _):
        await run.until("approval.required")
        await run.advance(61)
        assert await run.result() == "Well."
        assert ran == []
        assert model.told() == ["approval_expired: Nobody approved this call in time."]
        check_log(run)


@pytest.mark.asyncio
async def test_expired_fails_the_run_where_the_tool_says_so():
    ran = []
    async with acting(agent(refund(ran, expires_s=60, on_expire="fail")), [call("refund", amount=7)]) as (run, _, _s):
        await run.until("approval.required")
        await run.advance(61)
        failed = (await run.ended()).payload
        assert failed.code == "approval_expired"
        assert [effect.outcome for effect in failed.effects] == ["not_started"]
        assert ran == []
        check_log(run)


@pytest.mark.asyncio
async def test_remembered_for_the_run():
    ran = []
    script = [call("refund", amount=1), call("refund", amount=2), "Done."]
    async with acting(agent(refund(ran)), script) as (run, _, _stage):
        await run.until("approval.required")
        await run.approve(remember=True)
        assert await run.result() == "Done."
        assert ran == [(1, ""), (2, "")]
        assert len(run.of_type("approval.required")) == 1
        assert [p.code for p in run.of_type("notice")] == ["approval_granted"]
        check_log(run)


@pytest.mark.asyncio
async def test_asked_only_for_some_arguments():
    ran = []
    policy = ask_when(lambda a: a.amount > 50, risk="high", reason="over_50")
    script = [call("refund", amount=50), call("refund", amount=51), "Done."]
    async with acting(agent(refund(ran, approval=policy)), script) as (run, _, _stage):
        asked = (await run.until("approval.required")).payload
        assert ran == [(50, "")]
        assert (asked.risk, asked.reason) == ("high", "over_50")
        await run.approve()
        await run.result()
        assert ran == [(50, ""), (51, "")]


@pytest.mark.asyncio
async def test_who_cannot_tell_whether_to_ask_asks():
    ran = []
    policy = ask_when(lambda a: a.no_such_thing)
    async with acting(agent(refund(ran, approval=policy)), [call("refund", amount=1), "x"]) as (run, _, _stage):
        await run.until("approval.required")
        assert ran == []


@pytest.mark.asyncio
async def test_several_approvals_may_be_open_and_are_answered_in_any_order():
    ran = []
    script = [calls(("refund", {"amount": 1}), ("refund", {"amount": 2}), ("refund", {"amount": 3})), "Done."]
    async with acting(agent(refund(ran)), script) as (run, model, _):
        asked = [(await run.until("approval.required")).payload for _ in range(3)]
        await run.approve(asked[2].approval_id)
        await run.until("tool.completed")
        await run.deny(approval_id=asked[0].approval_id)
        await run.approve(asked[1].approval_id)
        await run.result()
        assert ran == [(3, ""), (2, "")]
        assert model.told() == ["denied: The user denied this call.", "refunded 2", "refunded 3"]
        check_log(run)


class World:
    """Something that may change while a person thinks."""

    def __init__(self) -> None:
        self.state = "a"
        self.made = 0

    def preview(self, args):
        self.made += 1
        return Preview(kind="diff", data=f"{self.state} → {args.amount}", guard=self.state)


@pytest.mark.asyncio
async def test_a_preview_is_shown_and_holds():
    ran, world = [], World()
    async with acting(agent(refund(ran, preview=world.preview)), [call("refund", amount=1), "x"]) as (run, _, _stage):
        asked = (await run.until("approval.required")).payload
        assert (asked.preview.kind, asked.preview.data) == ("diff", "a → 1")
        await run.approve()
        await run.result()
        assert ran == [(1, "")]
        assert world.made == 2


@pytest.mark.asyncio
async def test_a_world_that_changed_is_asked_about_anew():
    ran, world = [], World()
    async with acting(agent(refund(ran, preview=world.preview)), [call("refund", amount=1), "x"]) as (run, _, _stage):
        await run.until("approval.required")
        world.state = "b"
        await run.approve()
        again = (await run.until("approval.required")).payload
        assert (again.reason, again.preview.data) == ("changed", "b → 1")
        assert ran == []
        await run.approve()
        await run.result()
        assert ran == [(1, "")]
        check_log(run)


@pytest.mark.asyncio
async def test_a_call_that_cannot_be_previewed_asks_nobody():
    ran = []

    def preview(args):
        raise ToolError("There is no such file.")

    async with acting(agent(refund(ran, preview=preview)), [call("refund", amount=1), "x"]) as (run, model, _):
        await run.result()
        assert model.told() == ["tool_error: There is no such file."]
        assert run.of_type("approval.required") == []
        assert ran == []


@pytest.mark.asyncio
async def test_a_preview_that_takes_for_ever_is_given_up():
    started = asyncio.Event()

    async def preview(args):
        started.set()
        await asyncio.Event().wait()

    async with acting(agent(refund([], preview=preview)), [call("refund", amount=1), "x"]) as (run, model, _):
        await started.wait()
        await run.advance(10)
        await run.result()
        assert model.told()[0].startswith("timeout: The preview took")


@pytest.mark.asyncio
async def test_cancelling_one_call_while_it_is_asked_about():
    ran = []
    async with acting(agent(refund(ran)), [call("refund", amount=1), "On we go."]) as (run, model, _):
        asked = (await run.until("approval.required")).payload
        await run.cancel(tool_call_id=asked.tool_call_id)
        assert await run.result() == "On we go."
        assert model.told()[0].startswith("cancelled: ")
        assert ran == []
        check_log(run)


@pytest.mark.asyncio
async def test_a_call_that_was_cancelled_before_it_could_ask_asks_nobody():
    ran, started, go_on = [], asyncio.Event(), asyncio.Event()

    async def preview(args):
        started.set()
        await go_on.wait()
        return Preview(kind="text", data="x")

    async with acting(agent(refund(ran, preview=preview)), [call("refund", amount=1), "Done."]) as (run, model, _):
        await started.wait()
        await run.cancel(tool_call_id=(await run.until("tool.preparing")).payload.tool_call_id)
        go_on.set()
        assert await run.result() == "Done."
        assert model.told() == ["cancelled: The user cancelled this call before it started."]
        assert run.of_type("approval.required") == []
        assert [p.outcome for p in run.of_type("tool.failed")] == ["not_started"]
        assert ran == []
        check_log(run)


@pytest.mark.asyncio
async def test_after_an_unknown_outcome_the_same_call_is_asked_about():
    tries = []

    @tool(timeout=5)
    async def pay(amount: int) -> str:
        tries.append(amount)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return "paid"

    script = [call("pay", amount=5), call("pay", amount=6), call("pay", amount=5), "Done."]
    async with acting(agent(pay), script) as (run, _, _stage):
        await run.until("tool.started")
        await run.advance(5)
        asked = (await run.until("approval.required")).payload
        assert (asked.reason, asked.args, asked.remember_scopes) == ("unknown_outcome", {"amount": 5}, [])
        assert tries == [5, 6], "other arguments are another call"
        await run.approve()
        await run.result()
        assert tries == [5, 6, 5]
        check_log(run)


@pytest.mark.asyncio
async def test_a_hidden_value_deep_in_an_argument_cannot_be_sent_back_either():
    ran = []

    @tool(approval="always", redact=["number"])
    async def pay(cards: list[dict[str, str]]) -> str:
        ran.append(cards)
        return "paid"

    script = [call("pay", cards=[{"number": "4111", "name": "A"}]), "x"]
    async with acting(agent(pay), script) as (run, _, _s):
        asked = (await run.until("approval.required")).payload
        assert asked.args == {"cards": [{"number": "[hidden]", "name": "A"}]}
        with pytest.raises(Refused) as refused:
            await run.approve(edit={"cards": [{"number": "[hidden]", "name": "B"}]})
        assert [error.path for error in refused.value.receipt.errors] == ["/cards/0/number"]
        await run.approve()
        await run.result()
        assert ran == [[{"number": "4111", "name": "A"}]]
