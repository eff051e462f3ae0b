"""Telling the places of webhooks what they are behind with: whose turn it is, what came of a try, and when there is
another. Where a line stands is written down after each answer.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from midstream.clock import Clock
from midstream.log import LogError, Reset, Store, VersionConflict
from midstream.logs import Logger
from midstream.outbound.cursor import KIND, Behind, Cursor, Line
from midstream.outbound.message import Told, body, read_told
from midstream.outbound.options import WebhookOptions
from midstream.outbound.post import Answer, Sender
from midstream.outbound.retrying import Verdict, delay_s, told_s, verdict
from midstream.outbound.signing import signed
from midstream.outbound.turns import Turns
from midstream.runs.dead_letters import Letter, letter_id, letter_writes
from midstream.runs.keys import namespace
from midstream.tasks import spawn, stop
from midstream.telemetry import count_webhook
from midstream_protocol.codec import iso_ms

CLOSE_GRACE_S: Final = 1.0
"""How long requests under way may go on when the server stops. What they did not tell is told by the next one."""

SERVERS_OWN: Final = "the server's own place"
"""Stands for a place that the operator named."""

_log = Logger("midstream.webhooks")


class Teller:
    """`let_go` is called with a line that is behind with nothing any more. `fraction` is random in [0, 1)."""

    def __init__(
        self,
        options: WebhookOptions,
        *,
        key: bytes,
        store: Store,
        clock: Clock,
        sender: Sender,
        fraction: Callable[[], float],
        let_go: Callable[[Line], None],
    ) -> None:
        self._options = options
        self._key = key
        self._store = store
        self._clock = clock
        self._sender = sender
        self._fraction = fraction
        self._let_go = let_go
        self._turns: Turns[Line] = Turns(together=options.in_flight, each=max(1, options.in_flight // 4))
        self._timers: dict[Line, Callable[[], None]] = {}
        self._tries: set[asyncio.Task[None]] = set()
        self._closing = False

    def tell(self, line: Line) -> None:
        """Begin with it when it is its turn."""
        self._turns.wait(line.place.lane, line)
        self._begin()

    async def aclose(self) -> None:
        self._closing = True
        if self._tries:
            await asyncio.wait(self._tries, timeout=CLOSE_GRACE_S)
            await stop(*self._tries)
        for cancel in self._timers.values():
            cancel()

    async def write(self, behind: Behind) -> None:
        """Write down what was told. Raises `LogError`."""
        async with behind.writing:
            while behind.dirty:
                behind.dirty = False
                try:
                    await self._write_once(behind)
                except VersionConflict:
                    # Erased with its run; or our own write, whose reply was lost.
                    record = await self._store.records.get(KIND, behind.run)
                    if record is None:
                        for line in behind.lines.values():
                            line.wanted.clear()
                        return
                    behind.version = record.version
                    behind.dirty = True
                except BaseException:
                    behind.dirty = True
                    raise

    def _begin(self) -> None:
        while not self._closing and (taken := self._turns.take()) is not None:
            lane, line = taken
            task = spawn(self._try(line), name=f"webhooks/{line.behind.cursor.run_id}")
            self._tries.add(task)

            def done(task: asyncio.Task[None], lane: object = lane) -> None:
                self._tries.discard(task)
                self._turns.done(lane)
                self._begin()

            task.add_done_callback(done)

    async def _try(self, line: Line) -> None:
        """One event to one place; then it is the turn of another."""
        delay: float | None
        try:
            delay = await self._tell(line)
        except LogError as error:
            line.failures += 1
            delay = delay_s(line.failures, slow=False, told=None, fraction=self._fraction())
            _log.warning("a webhook waits for the store", run=line.behind.run, error=str(error))
        except Exception:  # noqa: BLE001 - the edge: whatever is wrong with a run is its own trouble
            line.failures += 1
            delay = delay_s(line.failures, slow=True, told=None, fraction=self._fraction())
            _log.exception("a webhook cannot be sent", run=line.behind.run)
        if delay is not None:
            self._timers[line] = self._clock.call_later(delay, lambda: self._again(line))
        elif line.wanted:
            self._turns.wait(line.place.lane, line)
        else:
            self._let_go(line)

    def _again(self, line: Line) -> None:
        self._timers.pop(line, None)
        self.tell(line)

    async def _tell(self, line: Line) -> float | None:
        """Seconds until it is tried again; None: go on. Raises `LogError`."""
        behind, url = line.behind, line.place.url
        await self.write(behind)
        if not line.wanted:
            return None
        seq = line.wanted[0]
        page = await self._store.log.read(behind.run, after=seq - 1, max_events=1)
        if isinstance(page, Reset) or not page.events:
            # Erased: the run, or all but its end.
            header = None if isinstance(page, Reset) and page.header is None else page.header
            first = header.first_seq if header is not None else None
            line.wanted[:] = [each for each in line.wanted[1:] if first is not None and each >= first]
            behind.ended |= header is None
            behind.dirty = True
            await self.write(behind)
            return None
        told = read_told(page.events[0])
        answer = await self._send(behind.cursor, url, told.seq, body(told, **_about(behind.cursor)))
        meant = verdict(answer.status) if answer.failure is None else Verdict.LATER
        if meant is Verdict.TAKEN:
            count_webhook("delivered")
            line.failures = 0
            await self._moved(line, seq)
            return None
        line.failures += 1
        why = answer.failure or f"status {answer.status}"
        about = {"run": behind.run, "seq": seq, "place": line.place.lane, "why": why, "tries": line.failures}
        if meant is Verdict.GONE:
            await self._leave(line, told, answer, code="gone")
            count_webhook("given_up")
            _log.warning("a place wants no more webhooks of this run", **about)
            line.wanted.clear()
            behind.cursor = msgspec.structs.replace(behind.cursor, gone=(*behind.cursor.gone, url))
            await self._moved(line, seq)
            return None
        count_webhook("failed")
        if line.failures == 1:
            _log.warning("a webhook was not taken and is tried again", **about)
        if self._clock.now_ms() - told.at_ms >= self._options.max_age_s * 1000:
            await self._leave(line, told, answer, code="given_up")
            count_webhook("given_up")
            _log.warning("a webhook is given up", type=told.type, **about)
            await self._moved(line, seq)
            return None
        return delay_s(
            line.failures,
            slow=answer.refused or meant is Verdict.REFUSED,
            told=told_s(answer.headers, now_ms=self._clock.now_ms()),
            fraction=self._fraction(),
        )

    async def _send(self, cursor: Cursor, url: str, seq: int, content: bytes) -> Answer:
        message_id = cursor.message_id(seq)
        headers = {
            "content-type": "application/json",
            "user-agent": "midstream-webhooks/1",
            **signed(self._key, message_id=message_id, at_s=self._clock.now_ms() // 1000, body=content),
        }
        return await self._sender.post(url, headers=headers, body=content)

    async def _leave(self, line: Line, told: Told, answer: Answer, *, code: str) -> None:
        """A dead letter about it, before it is passed by. Raises `LogError`.

        It is shown to whose run it is: no word about this network, nor about a place that they did not name.
        """
        cursor = line.behind.cursor
        own = cursor.own is not None and cursor.own.url == line.place.url
        text = f"It answered with status {answer.status}."
        if answer.failure is not None:
            text = "Its address may not be sent to." if answer.refused else "It could not be reached."
        letter = Letter(
            id=letter_id(told.at_ms, line.behind.run, f"{told.seq} {line.place.url}"),
            kind="webhook",
            run_id=cursor.run_id,
            thread_id=cursor.thread_id,
            at=iso_ms(told.at_ms),
            what=line.place.lane if own else SERVERS_OWN,
            code=code,
            text=text,
            attempts=line.failures,
            event=told.type,
            seq=told.seq,
        )
        for write in letter_writes(namespace(cursor.user), [letter]):
            assert write.data is not None
            await self._store.records.put(write.kind, write.id, write.data)

    async def _moved(self, line: Line, seq: int) -> None:
        """That event is told, or given up. Raises `LogError` if that could not be written down yet."""
        behind = line.behind
        behind.cursor.told[line.place.url] = seq
        behind.dirty = True
        if line.wanted and line.wanted[0] == seq:
            del line.wanted[0]
        await self.write(behind)

    async def _write_once(self, behind: Behind) -> None:
        if behind.over:
            await self._store.records.delete(KIND, behind.run, expect_version=behind.version)
            return
        data = msgspec.json.encode(behind.cursor)
        written = await self._store.records.put(KIND, behind.run, data, expect_version=behind.version)
        behind.version = written.version


def _about(cursor: Cursor) -> dict[str, str]:
    return {"run_id": cursor.run_id, "thread_id": cursor.thread_id, "user": cursor.user}
