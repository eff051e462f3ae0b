"""Webhooks over a real store and a real place, with a clock that is moved by hand; runs are written by the test."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from midstream.log import Batch, Store
from midstream.outbound.options import WebhookOptions
from midstream.outbound.webhooks import Webhooks
from midstream.runs import Principal, StartRecord
from midstream.runs.keys import store_key
from midstream.runs.taps import Taps
from midstream.testing import ManualClock
from midstream_protocol import events as ev
from midstream_protocol.codec import event_bytes, iso_ms
from midstream_protocol.commands import Webhook

SECRET = "whsec_c2VjcmV0IHRoYXQgbm9ib2R5IGtub3dz"
KEY = b"secret that nobody knows"
ME = Principal(id="local", name="local")
STATUS = {"run.completed": "completed", "run.failed": "failed", "run.cancelled": "cancelled"}


def approval(n: int = 1) -> ev.Payload:
    return ev.ApprovalRequired(
        approval_id=f"a{n}", tool_call_id=f"t{n}", tool="pay", label="Pay", reason="it costs", risk="high", args={},
        editable=False, args_digest="d", decisions=["approve", "deny"], remember_scopes=[],
        expires_at="2026-01-02T00:00:00.000Z", expires_in_s=1.0, on_expire="deny",
    )  # fmt: skip


def delta(text: str = "words") -> ev.Payload:
    return ev.MessageDelta(message_id="m", text=text)


def end(result: Any = "done") -> ev.Payload:
    usage = ev.Usage(input_tokens=1, output_tokens=1, cached_input_tokens=0, total_tokens=2, by_model={})
    return ev.RunCompleted(result=result, usage=usage, digest="d")


class Rig:
    """One server's webhooks. `run` begins a run, `happen` writes its events and shows them."""

    def __init__(self, store: Store, clock: ManualClock, **options: Any) -> None:
        self.store = store
        self.clock = clock
        self.taps = Taps()
        extra = {name: options.pop(name) for name in ("resolve", "sender", "fraction") if name in options}
        options = {"secret": SECRET, "allow_private": True, "timeout_s": 5.0, **options}
        self.webhooks = Webhooks(
            WebhookOptions(**options), store=store, clock=clock, **{"fraction": lambda: 0.5, **extra}
        )
        self.fences: dict[str, int] = {}

    async def open(self) -> "Rig":
        await self.webhooks.open(self.taps)
        return self

    async def run(self, run_id: str = "run_1", *, webhook: Webhook | None = None, owner: Principal = ME) -> str:
        run = store_key(owner.id, run_id)
        now = self.clock.now_ms()
        start = StartRecord(
            run_id=run_id, thread_id=f"thread_{run_id}", agent="a", principal=owner, input="x", secret="00",
            created_ms=now, webhook=webhook,
        )  # fmt: skip
        batch = Batch(
            batch_id="b0",
            status="running",
            events=(self._event(run_id, 1, ev.RunStarted(agent="a", thread_id=start.thread_id)),),
            records=tuple(self.webhooks.begun(run, start)),
        )
        created = await self.store.log.create(run, fingerprint="f", batch=batch, owner="me", lease_ms=10**9)
        assert created.lease is not None
        self.fences[run] = created.lease.fence
        return run

    async def happen(self, run: str, *payloads: ev.Payload, shown: bool = True) -> None:
        """`shown` False: durable, and its writer died before it could show it."""
        page = await self.store.log.read(run, after=0, max_events=1)
        head = page.header.head_seq  # type: ignore[union-attr]
        run_id = run.partition(".")[2]
        events = tuple(self._event(run_id, head + n, each) for n, each in enumerate(payloads, 1))
        status = next((STATUS[each.TYPE] for each in payloads if each.TYPE in STATUS), "running")
        batch = Batch(batch_id=f"b{head}", status=status, events=events)
        await self.store.log.append(run, fence=self.fences[run], prev_seq=head, batch=batch)
        if shown:
            self.taps.published(run, run_id, events)

    def _event(self, run_id: str, seq: int, payload: ev.Payload) -> bytes:
        return event_bytes(seq=seq, run_id=run_id, ts=iso_ms(self.clock.now_ms()), payload=payload)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110 - it waits for the code under test and a real peer
                await asyncio.sleep(0.001)

    async def waits(self, lines: int = 1) -> None:
        """Until so many tries have failed and wait for their time."""
        await self.until(lambda: len(self.webhooks._teller._timers) == lines and not self.webhooks._teller._tries)

    async def idle(self) -> None:
        """Until nothing is left to be told."""
        inner = self.webhooks
        await self.until(
            lambda: (
                not (inner._behind or inner._news or inner._teller._tries or inner._admitting.locked())
                and inner._caught_up
            )
        )

    async def records(self) -> Sequence[str]:
        return [record.id for record in await self.store.records.list("webhook")]
