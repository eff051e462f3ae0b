"""What becomes of one tool call."""

import asyncio
import gc
import threading
import weakref
from types import SimpleNamespace

import pytest

from midstream import AgentLimits, RunFailure, ToolContext, ToolError, tool
from midstream.agents.conversation import Call
from midstream.agents.tools import runtime
from midstream.tasks import spawn, stop
from midstream.testing import Refused, call, calls
from midstream.threads import in_thread, left_running
from midstream_protocol.limits import MAX_PREVIEW_CHARS
from tests.agents.kit import acting, agent, check_log, eventually


async def played(the_tool, script, **fields):
    """The run's events after it completed, and what the model was told."""
    async with acting(agent(the_tool), script, **fields) as (run, model, _):
        await run.result()
        check_log(run)
        return run, model.told()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"n": "5"}, '/n: this value is not of type "integer"'),
        ({}, "/n: is required"),
        ({"n": 1, "m": 2}, "/m: is not an argument"),
    ],
)
@pytest.mark.asyncio
async def test_wrong_arguments_go_back_to_the_model_and_nothing_runs(args, told):
    ran = []

    @tool
    async def count(n: int) -> int:
        ran.append(n)
        return n

    run, said = await played(count, [call("count", **args), "Sorry."])
    assert ran == []
    assert told in said[0]
    assert said[0].startswith("invalid_args: ")
    [failed] = run.of_type("tool.failed")
    assert (failed.code, failed.outcome) == ("invalid_args", "not_started")
    assert "5" not in failed.text, "a value may be what must not be shown"


@pytest.mark.asyncio
async def test_a_tool_that_does_not_exist():
    @tool
    async def here() -> str:
        return "x"

    run, said = await played(here, [call("gone", a=1), "Sorry."])
    assert said == ["unknown_tool: There is no tool called 'gone'."]
    assert [p.code for p in run.of_type("tool.failed")] == ["unknown_tool"]


@pytest.mark.asyncio
async def test_an_exception_is_told_by_its_class_alone():
    @tool
    async def bad() -> str:
        raise RuntimeError("password=hunter2")

    run, said = await played(bad, [call("bad"), "Sorry."])
    [failed] = run.of_type("tool.failed")
    assert (failed.code, failed.outcome) == ("tool_error", "failed")
    assert failed.execution_id
    assert "RuntimeError" in said[0]
    assert not [e for e in run.events if "hunter2" in str(e.payload)]


@pytest.mark.asyncio
async def test_a_tool_error_is_told_in_its_own_words():
    @tool
    async def bad() -> str:
        raise ToolError("No such order.", retryable=True)

    run, said = await played(bad, [call("bad"), "Sorry."])
    assert said == ["tool_error: No such order."]
    [failed] = run.of_type("tool.failed")
    assert (failed.text, failed.retryable) == ("No such order.", True)


@pytest.mark.asyncio
async def test_a_cancellation_inside_a_tool_is_a_failure_like_another():
    @tool
    async def bad() -> str:
        raise asyncio.CancelledError

    run, _ = await played(bad, [call("bad"), "Sorry."])
    assert [p.code for p in run.of_type("tool.failed")] == ["tool_error"]


@pytest.mark.parametrize(("idempotent", "outcome"), [(False, "unknown"), (True, "failed")])
@pytest.mark.asyncio
async def test_a_tool_has_a_timeout(idempotent, outcome):
    ended = asyncio.Event()

    @tool(timeout=5, idempotent=idempotent)
    async def slow() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    async with acting(agent(slow), [call("slow"), "Sorry."]) as (run, model, _):
        await run.until("tool.started")
        await run.advance(4.9)
        assert not ended.is_set()
        await run.advance(0.2)
        await run.result()
        assert ended.is_set()
        [failed] = run.of_type("tool.failed")
        assert (failed.code, failed.outcome, failed.retryable) == ("timeout", outcome, True)
        assert model.told() == ["timeout: The tool took more than 5 s."]
        check_log(run)


@pytest.mark.asyncio
async def test_a_tool_that_does_not_heed_its_timeout_is_left_behind():
    free = asyncio.Event()

    @tool(timeout=5, idempotent=True)
    async def deaf() -> str:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    async with acting(agent(deaf), [call("deaf"), "Sorry."]) as (run, _, _stage):
        await run.until("tool.started")
        await run.advance(5)
        await run.advance(3)
        await run.result()
        free.set()
        assert [p.outcome for p in run.of_type("tool.failed")] == ["unknown"]


