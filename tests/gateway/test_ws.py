"""The WebSocket over a real server, with a client that knows only the protocol page."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from midstream.gateway.auth import LOCAL
from midstream.log import LogUnavailable
from midstream.runs import Principal, Subscription
from midstream_protocol.commands import Command
from midstream_protocol.frames import Receipt
from midstream_protocol.ids import new_id
from tests.gateway.conftest import House, Open, both_ways_out

pytestmark = pytest.mark.asyncio

way_out = both_ways_out()

TERMINAL = {"run.completed", "run.failed", "run.cancelled"}


async def finished(house: House, script: str = "say 20") -> tuple[str, list[bytes]]:
    """A run that has ended, and its whole log as one client saw it live."""
    async with house.peer() as peer:
        receipt = await peer.ask("run.start", {"input": script})
        await peer.until("run.completed")
        return receipt["run_id"], peer.events(receipt["run_id"])


async def test_ready_is_first_and_says_what_holds(house: House) -> None:
    async with house.peer("/v1/ws?client_id=ide-1", ready=False) as peer:
        ready = await peer.receive()
    assert ready["v"] == 1
    assert ready["type"] == "connection.ready"
    assert ready["payload"]["client_id"] == "ide-1"
    assert ready["payload"]["principal"] == {"id": "local", "name": "local"}
    assert ready["payload"]["limits"]["commands_in_flight"] == 64
    assert ready["payload"]["heartbeat_s"] == 600


async def test_a_start_answers_attaches_replays_and_ends_in_this_order(house: House) -> None:
    async with house.peer() as peer:
        command_id = await peer.send("run.start", {"input": "say 3"})
        await peer.until("run.completed")
    types = peer.types()[1:]
    assert types[:2] == ["receipt", "run.attached"]
    assert types.count("run.caught_up") == 1
    assert types[-1] == "run.completed"
    receipt = peer.frames[1]["payload"]
    assert receipt["status"] == "accepted"
    assert receipt["command_id"] == command_id
    assert peer.frames[2]["payload"]["run_id"] == receipt["run_id"]
    seqs = [frame["seq"] for frame in peer.frames if "seq" in frame]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_attaching_at_every_seq_of_an_ended_run_gives_the_same_bytes(house: House) -> None:
    run_id, log = await finished(house)
    async with house.peer() as peer:
        for since in range(len(log) + 1):
            mark = len(peer.frames)
            await peer.send("run.attach", {"since_seq": since}, run_id=run_id)
            await peer.until("run.caught_up", run_id=run_id, seq=len(log))
            assert peer.events(run_id, since=mark) == log[since:]
            # Detached: nothing follows, and the next attach is a first one.
            await peer.ping()
            assert peer.frames[mark]["payload"]["status"] == "accepted"
            assert peer.types()[mark : mark + 2] == ["receipt", "run.attached"]


async def test_attaching_at_every_seq_of_a_live_run_has_no_gap_and_no_double(house: House) -> None:
    script = "say 30; gate half; say 30; gate end; say 1"
    async with house.peer() as first:
        run_id = (await first.ask("run.start", {"input": script}))["run_id"]
        await house.agents.gates["half"].reached.wait()
        head = (await house.registry.view(LOCAL, run_id)).cursor.seq
        peers = []
        async with house.peer() as second:
            # Many attachments of one connection to one run: each restarts, only the last one goes on.
            for since in range(head + 1):
                mark = len(second.frames)
                await second.send("run.attach", {"since_seq": since}, run_id=run_id)
                await second.until("run.caught_up", run_id=run_id)
                got = [json.loads(raw)["seq"] for raw in second.events(run_id, since=mark)]
                assert got == list(range(since + 1, head + 1))
            peers.append((second, mark, head))
            house.agents.gates["half"].opened.set()
            house.agents.gates["end"].opened.set()
            await second.until("run.completed")
            await first.until("run.completed")
            log = first.events(run_id)
            assert second.events(run_id, since=mark) == log[head:]


async def test_attaching_while_events_flow_gives_the_same_bytes_to_everyone(house: House) -> None:
    async with house.peer() as first:
        run_id = (await first.ask("run.start", {"input": "gate go; say 300"}))["run_id"]

        async def follow(since: int) -> list[bytes]:
            async with house.peer() as peer:
                await peer.send("run.attach", {"since_seq": since}, run_id=run_id)
                await peer.until("run.completed")
                return peer.events(run_id)

        house.agents.gates["go"].opened.set()
        logs = await asyncio.gather(*(follow(0) for _ in range(8)))
        await first.until("run.completed")
    assert all(log == first.events(run_id) for log in logs)


async def test_a_cursor_beyond_the_head_is_a_reset_with_a_snapshot(house: House) -> None:
    run_id, log = await finished(house)
    async with house.peer() as peer:
        await peer.send("run.attach", {"since_seq": len(log) + 5}, run_id=run_id)
        await peer.until("run.caught_up")
    assert peer.types()[1:] == ["receipt", "run.attached", "run.reset", "run.caught_up"]
    reset = peer.frames[3]["payload"]
    assert (reset["reason"], reset["snapshot_seq"]) == ("ahead", len(log))
    assert reset["snapshot"]["status"] == "completed"


async def test_another_epoch_and_a_snapshot_are_resets(house: House) -> None:
    run_id, log = await finished(house)
    async with house.peer() as peer:
        await peer.send("run.attach", {"since_seq": 2, "epoch": "another"}, run_id=run_id)
        assert (await peer.until("run.reset"))["payload"]["reason"] == "epoch"
        await peer.until("run.caught_up")
        await peer.send("run.attach", {"replay": "snapshot"}, run_id=run_id)
        assert (await peer.until("run.reset"))["payload"]["reason"] == "requested"
        await peer.until("run.caught_up", seq=len(log))


async def test_a_repeated_command_has_the_same_receipt_from_any_connection(house: House) -> None:
    async with house.peer() as peer:
        start = await peer.ask("run.start", {"input": "gate a; say 2"}, command_id="start-1")
        run_id = start["run_id"]
        cancel = await peer.ask("run.cancel", {"reason": "no"}, run_id=run_id, command_id="cancel-1")
        refused = await peer.ask(
            "correction.revoke", {"correction_id": "nothing"}, run_id=run_id, command_id="revoke-1"
        )
        assert refused["status"] == "rejected"
        await peer.by_now("run.cancelled")
    async with house.peer() as again:
        assert await again.ask("run.start", {"input": "gate a; say 2"}, command_id="start-1") == start
        assert await again.ask("run.cancel", {"reason": "no"}, run_id=run_id, command_id="cancel-1") == cancel
        conflict = await again.ask("run.cancel", {"reason": "yes"}, run_id=run_id, command_id="cancel-1")
        assert (conflict["status"], conflict["code"]) == ("rejected", "conflict")
        after = await again.ask("run.cancel", {}, run_id=run_id)
        assert (after["status"], after["code"]) == ("rejected", "run_ended")


async def test_a_repeated_start_attaches_whoever_sends_it(house: House) -> None:
    async with house.peer() as peer:
        await peer.send("run.start", {"input": "say 2"}, command_id="start-1")
        await peer.until("run.completed")
    async with house.peer() as again:
        await again.send("run.start", {"input": "say 2"}, command_id="start-1")
        await again.until("run.caught_up")
    run_id = peer.frames[1]["payload"]["run_id"]
    assert again.events(run_id) == peer.events(run_id)


async def test_commands_to_one_run_take_effect_in_the_order_sent_and_a_bad_one_stops_nothing(house: House) -> None:
    async with house.peer() as peer:
        run_id = new_id("run")
        # All in one go: the start, a correction, its revocation, nonsense, a cancel.
        await peer.send("run.start", {"input": "gate never", "run_id": run_id}, command_id="1")
        await peer.send("run.correct", {"text": "left"}, run_id=run_id, command_id="2")
        await peer.send("run.correct", {"text": ""}, run_id=run_id, command_id="3")
        await peer.send("correction.revoke", {"correction_id": "2"}, run_id=run_id, command_id="4")
        await peer.send("run.cancel", {}, run_id=run_id, command_id="5")
        await peer.until("receipt", command_id="5")
        await peer.by_now("run.cancelled")
    receipts = {f["payload"]["command_id"]: f["payload"] for f in peer.frames if f["type"] == "receipt"}
    assert [receipts[c]["status"] for c in "12345"] == ["accepted", "accepted", "rejected", "accepted", "accepted"]
    assert receipts["3"]["code"] == "malformed"
    order = [t for t in peer.types() if t.startswith(("correction.", "run.cancel"))]
    assert order == ["correction.accepted", "correction.revoked", "run.cancelling", "run.cancelled"]


async def test_many_runs_on_one_socket_arrive_whole_and_interleaved(house: House) -> None:
    async with house.peer() as peer:
        ids = [await peer.send("run.start", {"input": "gate all; say 40"}) for _ in range(50)]
        receipts = {}
        while len(receipts) < len(ids):
            payload = (await peer.until("receipt"))["payload"]
            receipts[payload["command_id"]] = payload["run_id"]
        house.agents.gates["all"].opened.set()
        for _ in ids:
            await peer.until("run.completed")
        for run_id in receipts.values():
            seqs = [json.loads(raw)["seq"] for raw in peer.events(run_id)]
            assert seqs == list(range(1, len(seqs) + 1))
        order = [f["run_id"] for f in peer.frames if f["type"] == "message.delta"]
        # Nobody waits for another's end: the last run's first delta comes before the first run's last one.
        first_end = max(i for i, r in enumerate(order) if r == order[0])
        assert all(order.index(run_id) < first_end for run_id in receipts.values())


async def test_msgpack_says_the_same(house: House) -> None:
    run_id, log = await finished(house)
    async with house.peer(msgpack=True) as peer:
        assert peer.socket.subprotocol == "midstream.v1.msgpack"
        await peer.send("run.attach", {}, run_id=run_id)
        await peer.until("run.caught_up")
        assert [f for f in peer.frames if "seq" in f] == [json.loads(raw) for raw in log]
        await peer.socket.send("{}")
        assert (await peer.until("error"))["payload"]["code"] == "malformed"
        await peer.socket.send(b"\xc1")
        assert (await peer.until("error"))["payload"]["code"] == "malformed"
        await peer.ping()


async def test_bad_input_of_every_kind_is_answered_and_the_connection_works(open_house: Open) -> None:
    house = await open_house(max_frame_bytes=4096)
    bad: list[tuple[str | bytes, str, str | None]] = [
        ("", "malformed", None),
        ("{", "malformed", None),
        ("[]", "malformed", None),
        ("null", "malformed", None),
        ("NaN", "malformed", None),
        ('{"v":1}', "malformed", None),
        (b"\x00\x01", "malformed", None),
        ('{"v":1,"type":"run.start","command_id":"x y","payload":{"input":"a"}}', "malformed", None),
        ('{"v":1,"type":"run.start","command_id":"k1","payload":{}}', "malformed", "k1"),
        ('{"v":2,"type":"run.start","command_id":"k2","payload":{"input":"a"}}', "malformed", "k2"),
        ('{"v":1,"type":"run.fly","command_id":"k3","payload":{}}', "unknown_command", "k3"),
        ('{"v":1,"type":"run.cancel","command_id":"k4","payload":{}}', "malformed", "k4"),
        ('{"v":1,"type":"run.cancel","command_id":"k5","run_id":"nope","payload":{}}', "not_found", "k5"),
        ('{"v":1,"type":"run.attach","command_id":"k6","run_id":"nope","payload":{}}', "not_found", "k6"),
        ('{"v":1,"type":"run.attach","command_id":"k7","run_id":"nope","payload":{"since_seq":-1}}', "malformed", "k7"),
        (
            '{"v":1,"type":"tools.offer","command_id":"k8","payload":{"run_id":"nope","client_tools":[]}}',
            "not_found",
            "k8",
        ),
        (
            '{"v":1,"type":"run.start","command_id":"k9","payload":{"input":"a","agent":"nobody"}}',
            "unknown_agent",
            "k9",
        ),
        ('{"v":1,"type":"ping","payload":{"t":' + "[" * 40 + "]" * 40 + "}}", "malformed", None),
        ('{"v":1,"type":"ping","payload":{"t":1e999}}', "malformed", None),
        ('{"v":1,"type":"ping","payload":{"t":"\\ud800"}}', "malformed", None),
        ('{"v":1,"v":1,"type":"ping","payload":{}}', "malformed", None),
        ('{"v":1,"type":"ping","payload":{"t":"' + "x" * 5000 + '"}}', "too_large", None),
    ]
    async with house.peer() as peer:
        for data, code, command_id in bad:
            await peer.socket.send(data)
            frame = await peer.receive()
            if command_id is None:
                assert (frame["type"], frame["payload"]["code"]) == ("error", code), data
            else:
                assert frame["type"] == "receipt", data
                assert (frame["payload"]["command_id"], frame["payload"]["code"]) == (command_id, code), data
            assert frame["payload"]["text"]
            await peer.ping()
        assert (await peer.ask("run.start", {"input": "say 1"}))["status"] == "accepted"


async def test_a_frame_refused_as_a_whole_has_its_receipt_if_its_id_can_be_read(open_house: Open) -> None:
    house = await open_house(max_frame_bytes=4096)
    start = '{"v":1,"type":"run.start","command_id":"c1","payload":%s}'
    wholes = {
        "too_large": start % ('{"input":"' + "x" * 5000 + '"}'),
        "malformed": start % '{"input":"a","metadata":{"n":9007199254740993}}',
    }
    async with house.peer() as peer:
        for code, frame in wholes.items():
            await peer.socket.send(frame)
            assert (await peer.until("receipt", command_id="c1"))["payload"]["code"] == code
        # Which of the two is meant nobody can say.
        await peer.socket.send('{"v":1,"type":"ping","command_id":"c1","command_id":"c2"}')
        assert (await peer.receive())["type"] == "error"
        # Nothing was remembered.
        assert (await peer.ask("run.start", {"input": "say 1"}, command_id="c1"))["status"] == "accepted"


async def test_a_merged_replay_has_no_gap(house: House) -> None:
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 40; gate a; say 3"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        async with house.peer(msgpack=True) as other:
            await other.send("run.attach", {"replay": "merged", "since_seq": 5}, run_id=run_id)
            await other.until("run.caught_up")
            house.agents.gates["a"].opened.set()
            await other.until("run.completed")
        await peer.by_now("run.completed")
    frames = [frame for frame in other.frames if "seq" in frame]
    cursor = 5
    for frame in frames:
        assert frame.get("from", frame["seq"]) == cursor + 1
        cursor = frame["seq"]
    assert len([frame for frame in frames if "from" in frame]) == 1
    # Every byte of what was live is as it was first sent.
    live = frames[[other.frames.index(f) > other.types().index("run.caught_up") for f in frames].index(True) :]
    whole = [json.loads(event) for event in peer.events(run_id)]
    assert live == whole[live[0]["seq"] - 1 :]


async def test_a_frame_far_over_the_limit_closes_with_1009(open_house: Open) -> None:
    house = await open_house(max_frame_bytes=4096)
    async with house.peer() as peer:
        await peer.socket.send("x" * 20_000)
        with pytest.raises(ConnectionClosed) as closed:
            await peer.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_a_client_in_a_loop_of_errors_is_closed_for_good(open_house: Open) -> None:
    house = await open_house(max_errors=5)
    async with house.peer() as peer:
        for _ in range(4):
            await peer.socket.send("nonsense")
        await peer.ping()
        for _ in range(5):
            await peer.socket.send("nonsense")
        with pytest.raises(ConnectionClosed) as closed:
            await peer.until("never")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4509
    assert peer.types().count("error") == 9


async def test_commands_over_the_limit_in_flight_are_refused_and_may_come_again(open_house: Open) -> None:
    house = await open_house(commands_in_flight=2)
    async with house.peer() as peer:
        for number in range(6):
            await peer.send("run.start", {"input": "say 1"}, command_id=f"s{number}")
        receipts = {}
        while len(receipts) < 6:
            payload = (await peer.until("receipt"))["payload"]
            receipts[payload["command_id"]] = payload
        refused = [r for r in receipts.values() if r["status"] == "rejected"]
        assert refused
        assert all((r["code"], r["retryable"]) == ("rate_limited", True) for r in refused)
        again = await peer.ask("run.start", {"input": "say 1"}, command_id=refused[0]["command_id"])
        assert again["status"] == "accepted"


async def test_a_connection_has_so_many_runs_and_no_more(open_house: Open) -> None:
    house = await open_house(max_runs=2)
    async with house.peer() as peer:
        first = await peer.ask("run.start", {"input": "gate a"})
        second = await peer.ask("run.start", {"input": "gate a"})
        third = await peer.ask("run.start", {"input": "gate a"})
        assert (third["status"], third["code"], third["retryable"]) == ("rejected", "quota_exceeded", True)
        # Attaching again to one of them is no more than before; detaching makes room.
        assert (await peer.ask("run.attach", {}, run_id=second["run_id"]))["status"] == "accepted"
        assert (await peer.ask("run.detach", {}, run_id=first["run_id"]))["status"] == "accepted"
        assert (await peer.ask("run.start", {"input": "gate a"}))["status"] == "accepted"


async def test_after_a_detach_nothing_of_the_run_comes(house: House) -> None:
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 5; gate a; say 5"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        await peer.ask("run.detach", {}, run_id=run_id)
        mark = len(peer.frames)
        house.agents.gates["a"].opened.set()
        async with house.peer() as other:
            await other.send("run.attach", {}, run_id=run_id)
            await other.until("run.completed")
        await peer.ping()
        assert peer.events(run_id, since=mark) == []


async def test_a_run_outlives_its_socket(house: House) -> None:
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 5; gate a; say 5"}))["run_id"]
    house.agents.gates["a"].opened.set()
    async with house.peer() as again:
        await again.send("run.attach", {}, run_id=run_id)
        await again.until("run.completed")
    seqs = [json.loads(raw)["seq"] for raw in again.events(run_id)]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_a_command_sent_just_before_hanging_up_is_carried_out(house: House) -> None:
    async with house.peer() as peer:
        await peer.send("run.start", {"input": "say 1", "run_id": "mine"})
        peer.socket.transport.abort()
    async with house.peer() as again:
        await again.ping()
        receipt = await again.ask("run.start", {"input": "say 1", "run_id": "mine"}, command_id="other")
    # The first start won whichever way: same request, same run.
    assert receipt["run_id"] == "mine"


async def test_heartbeats_carry_what_was_written(open_house: Open) -> None:
    house = await open_house(heartbeat_s=0.02)
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 5; gate a"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        head = (await house.registry.view(LOCAL, run_id)).cursor.seq
        while True:
            beat = await peer.until("heartbeat")
            seen = [f["seq"] for f in peer.frames if f.get("run_id") == run_id]
            # Ordered with the events: it never runs ahead of them nor lags behind.
            assert beat["payload"]["runs"].get(run_id, 0) == (seen[-1] if seen else 0)
            if seen and seen[-1] == head:
                break


async def test_no_traceback_however_a_client_leaves(
    house: House, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for leave in ("close", "abort"):
        async with house.peer() as peer:
            run_id = (await peer.ask("run.start", {"input": "say 2000 200"}))["run_id"]
            await peer.until("message.delta")
            if leave == "abort":
                peer.socket.transport.abort()
        async with house.peer() as again:
            await again.send("run.attach", {}, run_id=run_id)
            await again.until("run.completed")
    assert house.gateway.connected <= 1
    out = capsys.readouterr()
    assert "Traceback" not in out.out + out.err
    assert not [r for r in caplog.records if r.levelname in ("ERROR", "WARNING")]


async def test_unknown_subprotocols_and_bad_client_ids_are_closed_with_a_reason(house: House) -> None:
    for path, options, code in (
        ("/v1/ws?client_id=no%20spaces", {}, 4501),
        ("/v1/ws", {"subprotocols": ["other.v9"]}, 4501),
    ):
        with pytest.raises(ConnectionClosed) as closed:
            async with house.peer(path, ready=False, **options) as peer:
                await peer.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
        assert closed.value.rcvd.reason


async def test_too_many_connections(open_house: Open) -> None:
    house = await open_house(max_connections=1)
    async with house.peer():
        with pytest.raises(ConnectionClosed) as closed:
            async with house.peer(ready=False) as second:
                await second.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4504
    async with house.peer() as third:
        await third.ping()


async def test_the_bytes_on_the_wire_are_those_of_the_log(house: House) -> None:
    run_id, log = await finished(house)
    response = await house.server.http.get(f"/v1/runs/{run_id}/events", headers={"accept": "application/x-ndjson"})
    assert response.content == b"".join(event + b"\n" for event in log)
    assert msgspec.json.decode(log[-1])["type"] in TERMINAL


async def test_a_log_that_cannot_be_read_sends_clients_back_to_their_cursor(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, log = await finished(house)

    async def broken(*_: object, **__: object) -> object:
        raise LogUnavailable("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Subscription, "pull", broken)
        async with house.peer() as peer:
            await peer.send("run.attach", {}, run_id=run_id)
            with pytest.raises(ConnectionClosed) as closed:
                await peer.until("never")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4004
    async with house.peer() as again:
        await again.send("run.attach", {}, run_id=run_id)
        await again.until("run.caught_up")
        assert again.events(run_id) == log


async def test_a_slow_start_holds_up_neither_other_runs_nor_the_reader(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = asyncio.Event()
    start = house.registry.start

    async def slow(principal: Principal, command: Command, **options: Any) -> Receipt:
        if command.command_id == "slow":
            await held.wait()
        return await start(principal, command, **options)

    monkeypatch.setattr(house.registry, "start", slow)
    async with house.peer() as peer:
        await peer.send("run.start", {"input": "gate a", "run_id": "held"}, command_id="slow")
        await peer.send("run.cancel", {}, run_id="held", command_id="after")
        await peer.ping()
        assert (await peer.ask("run.start", {"input": "say 1"}))["status"] == "accepted"
        assert not [
            f for f in peer.frames if f["type"] == "receipt" and f["payload"]["command_id"] in ("slow", "after")
        ]
        held.set()
        assert (await peer.until("receipt", command_id="slow"))["payload"]["status"] == "accepted"
        assert (await peer.until("receipt", command_id="after"))["payload"]["status"] == "accepted"


async def test_a_correction_of_an_ended_run_may_start_the_next_and_attach_to_it(house: House) -> None:
    run_id, _ = await finished(house, "say 1")
    async with house.peer() as peer:
        receipt = await peer.ask("run.correct", {"text": "say 2", "if_ended": "start"}, run_id=run_id)
        assert receipt["status"] == "accepted"
        assert receipt["run_id"] != run_id
        assert (await peer.by_now("run.attached"))["payload"]["run_id"] == receipt["run_id"]
        await peer.by_now("run.completed")
        assert peer.events(run_id) == []


async def test_two_windows_host_one_clients_tool_in_turn(house: House) -> None:
    async with house.peer("/v1/ws?client_id=one") as one, house.peer("/v1/ws?client_id=two") as two:
        run_id = (await one.ask("run.start", {"input": "gate a", "client_tools": [{"name": "open_file"}]}))["run_id"]
        assert (await two.ask("run.attach", {"client_tools": [{"name": "open_file"}]}, run_id=run_id))[
            "status"
        ] == "accepted"
        offer = {"run_id": run_id, "client_tools": [{"name": "open_file"}]}
        assert (await one.ask("tools.offer", offer))["status"] == "accepted"
        taken = await one.ask("tools.offer", {"run_id": run_id, "client_tools": [{"name": "srv_tool"}]})
        assert (taken["status"], taken["code"]) == ("rejected", "conflict")
        await one.ask("run.cancel", {}, run_id=run_id)
        await one.by_now("run.cancelled")
        # Hosting ends with the run; reading does not.
        late = await two.ask("run.attach", {"client_tools": [{"name": "open_file"}]}, run_id=run_id)
        assert late["status"] == "accepted"
        assert (await two.ask("tools.offer", offer))["code"] == "run_ended"
