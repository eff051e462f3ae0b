"""The built-in tool by which a model asks the user. It has no effect but the question, so it starts with the answer."""

from midstream.agents.tools.definition import tool
from midstream.agents.tools.site import CallFailed, Site
from midstream.runs.port import Port
from midstream.runs.state import input_of
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


async def put_question(port: Port, site: Site) -> object:
    """Ask, or continue waiting after a restart; returns the answer.

    Raises `CallFailed` (nobody answered, or the call was cancelled), `CallCancelled`, `Stopping`.
    """
    required = InputRequired(
        input_id=input_of(site.call_id),
        question=site.args["question"],
        choices=site.args.get("choices") or None,
        expires_at=iso_ms(port.clock.now_ms() + round(site.tool.expires_s * 1000)),
        expires_in_s=site.tool.expires_s,
    )
    answer = await port.ask(required, step_id=site.step_id)
    if answer.decision == "cancelled":
        raise CallFailed("cancelled", "The question was cancelled.")
    if answer.decision != "answered":
        raise CallFailed("input_expired", "The user did not answer in time.")
    return answer.value