@pytest.mark.asyncio
async def test_a_tool_that_finishes_although_it_was_told_to_stop_has_finished():
    @tool(timeout=5)
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"
        return "never"

    async with acting(agent(stubborn), [call("stubborn"), "Good."]) as (run, model, _):
        await run.until("tool.started")
        await run.advance(5)
        await run.result()
        assert model.told() == ["done all the same"]
        assert len(run.of_type("tool.completed")) == 1


@pytest.mark.asyncio
async def test_a_plain_function_runs_in_a_thread_and_cannot_be_stopped():
    release = threading.Event()
    main = threading.get_ident()
    seen = []

    @tool(timeout=5, idempotent=True)
    def block() -> str:
        seen.append(threading.get_ident())
        release.wait(10)
        return "x"

    async with acting(agent(block), [call("block"), "Sorry."]) as (run, _, _stage):
        await run.until("tool.started")
        await eventually(lambda: seen)
        before = left_running()
        await run.advance(5)
        await run.result()
        assert [p.outcome for p in run.of_type("tool.failed")] == ["unknown"]
        assert seen != [main]
        assert left_running() == before + 1
        release.set()
        await eventually(lambda: left_running() <= before)
        assert left_running() == before


@pytest.mark.asyncio
async def test_progress_is_shown_until_the_result_is_there():
    late = []

    @tool
    async def work(ctx: ToolContext) -> str:
        await ctx.progress("half", fraction=0.5)
        await ctx.progress(fraction=7)
        late.append(ctx)
        return "ok"

    async with acting(agent(work), [call("work"), "Done."]) as (run, _, _stage):
        await run.until("tool.completed")
        await late[0].progress("too late")
        await run.result()
        shown = [(p.text, p.fraction) for p in run.of_type("tool.progress")]
        assert shown == [("half", 0.5), (None, 1.0)] or shown == [("half", 1.0)] or shown[-1][1] == 1.0
        assert "too late" not in str(run.events)
        check_log(run)


@pytest.mark.asyncio
async def test_the_context_tells_who_and_which():
    seen = []

    @tool
    async def who(ctx: ToolContext) -> str:
        seen.append(ctx)
        return ctx.principal.name

    run, said = await played(who, [calls(("who", {}), ("who", {})), "Done."])
    assert said == ["Tester", "Tester"]
    assert {ctx.run_id for ctx in seen} == {run.run_id}
    assert len({ctx.idempotency_key for ctx in seen}) == 2
    assert [ctx.attempt for ctx in seen] == [1, 1]


@pytest.mark.asyncio
async def test_results_are_cut_for_people_and_for_the_model():
    @tool
    async def long() -> str:
        return "a" * 50_000 + "END"

    run, said = await played(long, [call("long"), "Done."])
    [done] = run.of_type("tool.completed")
    assert len(done.preview) <= MAX_PREVIEW_CHARS
    assert done.truncated
    assert len(said[0]) <= 30_000
    assert said[0].endswith("END")
    assert "characters left out" in said[0]


@pytest.mark.asyncio
async def test_what_json_cannot_carry_is_made_to_fit():
    @tool
    async def odd() -> object:
        return {"n": float("nan"), 1: {2, 3}, "big": 2**70, "x": object}

    run, said = await played(odd, [call("odd"), "Done."])
    assert '"n":"NaN"' in said[0]
    assert len(run.of_type("tool.completed")) == 1


@pytest.mark.asyncio
async def test_hidden_names_are_shown_to_nobody():
    @tool(redact=["token"], label="Use {token}")
    async def use(token: str) -> dict[str, str]:
        return {"token": token, "fine": "yes"}

    run, said = await played(use, [call("use", token="s3cret"), "Done."])
    assert not [e for e in run.events if "s3cret" in str(e.payload)]
    assert run.of_type("tool.started")[0].args_preview == {"token": "[hidden]"}
    assert "s3cret" in said[0], "the model made it, and goes on with it"


@pytest.mark.asyncio
async def test_at_most_some_calls_run_at_once():
    running, most = 0, 0
    gate = asyncio.Event()

    @tool
    async def count() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == runtime.PARALLEL_CALLS:
            gate.set()
        await gate.wait()
        await asyncio.sleep(0)
        running -= 1
        return "x"

    await played(count, [calls(*(("count", {}) for _ in range(runtime.PARALLEL_CALLS + 5))), "Done."])
    assert most == runtime.PARALLEL_CALLS


class Shop:
    def __init__(self) -> None:
        self.open = True


