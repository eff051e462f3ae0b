"""The built-in tool by which a model asks the user. It has no effect but the question, so it starts with the answer."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from midstream.agents.tools.definition import tool
from midstream.agents.tools.site import CallFailed, Site
from midstream.runs.contract import Stopping
from midstream.runs.port import Port
from midstream.runs.state import Answer
from midstream.tasks import spawn, stop
from midstream_protocol.codec import iso_ms
from midstream_protocol.events import InputRequired


@tool(name="ask_user", label="Ask: {question}", idempotent=True)
async def ask_user(question: str, choices: list[str] | None = None) -> str:
    """Ask the user a question and wait for the answer.

    Use it when you cannot go on without something that only the user knows or may decide.

    Args:
        question: One clear question.
        choices: Answers to choose from, if there are only a few.
    """
    raise NotImplementedError(question, choices)


async def put_question(port: Port, site: Site, cancelled: asyncio.Event) -> object:
    """Ask, or continue waiting after a restart; returns the answer.

    Raises `CallFailed` (nobody answered, or the call was `cancelled`), `Stopping`.
    """
    # The same call asks the same question: a restart finds it open, or answered.
    input_id = f"input_{hashlib.sha256(site.call_id.encode()).hexdigest()[:24]}"
    required = InputRequired(
        input_id=input_id,
        question=site.args["question"],
        choices=site.args.get("choices") or None,
        expires_at=iso_ms(port.clock.now_ms() + round(site.tool.expires_s * 1000)),
        expires_in_s=site.tool.expires_s,
    )
    asking = spawn(_quiet(lambda: port.ask(required, step_id=site.step_id)), name=f"ask:{input_id}")
    giving_up = spawn(cancelled.wait(), name=f"ask:{input_id}/cancelled")
    try:
        await asyncio.wait({asking, giving_up}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise CallFailed("cancelled", "The user cancelled the question.")
        answer = asking.result()
    finally:
        await stop(asking, giving_up)
    if isinstance(answer, Stopping):
        raise answer
    if answer.decision != "answered":
        raise CallFailed("input_expired", "The user did not answer in time.")
    return answer.value


async def _quiet(asking: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer | Stopping:
    # A run that stops is an answer here, not a failure of the task.
    try:
        return await asking()
    except Stopping as stopping:
        return stopping
