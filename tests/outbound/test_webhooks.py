"""Webhooks to a real HTTP server: what is sent, in which order, how often, and what failures do to it."""

import asyncio
import time
from typing import Any

import pytest

from midstream.log import LogUnavailable
from midstream.outbound.telling import SERVERS_OWN
from midstream.runs import Limits, Principal
from midstream.runs.dead_letters import DeadLetters, Letter
from midstream.runs.keys import namespace
from midstream.telemetry import exposed
from midstream_protocol.commands import Webhook
from midstream_protocol.errors import InvalidArgs
from tests.outbound.receiver import Answer, Got, receiver
from tests.outbound.rig import KEY, ME, approval, delta, end

pytestmark = pytest.mark.asyncio


def url(place: Any, path: str = "/hooks?x=1") -> str:
    return f"http://127.0.0.1:{place.port}{path}"


async def test_what_happens_is_told_signed_and_in_order(rig: Any) -> None:
    async with receiver() as place:
        server = await rig(urls=(url(place),))
        run = await server.run()
        await server.happen(run, delta(), approval(1), delta(), approval(2))
        await server.happen(run, delta(), end("all done"))
        got = await place.until(3)
        await server.idle()
        assert [each.told["type"] for each in got] == ["approval.required", "approval.required", "run.completed"]
        assert [each.told["seq"] for each in got] == [3, 5, 7]
        assert all(each.signed_with(KEY) for each in got)
        assert not got[0].signed_with(b"another key")
        assert got[2].told["payload"]["result"] == "all done"
        assert got[2].told["thread_id"] == "thread_run_1"
        assert got[0].path == "/hooks?x=1"
        assert got[0].headers["host"] == f"127.0.0.1:{place.port}"
        assert got[0].headers["content-type"] == "application/json"
        assert len(set(place.ids)) == 3
        assert place.ids[2].startswith("run_1.7.")
        # Nothing is left of it.
        assert await server.records() == []


async def test_a_run_without_a_webhook_leaves_no_trace_and_is_not_looked_at(rig: Any) -> None:
    server = await rig()
    run = await server.run()
    assert await server.records() == []
    assert not server.taps
    await server.happen(run, end())
    await server.idle()


async def test_a_run_may_bring_its_own_place_and_choose_its_events(rig: Any) -> None:
    async with receiver() as place:
        server = await rig()
        other = await server.run("other")
        run = await server.run(webhook=Webhook(url=url(place), events=["run.completed"]))
        await server.happen(other, approval(), end())
        await server.happen(run, approval())
        await server.happen(run, end())
        got = await place.until(1)
        await server.idle()
        assert [(each.told["run_id"], each.told["type"]) for each in got] == [("run_1", "run.completed")]
        assert await server.records() == []


async def test_the_operator_chooses_events_and_an_end_that_is_not_told_still_ends_it(rig: Any) -> None:
    async with receiver() as place:
        server = await rig(urls=(url(place),), events=("approval.required",))
        run = await server.run()
        await server.happen(run, approval())
        await place.until(1)
        await server.happen(run, end())
        await server.idle()
        assert len(place.got) == 1
        assert await server.records() == []


@pytest.mark.parametrize(
    ("options", "target", "says"),
    [
        ({"secret": None}, "https://example.org/", "MIDSTREAM_WEBHOOK_SECRET"),
        ({"allow_private": False}, "http://127.0.0.1:1/x", "MIDSTREAM_WEBHOOK_ALLOW_PRIVATE"),
        ({}, "ftp://example.org/", "https://"),
        ({}, "https://me:word@example.org/", "leave them out"),
    ],
)
async def test_a_webhook_that_cannot_be_is_refused_before_there_is_a_run(
    rig: Any, options: dict[str, Any], target: str, says: str
) -> None:
    server = await rig(**options)
    with pytest.raises(InvalidArgs, match=says) as refused:
        await server.run(webhook=Webhook(url=target))
    assert refused.value.errors[0].path == "/webhook/url"
    assert await server.records() == []


