"""`midstream cancel`, `approve`, `deny`, `answer` and `correct`: one command to a run, from anywhere."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from midstream.cli import blocks
from midstream.cli.failure import NothingWaits
from midstream.cli.invoked import DEFAULT_URL, invoked
from midstream.cli.options import RunId, Token, Url, run_client
from midstream.client import Address, Pending, Rest
from midstream.client.safe_text import safe_line
from midstream_protocol.commands import (
    ApprovalRespond,
    CommandPayload,
    InputRespond,
    Remember,
    RunCancel,
    RunCorrect,
)
from midstream_protocol.events import ApprovalRequired
from midstream_protocol.frames import Receipt
from midstream_protocol.ids import new_id
from midstream_protocol.view import View

_Which = Annotated[str | None, typer.Argument(help="Which one, if several wait.")]

_KEYS: Final = {"approval": "approval_id", "input": "input_id"}
_AWAITED: Final = {"approval": "approval", "input": "answer"}

MAX_ASKED_AGAIN: Final = 6
"""Each asks the server to wait for up to 10 s: a minute in all."""


def cancel_command(
    run: RunId,
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    after_step: Annotated[bool, typer.Option("--after-step", help="Let the step that runs end first.")] = False,
    call: Annotated[str | None, typer.Option(help="Only this tool call; the run goes on.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; it stands in the log.")] = None,
) -> None:
    """Cancel a run. Once more: at once, without grace."""
    payload = RunCancel(mode="after_step" if after_step else "now", tool_call_id=call, reason=reason)
    run_client(_send(url, token, run, payload, done="cancelling"), url=url)


def approve_command(
    run: RunId,
    approval: _Which = None,
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    args: Annotated[str | None, typer.Option(help="Arguments to replace, as a JSON object.")] = None,
    for_run: Annotated[bool, typer.Option("--for-run", help="And do not ask for this tool again in this run.")] = False,
    for_thread: Annotated[
        bool, typer.Option("--for-thread", help="Nor in any run of its thread; `midstream grants` takes it back.")
    ] = False,
    always: Annotated[bool, typer.Option("--always", help="Nor in any of your runs of this agent; the same.")] = False,
) -> None:
    """Approve what a run waits for."""
    replaced = _object(args) if args is not None else None
    # Of several the widest, which holds the others.
    scope: Literal["run", "thread", "always"] | None = (
        "always" if always else "thread" if for_thread else "run" if for_run else None
    )
    remember = Remember(scope=scope) if scope else None

    def payload(approval_id: str, digest: str | None) -> CommandPayload:
        return ApprovalRespond(
            approval_id=approval_id, decision="approve", args=replaced, args_digest=digest, remember=remember
        )

    run_client(_respond(url, token, run, approval, kind="approval", payload=payload, done="approved"), url=url)


def deny_command(
    run: RunId,
    approval: _Which = None,
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    reason: Annotated[str | None, typer.Option(help="Why; the model is told.")] = None,
) -> None:
    """Deny what a run waits for."""

    def payload(approval_id: str, _digest: str | None) -> CommandPayload:
        return ApprovalRespond(approval_id=approval_id, decision="deny", reason=reason)

    run_client(_respond(url, token, run, approval, kind="approval", payload=payload, done="denied"), url=url)


def answer_command(
    run: RunId,
    text: Annotated[str, typer.Argument(help="The answer.")],
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    question: Annotated[str | None, typer.Option(help="Which question, if several wait.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The answer is JSON, not text.")] = False,
) -> None:
    """Answer a question that a run asks."""
    said = _json(text) if as_json else text

    def payload(input_id: str, _digest: str | None) -> CommandPayload:
        return InputRespond(input_id=input_id, answer=said)

    run_client(_respond(url, token, run, question, kind="input", payload=payload, done="answered"), url=url)


def correct_command(
    run: RunId,
    text: Annotated[str, typer.Argument(help="What it should do differently.")],
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    now: Annotated[
        bool, typer.Option("--now", help="Interrupt the model instead of waiting for the next step.")
    ] = False,
    when_idle: Annotated[bool, typer.Option("--when-idle", help="Use it when the plan is done.")] = False,
) -> None:
    """Correct the course of a run."""
    if now and when_idle:
        raise typer.BadParameter("--now and --when-idle exclude each other")
    payload = RunCorrect(text=text, mode="now" if now else "when_idle" if when_idle else "next_step")
    run_client(_send(url, token, run, payload, done="accepted"), url=url)


async def _send(url: str, token: str | None, run_id: str, payload: CommandPayload, *, done: str) -> None:
    rest = Rest(Address(url), token=token)
    try:
        receipt = await _decided(rest, run_id, payload)
    finally:
        await rest.aclose()
    typer.echo(f"{done} (event {receipt.at_seq})" if receipt.at_seq is not None else done)


async def _respond(
    url: str,
    token: str | None,
    run_id: str,
    which: str | None,
    *,
    kind: str,
    payload: Callable[[str, str | None], CommandPayload],
    done: str,
) -> None:
    """Show what is answered, and answer exactly that."""
    rest = Rest(Address(url), token=token)
    try:
        view = await rest.view(run_id)
        key = _only(view, kind) if which is None else which
        item = next((item for item in view.pending if item.get(_KEYS[kind]) == key), None)
        if item is not None and kind == "approval":
            for each in blocks.approval(msgspec.convert(item, ApprovalRequired)):
                typer.echo(each.text)
        await _decided(rest, run_id, payload(key, item.get("args_digest") if item is not None else None))
    finally:
        await rest.aclose()
    typer.echo(f"{done}: {safe_line(key)}")


async def _decided(rest: Rest, run_id: str, payload: CommandPayload) -> Receipt:
    """Its receipt, asked for again under the same id while the run is slow to decide."""
    command_id = new_id("cmd")
    for _ in range(MAX_ASKED_AGAIN):
        try:
            return await rest.command(run_id, payload, command_id=command_id)
        except Pending:
            continue
    raise Pending(f"the server took the command, but the run has not decided it yet; see `{invoked()} tail`")


def _only(view: View, kind: str) -> str:
    """The id of the one thing that waits."""
    key = _KEYS[kind]
    waiting = [item for item in view.pending if item.get("kind") == kind]
    if not waiting:
        raise NothingWaits(
            f"run {view.run_id} is {view.status} and waits for no {_AWAITED[kind]};"
            f" `{invoked()} runs --status waiting` lists what waits"
        )
    if len(waiting) > 1:
        listed = "; ".join(
            f"{item[key]} ({safe_line(str(item.get('label') or item.get('question')))})" for item in waiting
        )
        raise NothingWaits(f"several wait; say which: {listed}")
    return str(waiting[0][key])


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"that is not JSON: {error}") from error


def _object(text: str) -> dict[str, Any]:
    value = _json(text)
    if not isinstance(value, dict):
        raise typer.BadParameter('arguments are a JSON object, such as {"path": "notes.txt"}')
    return value
