"""Many runs, people who steer them, and a server that is killed at random: afterwards the history is checked.

What must hold whatever happens: nothing seen is missing or different, every accepted command has its one effect where
its receipt says, a tool that must not run twice did not begin twice unless a person said so, and every run ends.
"""

import asyncio
import json
import random
from typing import Any

import pytest
import websockets

from tests.scenarios.world import Stranger, World, same_history, whole

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]

RUNS = 12
LIVES = 6


def turns() -> list[Any]:
    def call(tool: str, **args: object) -> dict[str, Any]:
        return {
            "steps": [{"text": "Now this. ", "by": "word", "delay_s": 0.02}, {"call": {"tool": tool, "args": args}}]
        }

    return [
        call("look", seconds=0.1),
        call("pay", seconds=0.2),
        call("delete", what="x"),
        {"steps": [{"text": " ".join(f"w{i}" for i in range(30)), "by": "word", "delay_s": 0.02}]},
    ]


class Person:
    """Follows one run over every life of the server, and steers it by the dice."""

    def __init__(self, number: int, seed: int) -> None:
        self.dice = random.Random(seed * 1000 + number)
        self.run_id = f"run-{number}"
        self.seen: dict[int, str] = {}
        self.receipts: dict[str, dict[str, Any]] = {}
        self.sent: dict[str, tuple[str, dict[str, Any]]] = {}
        self.ended = False

    async def live(self, it: World) -> None:
        while not self.ended:
            try:
                async with it.client(f"person-{self.run_id}") as client:
                    await self._follow(client)
            except (OSError, websockets.WebSocketException, TimeoutError, EOFError):
                await asyncio.sleep(0.1)

    async def _follow(self, client: Stranger) -> None:
        frame = {
            "v": 1,
            "type": "run.start",
            "command_id": f"start-{self.run_id}",
            "payload": {"input": "go", "run_id": self.run_id},
        }
        await client.socket.send(json.dumps(frame))
        for command_id, (type_, payload) in self.sent.items():
            # Everything ever sent, again: what was answered before is answered the same.
            await client.send(type_, command_id, self.run_id, **payload)
        while not self.ended:
            got = await client.read()
            if got["type"] == "receipt":
                self._receipt(got["payload"])
            elif "seq" in got:
                assert self.seen.setdefault(got["seq"], client.raw[got["seq"]]) == client.raw[got["seq"]]
                self.ended = got["type"] in ("run.completed", "run.failed", "run.cancelled")
                await self._react(client, got)

    def _receipt(self, receipt: dict[str, Any]) -> None:
        if receipt.get("retryable"):
            return
        known = self.receipts.setdefault(receipt["command_id"], receipt)
        assert known == receipt

    async def _react(self, client: Stranger, event: dict[str, Any]) -> None:
        if event["type"] == "approval.required":
            decision = self.dice.choice(["approve", "approve", "deny"])
            approval_id = event["payload"]["approval_id"]
            await self._command(
                client, "approval.respond", f"answer-{approval_id}", approval_id=approval_id, decision=decision
            )
        elif self.dice.random() < 0.04:
            number = len(self.sent)
            await self._command(client, "run.correct", f"correct-{self.run_id}-{number}", text=f"idea {number}")
        elif self.dice.random() < 0.004:
            await self._command(client, "run.cancel", f"cancel-{self.run_id}", mode="after_step")

    async def _command(self, client: Stranger, type_: str, command_id: str, **payload: Any) -> None:
        if command_id not in self.sent:
            self.sent[command_id] = (type_, payload)
            await client.send(type_, command_id, self.run_id, **payload)


async def more_seen(people: list[Person], events: int) -> None:
    """Until so many more events were seen by all together, or there are no more."""
    enough = sum(len(person.seen) for person in people) + events
    async with asyncio.timeout(60):
        while sum(len(person.seen) for person in people) < enough and not all(person.ended for person in people):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_whatever_happens(world, seed):
    dice = random.Random(seed)
    it = world(turns())
    people = [Person(number, seed) for number in range(RUNS)]
    await it.up(MIDSTREAM_MAX_RECOVERIES="50")
    living = [asyncio.ensure_future(person.live(it)) for person in people]
    try:
        for _ in range(LIVES):
            await more_seen(people, dice.randint(20, 80))
            await it.kill()
            await it.up(MIDSTREAM_MAX_RECOVERIES="50")
        async with asyncio.timeout(60):
            await asyncio.gather(*living)
    finally:
        for task in living:
            task.cancel()
    recovered = 0
    for person in people:
        after = await whole(it, person.run_id)
        same_history(person.seen, after.raw)
        check(person, after)
        recovered += any(event["type"] == "recovery.started" for event in after.events)
    assert recovered, "no kill met a run at work: the dice are of no use"
    paid = [line.split()[2] for line in it.did() if line.startswith("pay begin")]
    assert len(paid) == len(set(paid)), "something was paid twice"
    assert "Traceback" not in it.log.read_text()


def check(person: Person, after: Stranger) -> None:
    by_seq = {event["seq"]: event for event in after.events}
    effects: dict[str, int] = {}
    for event in after.events:
        if (command := event.get("origin", {}).get("command_id")) is not None:
            effects[command] = effects.get(command, 0) + 1
    for command_id, receipt in person.receipts.items():
        if receipt["status"] == "accepted":
            assert effects.get(command_id) == 1, (command_id, effects)
            assert by_seq[receipt["at_seq"]]["origin"]["command_id"] == command_id
        else:
            assert command_id not in effects
    corrections = {e["payload"]["correction_id"] for e in after.events if e["type"] == "correction.accepted"}
    settled = {
        e["payload"]["correction_id"]
        for e in after.events
        if e["type"] in ("correction.applied", "correction.returned", "correction.revoked")
    }
    assert corrections == settled
    approved = {
        e["payload"]["tool_call_id"]
        for e in after.events
        if e["type"] == "approval.resolved" and e["payload"]["decision"] == "approved"
    }
    begun = {
        e["payload"]["tool_call_id"]
        for e in after.events
        if e["type"] == "tool.started" and e["payload"]["tool"] == "delete"
    }
    assert begun <= approved
