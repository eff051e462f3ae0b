"""The proxy does what it is told, and nothing else."""

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

from tests.testkit.fault_proxy import Control, FaultProxy, Line, cuts, mixed

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(20)]

BODY = bytes(range(256)) * 20
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def web() -> AsyncIterator[int]:
    """A server that answers every request with `ANSWER`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def counting(count: int) -> AsyncIterator[int]:
    """A WebSocket server that says the numbers up to `count` and closes."""

    async def serve(socket: Any) -> None:
        for number in range(count):
            # Lengths of every form of a frame's head.
            await socket.send(json.dumps(number) + " " * (200 if number == 3 else 70_000 if number == 4 else 0))

    async with websockets.serve(serve, "127.0.0.1", 0, compression=None) as server:
        yield next(iter(server.sockets)).getsockname()[1]


async def fetched(port: int) -> tuple[bytes, BaseException | None]:
    """What came, and how it broke."""
    got = b""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASK)
        while more := await reader.read(4096):
            got += more
        writer.close()
    except OSError as broken:
        return got, broken
    return got, None


async def heard(port: int) -> list[int]:
    async with websockets.connect(f"ws://127.0.0.1:{port}", compression=None) as socket:
        return [json.loads(text) async for text in socket]


async def test_without_a_plan_everything_passes() -> None:
    async with web() as port, FaultProxy(port) as proxy:
        assert await fetched(proxy.port) == (ANSWER, None)
        assert proxy.counts.cuts == 0


@pytest.mark.parametrize("at", [0, 1, 100, len(ANSWER) - 1])
async def test_a_line_is_cut_at_its_byte(at: int) -> None:
    async with web() as port, FaultProxy(port, lines=[Line(cut_at=at)]) as proxy:
        assert await fetched(proxy.port) == (ANSWER[:at], None)
        assert await fetched(proxy.port) == (ANSWER, None)
        assert proxy.counts.cuts == 1


async def test_a_reset_is_one() -> None:
    async with web() as port, FaultProxy(port, lines=[Line(cut_at=100, how="reset")]) as proxy:
        assert isinstance((await fetched(proxy.port))[1], ConnectionResetError)


async def test_what_the_client_says_can_be_cut_too() -> None:
    async with web() as port, FaultProxy(port, lines=[Line(up_cut_at=len(ASK) - 1)]) as proxy:
        assert await fetched(proxy.port) == (b"", None)
        assert proxy.counts.cuts == 1


async def test_one_byte_at_a_time_is_all_of_it() -> None:
    async with web() as port, FaultProxy(port, rest=Line(piece=1, stall_at=50, stall_s=0.0)) as proxy:
        assert await fetched(proxy.port) == (ANSWER, None)
        assert proxy.counts.stalls == 1


async def test_a_stall_holds_everything_back_until_it_flows_again() -> None:
    async with web() as port, FaultProxy(port) as proxy:
        proxy.stall()
        fetching = asyncio.create_task(fetched(proxy.port))
        done, _ = await asyncio.wait({fetching}, timeout=0.1)
        assert not done
        proxy.flow()
        assert await fetching == (ANSWER, None)


async def test_nobody_listens_while_it_refuses_and_the_port_stays() -> None:
    async with web() as port, FaultProxy(port, lines=[Line(refuse=True)]) as proxy:
        assert (await fetched(proxy.port))[0] == b""
        before = proxy.port
        await proxy.refuse()
        assert isinstance((await fetched(proxy.port))[1], ConnectionRefusedError)
        await proxy.accept()
        assert proxy.port == before
        assert await fetched(proxy.port) == (ANSWER, None)


async def test_frames_come_twice_out_of_order_or_not_at_all() -> None:
    async with counting(200) as port, FaultProxy(port) as proxy:
        assert await heard(proxy.port) == list(range(200))
        proxy.plan([Line(duplicate=1.0), Line(drop=1.0), Line(swap=1.0)])
        assert await heard(proxy.port) == [0, *(number for number in range(1, 200) for _ in "xx")]
        assert await heard(proxy.port) == [0]
        swapped = await heard(proxy.port)
        # Of an odd number the last one is held for ever.
        assert swapped == [0, *itertools.chain(*((number + 1, number) for number in range(1, 198, 2)))]
        assert proxy.counts.swapped == 100


async def test_faults_by_chance_are_the_same_for_the_same_seed() -> None:
    line = Line(duplicate=0.2, drop=0.2, swap=0.2, seed=5)
    async with counting(100) as port, FaultProxy(port, rest=line) as proxy:
        first = await heard(proxy.port)
        assert first == await heard(proxy.port)
        assert first != list(range(100))
    assert list(itertools.islice(cuts(seed=3), 20)) == list(itertools.islice(cuts(seed=3), 20))
    assert list(itertools.islice(mixed(seed=3), 20)) == list(itertools.islice(mixed(seed=3), 20))


async def test_websockets_are_blocked_and_requests_are_not() -> None:
    async with counting(3) as port, FaultProxy(port) as proxy:
        proxy.block_websockets = True
        with pytest.raises(websockets.InvalidStatus, match="403"):
            await heard(proxy.port)
        proxy.block_websockets = False
        assert await heard(proxy.port) == [0, 1, 2]


async def test_all_that_is_open_is_cut_now() -> None:
    async with web() as port, FaultProxy(port) as proxy:
        readers = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(3)]
        while proxy.open < 3:  # noqa: ASYNC110  # its loop is this one: a few turns
            await asyncio.sleep(0)
        assert proxy.cut("reset") == 3
        for reader, writer in readers:
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()


async def test_the_control_port_says_what_is_wrong() -> None:
    async with FaultProxy(1) as proxy:
        control = Control(proxy)
        assert "cut_at" in (await control.do('{"do":"plan","lines":[{"cutat":3}]}'))["error"]
        assert "'jump'" in (await control.do('{"do":"jump"}'))["error"]
        assert "error" in await control.do("{")
        assert (await control.do('{"do":"seen"}'))["connections"] == 0


async def test_as_a_program_it_is_driven_by_json_lines() -> None:
    async with web() as port:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.testkit.fault_proxy", "--target", f"127.0.0.1:{port}"),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            ports = json.loads(await process.stdout.readline())
            reader, writer = await asyncio.open_connection("127.0.0.1", ports["control"])
            writer.write(b'{"do":"plan","lines":[{"cut_at":10}]}\n')
            assert json.loads(await reader.readline())["cuts"] == 0
            assert await fetched(ports["port"]) == (ANSWER[:10], None)
            writer.write(b'{"do":"seen"}\n')
            assert json.loads(await reader.readline())["cuts"] == 1
            writer.close()
        finally:
            process.terminate()
            await process.wait()
