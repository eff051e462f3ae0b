"""Webhooks across the death of their server, and with more runs behind than are kept in memory: at least once, in order."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx2
import pytest

from midstream_protocol.commands import Webhook
from tests.outbound.receiver import Answer, Got, receiver
from tests.outbound.rig import KEY, SECRET, approval, delta, end

pytestmark = pytest.mark.asyncio


def url(place: Any) -> str:
    return f"http://127.0.0.1:{place.port}/hooks"


async def died(server: Any) -> None:
    """As after a kill: nothing is written any more, and the next server begins."""
    inner = server.webhooks
    inner._teller._closing = True
    for task in [*inner._readers, *inner._teller._tries]:
        task.cancel()
    await asyncio.gather(*inner._readers, *inner._teller._tries, return_exceptions=True)


async def test_what_was_not_told_before_the_end_is_told_by_the_next_server(rig: Any) -> None:
    async with receiver(lambda _: Answer(hang_up=True)) as place:
        first = await rig(urls=(url(place),))
        run = await first.run()
        await first.happen(run, approval(1), delta(), approval(2))
        await first.waits()
        await died(first)
        await first.happen(run, end(), shown=False)
        tried = place.ids[0]
        place.answer = lambda _: Answer()
        place.got.clear()
        second = await rig(urls=(url(place),))
        got = await place.until(3)
        await second.idle()
        assert [each.told["seq"] for each in got] == [2, 4, 5]
        assert place.ids[0] == tried
        assert await second.records() == []


async def test_what_was_told_and_not_written_down_is_told_again_with_the_same_id(rig: Any) -> None:
    hold = asyncio.Event()
    async with receiver(lambda _: Answer(hold=hold)) as place:
        first = await rig(urls=(url(place),))
        run = await first.run()
        await first.happen(run, approval(), end())
        await place.until(1)
        # It has the event, and its answer reaches nobody.
        await died(first)
        hold.set()
        second = await rig(urls=(url(place),))
        await place.until(3)
        await second.idle()
        assert [each.told["seq"] for each in place.got] == [2, 2, 3]
        assert place.ids[0] == place.ids[1]


async def test_a_run_of_its_own_webhook_goes_on_after_a_restart(rig: Any) -> None:
    async with receiver() as place:
        first = await rig()
        run = await first.run(webhook=Webhook(url=url(place)))
        await first.happen(run, approval())
        await place.until(1)
        await first.idle()
        await died(first)
        second = await rig()
        second.fences = first.fences
        await second.idle()
        await second.happen(run, end())
        await place.until(2)
        await second.idle()
        assert [each.told["type"] for each in place.got] == ["approval.required", "run.completed"]


async def test_what_a_lost_writer_never_showed_is_told_when_its_run_is_taken_up(rig: Any) -> None:
    async with receiver() as place:
        server = await rig(urls=(url(place),))
        run = await server.run()
        await server.idle()
        await server.happen(run, approval(), shown=False)
        server.taps.published(run, "run_1", ())
        await place.until(1)
        await server.happen(run, end())
        await place.until(2)
        await server.idle()
        assert [each.told["seq"] for each in place.got] == [2, 3]


class Gate:
    """Holds the look through all records."""

    def __init__(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        original = server.store.records.list

        async def listed(*args: Any, **kwargs: Any) -> Any:
            await self.open.wait()
            return await original(*args, **kwargs)

        monkeypatch.setattr(server.store.records, "list", listed)


async def test_what_happens_before_the_server_has_caught_up_waits_for_what_came_before(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(lambda _: Answer(hang_up=True)) as place:
        first = await rig(urls=(url(place),))
        run = await first.run()
        await first.happen(run, approval())
        await first.waits()
        await died(first)
        place.answer = lambda _: Answer()
        place.got.clear()
        gate = Gate(first, monkeypatch)
        second = await rig(urls=(url(place),))
        second.fences = first.fences
        await second.happen(run, end())
        await place.until(2)
        gate.open.set()
        await second.idle()
        assert [each.told["seq"] for each in place.got] == [2, 3]


async def test_a_run_that_was_compacted_meanwhile_tells_what_is_left(rig: Any) -> None:
    async with receiver() as place:
        first = await rig(urls=(url(place),), opened=False)
        run = await first.run()
        await first.happen(run, approval(), delta(), end())
        assert await first.store.log.compact(run, first_seq=4, snapshot=b"{}")
        second = await rig(urls=(url(place),))
        await place.until(1)
        await second.idle()
        assert [each.told["seq"] for each in place.got] == [4]
        assert await second.records() == []


async def test_a_long_log_is_read_in_pages(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midstream.outbound.webhooks._PAGE_EVENTS", 2)
    async with receiver() as place:
        first = await rig(urls=(url(place),), opened=False)
        run = await first.run()
        await first.happen(run, approval(1), delta(), delta(), approval(2), delta(), delta(), delta(), end())
        second = await rig(urls=(url(place),))
        await place.until(3)
        await second.idle()
        assert [each.told["seq"] for each in place.got] == [2, 5, 9]


async def test_an_orderly_stop_lets_what_is_under_way_arrive(rig: Any) -> None:
    hold = asyncio.Event()
    async with receiver(lambda _: Answer(hold=hold)) as place:
        server = await rig(urls=(url(place),))
        await server.happen(await server.run(), end())
        await place.until(1)
        closing = asyncio.gather(server.webhooks.aclose())
        await asyncio.sleep(0)
        hold.set()
        await closing
        assert await server.records() == []


async def test_without_a_secret_what_waits_is_kept_and_said(rig: Any, logged: list[Any]) -> None:
    async with receiver(lambda _: Answer(500)) as place:
        first = await rig(urls=(url(place),))
        await first.happen(await first.run(), end())
        await first.waits()
        await died(first)
        without = await rig(secret=None)
        assert len(await without.records()) == 1
        assert any("MIDSTREAM_WEBHOOK_SECRET" in each["event"] for each in logged)


async def test_a_place_that_is_no_longer_named_is_told_nothing_more(rig: Any) -> None:
    async with receiver(lambda _: Answer(500)) as old, receiver() as new:
        first = await rig(urls=(url(old),))
        await first.happen(await first.run(), approval(), end())
        await first.waits()
        await died(first)
        second = await rig(urls=(url(new),))
        await new.until(2)
        await second.idle()
        assert len(old.got) == 1
        assert await second.records() == []


async def test_a_place_far_behind_is_told_everything_in_order_and_no_other_waits(rig: Any, clock: Any) -> None:
    runs, broken = 30, True
    # The place that is down keeps so few lines that most runs wait in the store.
    async with receiver(lambda _: Answer(503 if broken else 200)) as down, receiver() as up:
        server = await rig(urls=(url(down), url(up)), max_waiting=4)
        for n in range(runs):
            await server.happen(await server.run(f"run_{n}"), approval(), delta(), end())
            await up.until(2 * (n + 1))
        assert len(server.webhooks._behind) <= 2 * 4
        assert len(await server.records()) == runs
        broken = False
        down.got.clear()
        async with asyncio.timeout(60):
            while await server.records():
                await clock.advance(60)
                await asyncio.sleep(0.001)
        seqs: dict[str, list[int]] = defaultdict(list)
        for each in down.got:
            seqs[each.told["run_id"]].append(each.told["seq"])
        assert dict(seqs) == {f"run_{n}": [2, 4] for n in range(runs)}
        assert len(up.got) == 2 * runs


async def test_who_waits_in_the_store_loses_nothing_to_what_happens_meanwhile(
    rig: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True
    async with receiver(lambda _: Answer(503 if broken else 200)) as place:
        server = await rig(urls=(url(place),), max_waiting=1)
        first, second = await server.run("run_1"), await server.run("run_2")
        await server.happen(first, end())
        await server.waits()
        await server.happen(second, approval())
        await server.until(lambda: not server.webhooks._news and not server.webhooks._admitting.locked())
        broken = False
        gate = Gate(server, monkeypatch)
        await clock.advance(1)
        await place.until(2)
        await server.until(lambda: not server.webhooks._behind)
        # The place has room again, and nobody has looked yet for whom it left over.
        await server.happen(second, end())
        await place.until(4)
        gate.open.set()
        await server.idle()
        assert [each.told["seq"] for each in place.got if each.told["run_id"] == "run_2"] == [2, 3]
        assert await server.records() == []


# -- the death of a real process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        shutil.copy(Path(__file__).with_name("webhook_app.py"), folder)

    async def up(self, place: str) -> asyncio.subprocess.Process:
        variables = {
            **os.environ,
            "MIDSTREAM_STORE": f"sqlite:///{self.folder / 'runs.db'}",
            "MIDSTREAM_PORT": str(self.port),
            "MIDSTREAM_WEBHOOK_URL": place,
            "MIDSTREAM_WEBHOOK_SECRET": SECRET,
            "MIDSTREAM_WEBHOOK_ALLOW_PRIVATE": "true",
            "MIDSTREAM_MODEL": "scripted",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with (self.folder / "server.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "midstream.cli", "serve", "webhook_app:app",
                cwd=self.folder, env=variables, stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(30), httpx2.AsyncClient() as client:
            while True:
                assert process.returncode is None, (self.folder / "server.log").read_text()
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200:
                        return process
                except httpx2.HTTPError:
                    await asyncio.sleep(0.05)

    async def run(self, text: str) -> str:
        async with httpx2.AsyncClient() as client:
            answer = await client.post(f"http://127.0.0.1:{self.port}/v1/runs", json={"input": text})
            assert answer.status_code == 201, answer.text
            return str(answer.json()["run_id"])


async def of_all(place: Any, runs: int) -> list[Got]:
    """Until something came of so many runs; of one it may come again."""
    while len({each.told["run_id"] for each in place.got}) < runs:
        await place.until(len(place.got) + 1)
    return list(place.got)


@pytest.mark.slow
async def test_a_server_that_is_killed_between_event_and_delivery_loses_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path)
    broken = True

    def answer(_: Got) -> Answer:
        return Answer(503) if broken else Answer()

    async with receiver(answer) as place:
        process = await server.up(url(place))
        runs = [await server.run(f"hello {n}") for n in range(5)]
        await of_all(place, 5)
        before = {each.told["run_id"]: each.id for each in place.got}
        process.send_signal(signal.SIGKILL)
        await process.wait()
        broken = False
        place.got.clear()
        process = await server.up(url(place))
        try:
            got = await of_all(place, 5)
        finally:
            process.terminate()
            await process.wait()
        assert {each.told["run_id"]: each.id for each in got} == {run: before[run] for run in runs}
        assert all(each.signed_with(KEY) for each in got)
        assert {each.told["payload"]["result"] for each in got} == {f"hello {n}" for n in range(5)}