@pytest.mark.asyncio
async def test_resources_come_by_their_type():
    closed = []

    async def open_shop():
        shop = Shop()
        yield shop
        shop.open = False
        closed.append(shop)

    @tool
    async def state(shop: Shop) -> bool:
        return shop.open

    _, said = await played(state, [call("state"), "Done."], resources=[open_shop])
    assert said == ["true"]
    assert len(closed) == 1


@pytest.mark.asyncio
async def test_arguments_without_end_are_refused():
    ran = []

    @tool
    async def write(text: str) -> str:
        ran.append(text)
        return "ok"

    # A window that takes what the model itself has said.
    app = agent(write, limits=AgentLimits(context_tokens=1_000_000))
    async with acting(app, [call("write", text="x" * runtime.MAX_ARGS_BYTES), "Sorry."]) as (run, model, _):
        await run.result()
        said = model.told()
    assert ran == []
    assert said[0].startswith("invalid_args: The arguments have more than")
    assert sum(len(str(event.payload)) for event in run.events) < 10_000


@pytest.mark.asyncio
async def test_many_arguments_are_shown_in_part():
    @tool
    async def add(numbers: list[int], names: dict[str, int]) -> int:
        return sum(numbers) + len(names)

    numbers, names = list(range(10_000)), {f"n{n}": n for n in range(10_000)}
    run, said = await played(add, [call("add", numbers=numbers, names=names), "Ok."])
    assert said == [str(sum(numbers) + 10_000)]
    shown = run.of_type("tool.started")[0].args_preview
    assert shown["numbers"] == [*range(50), "… 9,950 more"]
    assert len(shown["names"]) == 51
    assert shown["names"]["…"] == "9,950 more"


@pytest.mark.asyncio
async def test_a_whole_result_is_not_kept_once_it_was_told():
    alive = []

    @tool
    async def report() -> list[str]:
        return ["x" * 400_000]

    @tool
    async def look() -> str:
        gc.collect()
        lists = [found for found in gc.get_objects() if type(found) is list and len(found) == 1]
        alive.extend(found for found in lists if isinstance(found[0], str) and len(found[0]) == 400_000)
        return ""

    async with acting(agent(report, look), [call("report"), call("look"), "Done."]) as (run, _, _stage):
        await run.result()
    assert len(alive) == 0


@pytest.mark.asyncio
async def test_threads_that_were_left_and_have_ended_are_forgotten():
    release = threading.Event()

    async def leave(name):
        waiting = spawn(in_thread(lambda: release.wait(10), name=name), name=name)
        await asyncio.sleep(0)
        await stop(waiting)

    await leave("left first")
    [first] = [thread for thread in threading.enumerate() if thread.name == "left first"]
    gone = weakref.ref(first)
    release.set()
    first.join()
    del first
    await leave("left second")
    gc.collect()
    assert gone() is None


# -- objects


@pytest.mark.asyncio
async def test_a_tool_shows_objects():
    late = []

    @tool
    async def chart(ctx: ToolContext) -> str:
        first = await ctx.object("table", {"rows": [1, float("nan")]})
        again = await ctx.object("table", {"rows": [2]}, object_id=first)
        own = await ctx.object("map", "here", object_id="mine")
        late.append(ctx)
        assert (again, own) == (first, "mine")
        return first

    async with acting(agent(chart), [call("chart"), "Done."]) as (run, model, _):
        await run.result()
        await late[0].object("late", 1)
        shown = run.of_type("object.created")
        assert [(o.object_id, o.kind, o.data) for o in shown] == [
            (model.told()[0], "table", {"rows": [1, "NaN"]}),
            (model.told()[0], "table", {"rows": [2]}),
            ("mine", "map", "here"),
        ]
        [started] = run.of_type("tool.started")
        assert {o.tool_call_id for o in shown} == {started.tool_call_id}
        check_log(run)


@pytest.mark.asyncio
async def test_a_second_attempt_shows_its_objects_in_the_place_of_the_first():
    gate = asyncio.Event()

    @tool(idempotent=True)
    async def chart(ctx: ToolContext) -> str:
        await ctx.object("table", {"attempt": ctx.attempt})
        await gate.wait()
        return "ok"

    async with acting(agent(chart), [call("chart"), "Done."]) as (run, _, _stage):
        await run.until("object.created")
        await run.crash()
        gate.set()
        await run.result()
        assert len({o.object_id for o in run.of_type("object.created")}) == 1
        assert [o.data for o in (await run.view()).objects] == [{"attempt": 2}]