async def test_two_people_with_the_same_run_id_have_different_messages(rig: Any) -> None:
    async with receiver() as place:
        server = await rig(urls=(url(place),))
        for name in ("ann", "bea"):
            run = await server.run("same", owner=Principal(id=name, name=name))
            await server.happen(run, end())
        got = await place.until(2)
        assert len(set(place.ids)) == 2
        assert {each.told["user"] for each in got} == {"ann", "bea"}


# -- failures


async def test_a_failure_is_tried_again_with_the_same_id_until_it_is_taken(rig: Any, clock: Any) -> None:
    async with receiver(lambda _: Answer(500 if len(place.got) < 4 else 200)) as place:
        server = await rig(urls=(url(place),))
        run = await server.run()
        await server.happen(run, approval())
        await server.happen(run, end())
        # Half of 1, 2 and 4 seconds, as the fraction of these tests is a half.
        for tries, delay in enumerate((0.5, 1.0, 2.0), 1):
            await server.waits()
            assert len(place.got) == tries
            await clock.advance(delay - 0.1)
            assert not server.webhooks._teller._tries
            await clock.advance(0.11)
        await place.until(5)
        await server.idle()
        # The second event waited for the first.
        assert place.ids == [place.ids[0]] * 4 + [place.ids[4]]
        assert all(each.signed_with(KEY) for each in place.got)
        assert place.got[0].headers["webhook-timestamp"] < place.got[3].headers["webhook-timestamp"]


async def test_retry_after_is_honoured(rig: Any, clock: Any) -> None:
    async with receiver(lambda _: Answer(429, {"Retry-After": "120"}) if len(place.got) == 1 else Answer()) as place:
        server = await rig(urls=(url(place),))
        run = await server.run()
        await server.happen(run, end())
        await server.waits()
        await clock.advance(119)
        assert len(place.got) == 1
        await clock.advance(5)
        await place.until(2)
        await server.idle()


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404])
async def test_a_redirect_is_not_followed_and_a_refusal_is_tried_again_later(rig: Any, clock: Any, status: int) -> None:
    async with receiver() as elsewhere:

        def answer(_: Got) -> Answer:
            return Answer(status, {"Location": url(elsewhere)}) if len(place.got) == 1 else Answer()

        async with receiver(answer) as place:
            server = await rig(urls=(url(place),))
            run = await server.run()
            await server.happen(run, end())
            await server.waits()
            await clock.advance(29)
            assert len(place.got) == 1
            await clock.advance(2)
            await place.until(2)
            await server.idle()
            assert elsewhere.got == []


async def test_a_place_that_is_gone_is_told_nothing_more_of_that_run(rig: Any, logged: list[Any]) -> None:
    async with receiver(lambda got: Answer(410 if got.told["run_id"] == "run_1" else 200)) as place:
        server = await rig(urls=(url(place),))
        run, other = await server.run("run_1"), await server.run("run_2")
        await server.happen(run, approval(1), approval(2))
        await place.until(1)
        await server.idle()
        await server.happen(run, end())
        await server.happen(other, end())
        await place.until(2)
        await server.idle()
        assert [each.told["run_id"] for each in place.got] == ["run_1", "run_2"]
        assert await server.records() == []
        told = [each for each in logged if "no more" in each["event"]]
        # The rest of its URL may be secret.
        assert [each["place"] for each in told] == [f"http://127.0.0.1:{place.port}"]
        # Whose run it is learns that it was not told, and nothing of the operator's place.
        (letter,) = await letters(server)
        assert (letter.kind, letter.run_id, letter.thread_id) == ("webhook", "run_1", "thread_run_1")
        assert (letter.what, letter.code, letter.text) == (SERVERS_OWN, "gone", "It answered with status 410.")
        assert (letter.event, letter.seq, letter.attempts) == ("approval.required", 2, 1)


