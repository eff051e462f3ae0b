"""A call that a client runs. The run itself writes its result when the client sends it; here it is waited for."""

from typing import Any

from msgspec import Struct

from midstream.agents.journal import journal_record
from midstream.agents.tools.definition import DEFAULT_APPROVAL_S, DEFAULT_TIMEOUT_S, Tool, titled
from midstream.agents.tools.site import CallFailed, Site
from midstream.agents.tools.validate import is_schema
from midstream.runs.contract import CallRecord, ResultRecord
from midstream.runs.port import Port
from midstream.runs.state import Answer
from midstream_protocol.codec import iso_ms
from midstream_protocol.commands import ClientTool
from midstream_protocol.events import ToolRequested


async def request(port: Port, site: Site) -> Answer:
    """Hand the call to the client that hosts its tool, and wait. Raises `CallFailed` (nobody hosts it), `Stopping`."""
    client_id = port.host_of(site.tool.name)
    if client_id is None:
        raise CallFailed("client_gone", "No connected client offers this tool now.", retryable=True)
    requested = ToolRequested(
        tool_call_id=site.call_id,
        tool=site.tool.name,
        label=site.label,
        args=site.args,
        client_id=client_id,
        expires_at=iso_ms(port.clock.now_ms() + round(site.tool.timeout_s * 1000)),
        expires_in_s=site.tool.timeout_s,
        message_id=site.message_id,
    )
    call = CallRecord(tool=site.tool.name, args=site.args)
    return await port.ask(requested, journal=[journal_record("call", site.call_id, call)], step_id=site.step_id)


def result_of(answer: Answer) -> ResultRecord:
    """What the client, or the clock, made of a requested call."""
    if answer.decision == "completed":
        return ResultRecord(ok=True, value=answer.value)
    return ResultRecord(ok=False, error=answer.code or "tool_error", text=answer.text or "The client failed.")


class _Anything(Struct, kw_only=True, frozen=True):
    """Arguments of a tool that only its client knows: checked by its schema, never read here."""


def offered_tool(offer: ClientTool) -> Tool | None:
    """A tool that a client brought along. None if it gave only a name, which then must be one that the agent declares,
    or a schema that cannot be checked.
    """
    if offer.input_schema is None or not is_schema(offer.input_schema):
        return None
    schema: dict[str, Any] = {"type": "object", "properties": {}, **offer.input_schema}
    return Tool(
        name=offer.name,
        description=offer.description or "",
        fn=_never,
        arguments=_Anything,
        input_schema=schema,
        injected={},
        context=(),
        label=(titled(offer.name),),
        client=True,
        threaded=False,
        approval="never",
        on_unknown="tell",
        idempotent=False,
        timeout_s=DEFAULT_TIMEOUT_S,
        preview=None,
        redact=frozenset(),
        expires_s=DEFAULT_APPROVAL_S,
        on_expire="deny",
        risk="medium",
        remember=None,
        editable=True,
    )


def _never(**_args: Any) -> None:
    raise NotImplementedError("a client runs this tool")