@pytest.mark.parametrize(
    ("kind", "data", "object_id", "told"),
    [
        ("", {}, None, "kind is a text"),
        ("k" * 65, {}, None, "kind is a text"),
        ("k", {}, "no id!", "object_id is"),
        ("k", "x" * 131_072, None, "may have 131,072 bytes; this one (k) has 131,074"),
    ],
)
@pytest.mark.asyncio
async def test_what_cannot_be_an_object_is_said(kind, data, object_id, told):
    @tool
    async def chart(ctx: ToolContext) -> str:
        await ctx.object(kind, data, object_id=object_id)
        return "ok"

    _, said = await played(chart, [call("chart"), "Sorry."])
    assert said[0].startswith("tool_error: An object")
    assert told in said[0]


# -- what is hidden

WORD = "canary-tool-7"


@pytest.mark.asyncio
async def test_what_looks_like_a_secret_is_hidden_from_people_and_not_from_the_model():
    @tool(label="Look for {q}")
    async def look(q: str, api_key: str, ctx: ToolContext) -> dict[str, str]:
        await ctx.progress(f"with {WORD}")
        await ctx.object("table", {"a": WORD, "token": "x"})
        return {"found": f"it is {WORD}", "password": "hunter2", "fine": "yes"}

    script = [call("look", q=f"a {WORD} b", api_key="abc"), f"It was {WORD}."]
    run, said = await played(look, script)
    assert not [e for e in run.events if WORD in str(e.payload) or "hunter2" in str(e.payload)]
    [started] = run.of_type("tool.started")
    assert (started.label, started.args_preview) == (
        "Look for a [hidden] b",
        {"q": "a [hidden] b", "api_key": "[hidden]"},
    )
    assert run.of_type("tool.completed")[0].preview == '{"found":"it is [hidden]","password":"[hidden]","fine":"yes"}'
    assert (await run.result()) == "It was [hidden]."
    assert WORD in said[0]
    assert "hunter2" in said[0]


@pytest.mark.asyncio
async def test_who_approves_sees_the_values_but_not_what_is_called_a_secret():
    ran = []

    @tool(approval="always")
    async def send(text: str, api_key: str, extra: dict[str, str]) -> str:
        ran.append((text, api_key, extra))
        return "ok"

    args = {"text": f"say {WORD}", "api_key": "abc", "extra": {"cookie": "c"}}
    async with acting(agent(send), [call("send", **args), "Done."]) as (run, _, _stage):
        [asked] = [(await run.until("approval.required")).payload]
        assert asked.args == {"text": f"say {WORD}", "api_key": "[hidden]", "extra": {"cookie": "[hidden]"}}
        for back in ({"api_key": "[hidden]"}, {"extra": {"cookie": "[hidden]"}}, {"text": "say [hidden]"}):
            with pytest.raises(Refused) as refused:
                await run.approve(edit=back)
            assert [error.code for error in refused.value.receipt.errors] == ["hidden"]
        await run.approve(edit={"text": "say it"})
        await run.result()
    assert ran == [("say it", "abc", {"cookie": "c"})]


@pytest.mark.asyncio
async def test_a_long_result_is_cut_where_no_secret_is_cut():
    words = " ".join(f"word{n}" for n in range(20_000))

    @tool
    async def long() -> dict[str, str]:
        return {"a": f"begin {WORD}\n{WORD} {words}", "b": f"{words} {WORD} end"}

    run, _ = await played(long, [call("long"), "Done."])
    [done] = run.of_type("tool.completed")
    assert len(done.preview) <= MAX_PREVIEW_CHARS
    assert done.truncated
    assert done.preview.startswith('{"a":"begin [hidden] [hidden] word0')
    assert done.preview.endswith('[hidden] end"}')
    assert "characters left out" in done.preview


@pytest.mark.asyncio
async def test_a_hold_is_awaited_before_anything_of_a_call_begins():
    @tool(approval="always")
    async def act() -> str:
        raise NotImplementedError

    async def hold():
        raise RunFailure("guardrail", "No.")

    # A port that can do nothing: nothing is written and nobody is asked.
    port, toolbox = SimpleNamespace(journal=()), SimpleNamespace(find={"act": act}.get)
    it = runtime.Runtime(port=port, toolbox=toolbox, resources={}, hold=hold)
    with pytest.raises(RunFailure):
        await it.run(Call(id="c1", provider_id="p", tool="act", args={}), message_id=None, step_id=None)