async def test_an_event_is_given_up_after_its_age_and_the_next_one_is_told(
    rig: Any, clock: Any, logged: list[Any]
) -> None:
    async with receiver(lambda got: Answer(500 if got.told["type"] == "approval.required" else 200)) as place:
        server = await rig(urls=(url(place),), max_age_s=100)
        run = await server.run()
        await server.happen(run, approval())
        await server.waits()
        await clock.advance(99)
        await server.waits()
        await server.happen(run, end())
        while await server.records():
            assert clock.monotonic() < 500
            await clock.advance(60)
            await server.until(lambda: not server.webhooks._teller._tries)
        assert place.got[-1].told["type"] == "run.completed"
        assert [each["type"] for each in logged if "given up" in each["event"]] == ["approval.required"]
        (letter,) = await letters(server)
        assert (letter.code, letter.text, letter.event) == (
            "given_up",
            "It answered with status 500.",
            "approval.required",
        )
        assert letter.attempts > 1


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7"])
async def test_a_letter_says_nothing_of_the_network_behind_a_place(rig: Any, clock: Any, address: str) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return [address]

    server = await rig(max_age_s=0, allow_private=False, resolve=resolve)
    run = await server.run(webhook=Webhook(url="http://inside.example/secret?key=1"))
    await server.happen(run, end())
    await server.idle()
    (letter,) = await letters(server)
    assert (letter.what, letter.text) == ("http://inside.example", "Its address may not be sent to.")
    assert letter.code == "given_up"


async def letters(server: Any) -> list[Letter]:
    dead = DeadLetters(records=server.store.records, limits=Limits(), clock=server.clock)
    found, _ = await dead.page(namespace(ME.id), kind=None, after=None, limit=10)
    return found


async def test_a_place_that_is_not_there_or_hangs_up_is_tried_again(rig: Any, clock: Any) -> None:
    async with receiver() as gone:
        port = gone.port
    server = await rig(urls=(f"http://127.0.0.1:{port}/",))
    run = await server.run()
    await server.happen(run, end())
    await server.waits()
    async with receiver(lambda _: Answer(hang_up=len(place.got) == 1), port=port) as place:
        await clock.advance(1)
        await place.until(1)
        await server.waits()
        await clock.advance(2)
        await place.until(2)
        await server.idle()


async def test_a_slow_place_holds_up_neither_another_place_nor_its_own_other_runs(rig: Any) -> None:
    hold = asyncio.Event()
    async with (
        receiver(lambda got: Answer(hold=hold if got.told["run_id"] == "run_0" else None)) as slow,
        receiver() as quick,
    ):
        server = await rig(urls=(url(slow), url(quick)), in_flight=8)
        for n in range(20):
            await server.happen(await server.run(f"run_{n}"), approval(), end())
        await quick.until(40)
        await slow.until(1 + 2 * 19)
        assert slow.most_at_once <= 2
        hold.set()
        await slow.until(40)
        await server.idle()


async def test_a_place_that_answers_nothing_in_time_has_failed(rig: Any, logged: list[Any]) -> None:
    hold = asyncio.Event()
    async with receiver(lambda _: Answer(hold=hold)) as place:
        server = await rig(urls=(url(place),), timeout_s=0.05)
        await server.happen(await server.run(), end())
        await server.waits()
        assert [each["why"] for each in logged] == ["no answer within 0.05 s"]
        hold.set()


