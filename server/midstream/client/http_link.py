"""Streams and requests as a link, for where WebSockets do not get through: the core hears the same frames.

A run that is attached is one stream of its log and the frames around it (NDJSON); a command is one request. What the
server says of a connection on a WebSocket is said here: a stream knows its own place, and a request now and then that
the server is there.
"""

import asyncio
import json
from typing import Any, Final

import httpx2
import msgspec

from midstream.client.address import Address, segment
from midstream.client.errors import Unreachable
from midstream.client.link import LinkClosed
from midstream.clock import Clock
from midstream.tasks import spawn, stop
from midstream_protocol.codec import decode_frame, encode_command, frame_bytes
from midstream_protocol.codes import Close
from midstream_protocol.commands import ClientTool, Command, Ping, RunAttach, RunDetach, RunStart, ToolsOffer
from midstream_protocol.errors import Draining, FieldError, ProtocolError, RunEnded, TooLarge
from midstream_protocol.events import TERMINAL_STATUSES, TERMINAL_TYPES
from midstream_protocol.frames import (
    ConnectionReady,
    FramePayload,
    Heartbeat,
    Pong,
    Receipt,
    RunAttached,
    RunCaughtUp,
    RunReset,
)
from midstream_protocol.ids import new_id
from midstream_protocol.times import iso_ms

TIMEOUT_S: Final = 15.0
"""Longer than the 10 s after which the server answers a command with `pending`."""
SILENT_HEARTBEATS: Final = 4
"""A stream shows life after one to two heartbeats of its server: one that is silent for so many is broken."""
PENDING_S: Final = 1.0
"""Before a command that is not decided yet is sent again, with its id."""
MAX_WAITING: Final = 1024
"""Frames that came and are not read yet: beyond it the streams wait, and so does the server."""

_LOST: Final = 1006


class _Sent(msgspec.Struct):
    """A command, as far as it matters here."""

    type: str
    payload: msgspec.Raw
    command_id: str = ""
    run_id: str = ""


class _Head(msgspec.Struct):
    type: str
    seq: int | None = None


_sent = msgspec.json.Decoder(_Sent).decode
_head = msgspec.json.Decoder(_Head).decode


async def open_http(address: Address, *, client_id: str, token: str | None, clock: Clock) -> "HttpLink":
    """Raises `Unreachable`, and `LinkClosed` when the server refuses who asks."""
    http = httpx2.AsyncClient(
        timeout=TIMEOUT_S,
        trust_env=not address.loopback,
        # A stream a run, and the commands beside them.
        limits=httpx2.Limits(max_connections=None),
    )
    link = HttpLink(address, http, client_id=client_id, token=token, clock=clock)
    try:
        await link.open()
    except BaseException:
        await link.close(None)
        raise
    return link


