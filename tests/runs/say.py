"""Short words for what programs say in these tests."""

import asyncio
from typing import Any

import msgspec

from midstream.log import JournalRecord
from midstream.runs.contract import CallRecord, ResultRecord
from midstream.runs.port import Port
from midstream_protocol.codec import iso_ms
from midstream_protocol.events import (
    ApprovalRequired,
    InputRequired,
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    RunStep,
    ToolCompleted,
    ToolRequested,
    ToolStarted,
)


async def for_ever(_port: Port) -> None:
    await asyncio.Event().wait()


def message(message_id: str = "m1") -> MessageStarted:
    return MessageStarted(message_id=message_id, role="assistant", agent="a")


def delta(text: str, message_id: str = "m1") -> MessageDelta:
    return MessageDelta(message_id=message_id, text=text)


def said(text: str, message_id: str = "m1") -> MessageCompleted:
    return MessageCompleted(message_id=message_id, role="assistant", text=text, state="complete")


def step(state: Any = "started", step_id: str = "s1") -> RunStep:
    return RunStep(step_id=step_id, state=state, kind="turn", title="", agent="a")


async def speak(port: Port, text: str = "hi", message_id: str = "m1") -> None:
    await port.emit(message(message_id))
    await port.emit(delta(text, message_id))
    await port.record(said(text, message_id))


def started(port: Port, call_id: str = "t1", *, attempt: int = 1, args: dict[str, Any] | None = None) -> ToolStarted:
    return ToolStarted(
        tool_call_id=call_id,
        tool="srv_do",
        label="Do",
        args_preview={},
        args_digest=port.args_digest(args if args is not None else {"n": 1}),
        attempt=attempt,
    )


def completed(call_id: str = "t1") -> ToolCompleted:
    return ToolCompleted(tool_call_id=call_id, duration_ms=1, preview="ok", via="tool")


def approval(
    port: Port, *, key: str = "a1", call_id: str = "t1", seconds: float = 60, args: dict[str, Any] | None = None
) -> ApprovalRequired:
    return ApprovalRequired(
        approval_id=key,
        tool_call_id=call_id,
        tool="srv_do",
        label="Do",
        reason="policy",
        risk="low",
        args={},
        editable=True,
        args_digest=port.args_digest(args if args is not None else {"n": 1}),
        decisions=["approve", "deny"],
        remember_scopes=["run"],
        expires_at=iso_ms(port.clock.now_ms() + round(seconds * 1000)),
        expires_in_s=seconds,
        on_expire="deny",
    )


def question(port: Port, *, key: str = "i1", seconds: float = 60) -> InputRequired:
    at = iso_ms(port.clock.now_ms() + round(seconds * 1000))
    return InputRequired(input_id=key, question="Which?", expires_at=at, expires_in_s=seconds)


def requested(port: Port, *, call_id: str = "t1", client: str = "north", seconds: float = 60) -> ToolRequested:
    return ToolRequested(
        tool_call_id=call_id,
        tool="edit",
        label="Edit",
        args={"n": 1},
        client_id=client,
        expires_at=iso_ms(port.clock.now_ms() + round(seconds * 1000)),
        expires_in_s=seconds,
    )


def call_record(call_id: str = "t1", args: dict[str, Any] | None = None) -> JournalRecord:
    record = CallRecord(tool="srv_do", args=args if args is not None else {"n": 1})
    return JournalRecord(kind="call", key=call_id, data=msgspec.json.encode(record))


def result_record(call_id: str = "t1", value: Any = "ok") -> JournalRecord:
    return JournalRecord(kind="result", key=call_id, data=msgspec.json.encode(ResultRecord(ok=True, value=value)))