async def test_a_store_that_fails_for_a_while_loses_nothing(
    rig: Any, clock: Any, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = False

    def broken(method: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if failing:
                raise LogUnavailable("full")
            return await method(*args, **kwargs)

        return call

    def answer(_: Got) -> Answer:
        nonlocal failing
        # It cannot be written down that this one was taken.
        failing = len(place.got) == 1
        return Answer()

    async with receiver(answer) as place:
        server = await rig(urls=(url(place),))
        run = await server.run()
        await server.idle()
        for name in ("get", "put", "delete"):
            monkeypatch.setattr(server.store.records, name, broken(getattr(server.store.records, name)))
        failing = True
        await server.happen(run, approval(), end())
        await server.until(lambda: any("cannot read" in each["event"] for each in logged))
        failing = False
        await clock.advance(1)
        await server.waits()
        failing = False
        await clock.advance(1)
        await place.until(2)
        await server.idle()
        assert [each.told["type"] for each in place.got] == ["approval.required", "run.completed"]
        assert await server.records() == []


async def test_that_the_last_event_was_told_is_written_down_in_the_end(
    rig: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver() as place:
        server = await rig(urls=(url(place),))
        await server.idle()
        original, failures = server.store.records.delete, 2

        async def delete(*args: Any, **kwargs: Any) -> bool:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise LogUnavailable("full")
            return bool(await original(*args, **kwargs))

        monkeypatch.setattr(server.store.records, "delete", delete)
        await server.happen(await server.run(), end())
        for delay in (0.6, 1.1):
            await server.waits()
            await clock.advance(delay)
        await server.idle()
        assert await server.records() == []
        assert len(place.got) == 1


async def test_a_run_that_was_erased_is_forgotten(rig: Any, clock: Any) -> None:
    async with receiver(lambda _: Answer(500)) as place:
        server = await rig(urls=(url(place),))
        run = await server.run()
        await server.happen(run, end())
        await server.waits()
        await server.store.log.delete(run)
        await server.store.records.delete("webhook", run)
        await clock.advance(1)
        await server.idle()
        assert len(place.got) == 1
        assert await server.records() == []


async def test_a_run_that_was_erased_while_it_is_told_of_leaves_nothing_behind(rig: Any) -> None:
    hold = asyncio.Event()
    async with receiver(lambda _: Answer(hold=hold)) as place:
        server = await rig(urls=(url(place),))
        run = await server.run()
        await server.happen(run, approval(1), approval(2), end())
        await place.until(1)
        await server.store.log.delete(run)
        await server.store.records.delete("webhook", run)
        hold.set()
        await server.idle()
        assert len(place.got) == 1
        assert await server.records() == []


async def test_a_run_that_was_compacted_still_tells_its_end(rig: Any, clock: Any) -> None:
    async with receiver(lambda _: Answer(500 if len(place.got) == 1 else 200)) as place:
        server = await rig(urls=(url(place),))
        run = await server.run()
        await server.happen(run, approval(), delta(), end())
        await server.waits()
        assert await server.store.log.compact(run, first_seq=4, snapshot=b"{}")
        await clock.advance(1)
        await place.until(2)
        await server.idle()
        assert [each.told["seq"] for each in place.got] == [2, 4]


async def test_nobody_is_told_when_a_run_is_published_for_nothing(rig: Any) -> None:
    """What the tap costs the run, beside the events' own cost."""
    server = await rig(urls=("http://127.0.0.1:1/",))
    run = await server.run()
    server.webhooks._teller._closing = True
    events = [server._event("run_1", n, delta("some words of a model")) for n in range(1000)]
    began = time.process_time()
    for _ in range(20):
        server.taps.published(run, "run_1", events)
    spent = time.process_time() - began
    assert spent / 20_000 < 5e-6


async def test_metrics_count_what_became_of_them(rig: Any, clock: Any) -> None:
    def counted() -> dict[str, float]:
        lines = [line for line in exposed().decode().splitlines() if line.startswith("midstream_webhooks_total{")]
        return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}

    before = counted()
    async with receiver(lambda _: Answer(500 if len(place.got) == 1 else 200)) as place:
        server = await rig(urls=(url(place),))
        await server.happen(await server.run(), end())
        await server.waits()
        await clock.advance(1)
        await server.idle()
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {"delivered": 1, "failed": 1, "given_up": 0}
