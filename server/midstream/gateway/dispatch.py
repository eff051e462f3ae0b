"""What a connection's tickets ask for, done: the registry for what belongs to a run, the connection for the rest."""

import asyncio
import contextlib
from functools import partial

from midstream.gateway.auth import Authenticator, Credentials
from midstream.gateway.connection import Connection, Slot, Ticket
from midstream.gateway.errors import as_refusal, refusal_receipt
from midstream.gateway.lanes import Lanes
from midstream.runs import Principal, Registry
from midstream.telemetry import count_attach
from midstream_protocol.codes import Close
from midstream_protocol.commands import (
    AuthRefresh,
    ClientTool,
    Command,
    RunAttach,
    RunDetach,
    RunStart,
    ToolsOffer,
)
from midstream_protocol.errors import Forbidden, RunEnded, Unauthorized
from midstream_protocol.frames import Receipt


class Dispatcher:
    """One connection's. Every ticket given to `dispatch` is answered exactly once."""

    def __init__(
        self,
        *,
        connection: Connection,
        registry: Registry,
        authenticator: Authenticator,
        principal: Principal,
        client_id: str,
        name: str,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._connection = connection
        self._registry = registry
        self._authenticator = authenticator
        self._principal = principal
        self._client_id = client_id
        self._name = name
        self._lanes = Lanes(tasks)

    def dispatch(self, ticket: Ticket) -> None:
        """Begin the work, in its run's order. Never waits."""
        command = ticket.command
        self._lanes.run(
            _keys(command),
            partial(self._perform, ticket),
            name=f"conn:{self._name}/{command.type}:{command.command_id}",
        )

    async def _perform(self, ticket: Ticket) -> None:
        command = ticket.command
        try:
            match command.payload:
                case RunStart():
                    await self._submit(ticket, starts=True)
                case RunAttach() as payload:
                    await self._attach(ticket, payload)
                case RunDetach():
                    self._connection.detach(_run_of(command))
                    self._accept(ticket)
                case ToolsOffer() as payload:
                    await self._offer(payload.run_id, payload.client_tools)
                    self._accept(ticket)
                case AuthRefresh() as payload:
                    await self._refresh(payload)
                    self._accept(ticket)
                case _:
                    await self._submit(ticket, starts=False)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the ticket is answered
            refusal = as_refusal(error, doing=command.type)
            receipt = refusal_receipt(refusal, command_id=command.command_id, run_id=command.run_id)
            self._connection.answer(ticket, receipt)

    async def _submit(self, ticket: Ticket, *, starts: bool) -> None:
        send = self._registry.start if starts else self._registry.submit
        receipt = await send(self._principal, ticket.command, client_id=self._client_id)
        # A command that made or found another run than the one it named attaches its sender to that run.
        run_id = receipt.run_id
        if receipt.status != "accepted" or run_id is None or run_id == ticket.command.run_id:
            self._connection.answer(ticket, receipt)
            return
        slot = Slot(run_id)
        try:
            attachment = await self._registry.attach(self._principal, run_id, wake=partial(self._connection.wake, slot))
        except Exception as error:  # noqa: BLE001 - the receipt is durable and must be told
            as_refusal(error, doing="attach after start")
            self._connection.answer(ticket, receipt)
            self._connection.close(Close.INTERNAL, "the started run could not be attached; reconnect and attach")
            return
        count_attach("ws", resumed=False)
        self._connection.open(ticket, receipt, slot, attachment)

    async def _attach(self, ticket: Ticket, payload: RunAttach) -> None:
        run_id = _run_of(ticket.command)
        if payload.client_tools is not None:
            # A client names its tools whenever it attaches; of an ended run there is nothing to host, but all to read.
            with contextlib.suppress(RunEnded):
                await self._offer(run_id, payload.client_tools)
        slot = Slot(run_id)
        attachment = await self._registry.attach(
            self._principal,
            run_id,
            since_seq=payload.since_seq,
            epoch=payload.epoch,
            replay=payload.replay or "full",
            wake=partial(self._connection.wake, slot),
        )
        count_attach("ws", resumed=bool(payload.since_seq) and attachment.reset is None)
        self._connection.open(ticket, _accepted(ticket.command), slot, attachment)

    async def _offer(self, run_id: str, tools: list[ClientTool]) -> None:
        await self._registry.offer(self._principal, run_id, client_id=self._client_id, tools=tools)

    async def _refresh(self, payload: AuthRefresh) -> None:
        found = await self._authenticator.authenticate(Credentials(token=payload.token))
        if found is None:
            raise Unauthorized("this token is not valid; get a new one")
        if found.id != self._principal.id:
            raise Forbidden("this token is another principal's; open a connection of its own with it")

    def _accept(self, ticket: Ticket) -> None:
        self._connection.answer(ticket, _accepted(ticket.command))


def _accepted(command: Command) -> Receipt:
    return Receipt(command_id=command.command_id, run_id=command.run_id, status="accepted")


def _run_of(command: Command) -> str:
    assert command.run_id is not None, f"{command.type} is decoded with a run_id"
    return command.run_id


def _keys(command: Command) -> list[str]:
    """What this command must not overtake: others of its run, of its thread, and itself sent twice."""
    payload = command.payload
    if isinstance(payload, AuthRefresh):
        return ["auth"]
    run_id = payload.run_id if isinstance(payload, RunStart) else command.run_id
    keys = [f"command:{command.command_id}"]
    if run_id is not None:
        keys.append(f"run:{run_id}")
    if isinstance(payload, RunStart) and payload.thread_id is not None:
        keys.append(f"thread:{payload.thread_id}")
    return keys
