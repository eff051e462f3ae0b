"""A program whose run is a script in its input, so that a client alone can say what should happen.

`say N [size]` streams N deltas; `gate NAME` waits until the test opens it (and says so when it is reached);
`turn` asks for clearance, as before a model call; `ask` asks the user; `fail` fails, and says how to go on; `title`
names the thread. The run ends with the number of deltas.
"""

import asyncio
from collections import defaultdict
from typing import Any

from midstream.clock import SystemClock
from midstream.runs import Port, RunFailure, StartRecord
from midstream_protocol.codec import iso_ms
from midstream_protocol.events import InputRequired, MessageCompleted, MessageDelta, MessageStarted, Resume
from tests.runs.simple import OpenRules


class Gate:
    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()


class TalkAgents:
    """One agent, `a`. `gates[name]` are the places where its programs wait."""

    def __init__(self) -> None:
        self.default = "a"
        self.gates: defaultdict[str, Gate] = defaultdict(Gate)
        self._rules = OpenRules()

    def names(self) -> list[str]:
        return ["a"]

    def program(self, start: StartRecord) -> "Talk | None":
        return Talk(str(start.input), self.gates) if start.agent == "a" else None

    def rules(self, agent: str) -> OpenRules | None:
        return self._rules if agent == "a" else None


class Talk:
    def __init__(self, script: str, gates: defaultdict[str, Gate]) -> None:
        self._steps = [step.split() for step in script.split(";") if step.strip()]
        self._gates = gates

    async def run(self, port: Port) -> None:
        said = 0
        for step in self._steps:
            match step:
                case ["say", count, *size]:
                    said += await _say(port, int(count), int(size[0]) if size else 8)
                case ["gate", name]:
                    self._gates[name].reached.set()
                    await self._gates[name].opened.wait()
                case ["turn"]:
                    await port.clearance()
                case ["ask"]:
                    expires = iso_ms(SystemClock().now_ms() + 600_000)
                    await port.ask(
                        InputRequired(input_id="input_1", question="?", expires_at=expires, expires_in_s=600.0)
                    )
                case ["fail"]:
                    resume = Resume(text="Go on from here.", run_id=port.start.run_id, step_id="step_1")
                    raise RunFailure("model_error", "The model is gone.", retryable=True, resume=resume)
                case ["title"]:
                    await port.claim_title("A thread")
                case other:
                    raise ValueError(f"no such step: {other}")
        await port.end({"said": said})


async def _say(port: Port, count: int, size: int) -> int:
    message_id = port.new_id("msg")
    await port.emit(MessageStarted(message_id=message_id, role="assistant", agent="a"))
    texts: list[Any] = []
    for number in range(count):
        text = f"{number} ".ljust(size, "x")
        texts.append(text)
        await port.emit(MessageDelta(message_id=message_id, text=text))
        # One beat each, so that deltas are not joined.
        await asyncio.sleep(0)
    await port.record(
        MessageCompleted(
            message_id=message_id, role="assistant", text="".join(texts), state="complete", stop_reason="end_turn"
        )
    )
    return count