class HttpLink:
    def __init__(
        self, address: Address, http: httpx2.AsyncClient, *, client_id: str, token: str | None, clock: Clock
    ) -> None:
        self._address = address
        self._http = http
        self._client_id = client_id
        self._heartbeat_s = 0.0
        self._clock = clock
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)
        self._end: LinkClosed | None = None
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._places: dict[str, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._asking: set[str] = set()
        """Commands that are being answered."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._use(token)

    # -- the link

    async def open(self) -> None:
        try:
            answer = await self._http.get(self._address.web("/v1/connection"), params=self._who)
        except httpx2.TransportError as broken:
            raise Unreachable(str(broken) or type(broken).__name__) from broken
        self._refuse(answer)
        try:
            ready = msgspec.json.decode(answer.content, type=ConnectionReady)
        except msgspec.MsgspecError:
            text = f"it answered {answer.status_code}: is it the address of a Midstream server?"
            raise Unreachable(text, status=answer.status_code) from None
        self._heartbeat_s = ready.heartbeat_s
        await self._say(ready)
        self._task(self._beat(), "beat")

    async def receive(self) -> bytes:
        # What came before the end is read before it, or a way that breaks often would never get anywhere.
        if self._end is not None and self._frames.empty():
            raise self._end
        frame = await self._frames.get()
        if frame is None:
            raise self._end or LinkClosed(_LOST)
        return frame

    async def send(self, data: bytes) -> None:
        if self._end is not None:
            raise self._end
        sent = _sent(data)
        match sent.type:
            case RunAttach.TYPE:
                self._follow(sent.run_id, sent.command_id, msgspec.json.decode(sent.payload, type=RunAttach))
            case RunDetach.TYPE:
                self._leave(sent.run_id)
                await self._say(Receipt(command_id=sent.command_id, status="accepted", run_id=sent.run_id))
            case Ping.TYPE:
                await self._say(Pong())
            case "auth.refresh":
                self._use(str(msgspec.json.decode(sent.payload)["token"]))
                await self._say(Receipt(command_id=sent.command_id, status="accepted"))
            case _:
                # It is sent again if its answer takes long, which is then waited for already.
                if sent.command_id not in self._asking:
                    self._asking.add(sent.command_id)
                    self._task(self._command(sent, data), "command")

    async def close(self, code: int | None) -> None:
        self._finish(LinkClosed(_LOST if code is None else code))
        await stop(*self._tasks, *self._streams.values())
        await self._http.aclose()

    def _finish(self, end: LinkClosed) -> None:
        if self._end is not None:
            return
        self._end = end
        if not self._frames.full():
            # For a reader that waits; of a full queue none does.
            self._frames.put_nowait(None)

    async def _say(self, payload: FramePayload) -> None:
        await self._put(frame_bytes(payload))

    async def _put(self, frame: bytes) -> None:
        if self._end is None:
            await self._frames.put(frame)

    def _task(self, work: Any, name: str) -> asyncio.Task[None]:
        task = spawn(self._guarded(work), name=f"client:{self._client_id}/http/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Any) -> None:
        """Whatever breaks one exchange breaks the link: what it carried is asked for again on the next one."""
        try:
            await work
        except httpx2.TransportError as broken:
            self._finish(LinkClosed(_LOST, str(broken) or type(broken).__name__))
        except LinkClosed as closed:
            self._finish(closed)

    def _use(self, token: str | None) -> None:
        if token:
            self._http.headers["Authorization"] = f"Bearer {token}"

    @property
    def _who(self) -> dict[str, str]:
        return {"client_id": self._client_id}

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(self._heartbeat_s)
            answer = await self._http.get(self._address.web("/healthz"))
            if answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
                raise LinkClosed(_LOST, f"the server answered {answer.status_code}")
            # One for all: a stream's own names its run alone.
            await self._say(Heartbeat(now=iso_ms(self._clock.now_ms()), runs=dict(self._places)))

    def _refuse(self, answer: httpx2.Response) -> None:
        """Raises `LinkClosed` for an answer that says who asks may not."""
        if answer.status_code == httpx2.codes.UNAUTHORIZED:
            raise LinkClosed(Close.BAD_CREDENTIALS, _text(answer))

    # -- commands

    async def _command(self, sent: _Sent, data: bytes) -> None:
        try:
            receipt = await self._settled(sent, data)
        finally:
            self._asking.discard(sent.command_id)
        await self._say(receipt)
        # One that made or found another run than it named attaches.
        if receipt.status == "accepted" and receipt.run_id is not None and receipt.run_id != sent.run_id:
            self._follow(receipt.run_id, sent.command_id, RunAttach(), receipt=False)

    async def _settled(self, sent: _Sent, data: bytes) -> Receipt:
        # Commands to one run take effect in the order in which they were sent.
        turn = self._turns.setdefault(sent.run_id or sent.command_id, asyncio.Lock())
        async with turn:
            while (receipt := await self._post(sent, data)) is None:
                await self._clock.sleep(PENDING_S)
        if not sent.run_id:
            self._turns.pop(sent.command_id, None)
        return receipt

    async def _post(self, sent: _Sent, data: bytes) -> Receipt | None:
        """The receipt; None: not decided yet."""
        headers = {"Content-Type": "application/json"}
        if sent.type == RunStart.TYPE and not sent.run_id:
            headers["Idempotency-Key"] = sent.command_id
            path, body = "/v1/runs", bytes(sent.payload)
        else:
            path, body = f"/v1/runs/{segment(sent.run_id)}/commands", data
        answer = await self._http.post(self._address.web(path), params=self._who, headers=headers, content=body)
        self._refuse(answer)
        if answer.status_code == httpx2.codes.ACCEPTED:
            return None
        return _receipt(answer, sent.command_id)

    # -- streams

    def _follow(self, run_id: str, command_id: str, asked: RunAttach, *, receipt: bool = True) -> None:
        """`receipt` False: a command attaches, and had its own."""
        self._leave(run_id)
        # Before anything is said: a beat in between must not leave the run out.
        self._places[run_id] = asked.since_seq or 0
        stream = self._stream(run_id, command_id, asked, receipt=receipt)
        self._streams[run_id] = self._task(stream, f"stream/{run_id}")

    def _leave(self, run_id: str) -> None:
        self._places.pop(run_id, None)
        stream = self._streams.pop(run_id, None)
        if stream is not None:
            stream.cancel()

    async def _stream(self, run_id: str, command_id: str, asked: RunAttach, *, receipt: bool) -> None:
        refused = await self._offer(run_id, command_id, asked.client_tools) if asked.client_tools else None
        if refused is not None:
            await self._say(refused)
            return
        params = {"frames": 1, "since_seq": asked.since_seq, "epoch": asked.epoch, "replay": asked.replay}
        async with self._http.stream(
            "GET",
            self._address.web(f"/v1/runs/{segment(run_id)}/events"),
            params={name: value for name, value in params.items() if value is not None},
            headers={"Accept": "application/x-ndjson"},
            timeout=httpx2.Timeout(TIMEOUT_S, read=max(TIMEOUT_S, SILENT_HEARTBEATS * self._heartbeat_s)),
        ) as response:
            if response.status_code != httpx2.codes.OK:
                await response.aread()
                self._refuse(response)
                said = _receipt(response, command_id)
                if not receipt:
                    raise LinkClosed(_LOST, said.text or "")
                await self._say(said)
                return
            if receipt:
                await self._say(Receipt(command_id=command_id, status="accepted", run_id=run_id))
            if await self._passed_on(run_id, command_id, response):
                self._places.pop(run_id, None)
                return
        # The server goes down, or this reader was too slow for it: come back with the cursor.
        raise LinkClosed(_LOST, f"the stream of run {run_id} ended")

    async def _offer(self, run_id: str, command_id: str, tools: list[ClientTool]) -> Receipt | None:
        """On a WebSocket the tools of an attach are offered with it. Why they are not taken, for the attach."""
        offer = ToolsOffer(run_id=run_id, client_tools=tools)
        data = encode_command(Command(type=offer.TYPE, command_id=new_id("cmd"), payload=offer, run_id=run_id))
        receipt = await self._settled(_sent(data), data)
        # Of a run that has ended there is nothing to host, but all to read.
        if receipt.status == "accepted" or receipt.code == RunEnded.code:
            return None
        if receipt.code == Draining.code:
            raise LinkClosed(_LOST, receipt.text or "")
        return msgspec.structs.replace(receipt, command_id=command_id)

    async def _passed_on(self, run_id: str, command_id: str, response: httpx2.Response) -> bool:
        """Say what the stream says; whether that was all there will be."""
        ended = False
        async for line in _lines(response):
            head = _head(line)
            if head.type == Heartbeat.TYPE:
                continue
            # Only those that matter here are read.
            frame = decode_frame(line).payload if head.type in (RunAttached.TYPE, RunReset.TYPE) else None
            if isinstance(frame, RunAttached):
                ended = frame.status in TERMINAL_STATUSES
                await self._say(msgspec.structs.replace(frame, command_id=command_id))
                continue
            if isinstance(frame, RunReset):
                self._places[run_id] = frame.snapshot_seq or 0
                ended = frame.snapshot is not None and frame.snapshot.get("status") in TERMINAL_STATUSES
                if frame.snapshot_seq is None:
                    # The run is gone.
                    await self._put(line)
                    return True
            await self._put(line)
            if head.seq is not None:
                self._places[run_id] = head.seq
            if head.type in TERMINAL_TYPES or (ended and head.type == RunCaughtUp.TYPE):
                return True
        return False


async def _lines(response: httpx2.Response) -> Any:
    rest = b""
    async for chunk in response.aiter_bytes():
        if b"\n" not in chunk:
            rest += chunk
            continue
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


def _receipt(answer: httpx2.Response, command_id: str) -> Receipt:
    """What an answer says of a command. Raises `LinkClosed` for one that is not the server's."""
    said = _object(answer)
    if "command_id" in said:
        return msgspec.convert(said, Receipt)
    if answer.status_code < httpx2.codes.BAD_REQUEST and "run_id" in said:
        return Receipt(
            command_id=command_id,
            status="accepted",
            run_id=str(said["run_id"]),
            thread_id=said.get("thread_id"),
            as_=said.get("as"),
            at_seq=(said.get("cursor") or {}).get("seq"),
        )
    error = said.get("error")
    if isinstance(error, dict):
        return Receipt(
            command_id=command_id,
            status="rejected",
            code=str(error.get("code")),
            text=error.get("text"),
            errors=msgspec.convert(error.get("errors", []), list[FieldError]),
            resolution=error.get("resolution"),
            retryable=error.get("retryable"),
        )
    if httpx2.codes.BAD_REQUEST <= answer.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
        code = TooLarge.code if answer.status_code == TooLarge.status else ProtocolError.code
        return Receipt(command_id=command_id, status="rejected", code=code, text=_text(answer))
    raise LinkClosed(_LOST, _text(answer))


def _object(answer: httpx2.Response) -> dict[str, Any]:
    try:
        said = json.loads(answer.content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _text(answer: httpx2.Response) -> str:
    error = _object(answer).get("error")
    text = error.get("text") if isinstance(error, dict) else None
    return str(text) if text else f"it answered {answer.status_code}: is it the address of a Midstream server?"
