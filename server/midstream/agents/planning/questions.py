"""What a model is asked when it plans, judges or names: the system text, and the conversation as far as it needs it.
Pure.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from midstream.agents.asking import Question
from midstream.agents.conversation import AssistantMessage, Message, Text, UserMessage, repaired
from midstream.agents.definition import Agent, RunInfo
from midstream.agents.planning.contract import Request, Revision
from midstream.agents.planning.guardrails import GUARD_SCHEMA, GUARD_TASK
from midstream.agents.planning.merging import Team
from midstream.agents.planning.proposal import plan_schema
from midstream.agents.planning.title import TITLE_SCHEMA, TITLE_TASK
from midstream.agents.tools.shown import bounded

_MAX_OUTCOME = 1_000
"""Characters of what a finished step came to, for a planner."""

_MAX_NAMED = 4_000
"""Characters of a request that is to be named."""

_REVISE = (
    "Give every todo that remains now. What is completed stays as it is. To keep a todo, also one in progress, repeat "
    "it with its id and its title word for word; what you leave out is dropped. New work gets no id, or a new one."
)


def plan_question(
    planner: Agent,
    request: Request,
    asked: UserMessage,
    *,
    team: Team,
    specialists: Sequence[Agent],
    history_chars: int,
    revision: Revision | None,
) -> Question:
    who = "\n".join(f"- {each.name}: {each.description or 'no description'}" for each in specialists)
    task = (
        "You plan the work and do none of it. Say which todos the user's newest request needs, as few as will do: each "
        "with a short title that says what is to be done, and the agent who does it. "
        f"At most {team.max_todos} todos.\n"
        f"Agents:\n{who}\n"
        "`depends_on` names the todos whose results a todo needs. If no todo has it, they are done one after the "
        "other; otherwise a todo without it may begin at once, beside others.\n"
    )
    messages = [*spoken(request.history, history_chars), asked]
    if revision is not None:
        messages.append(_said(_revision(revision)))
    return _question(
        planner,
        request,
        task,
        messages,
        name="propose_plan",
        description="Propose the plan.",
        schema=plan_schema(team.names),
        doing="Planning" if revision is None else "Revising the plan",
    )


def guard_question(guard: Agent, request: Request, asked: UserMessage, *, history_chars: int) -> Question:
    return _question(
        guard,
        request,
        GUARD_TASK,
        [*spoken(request.history, history_chars), asked],
        name="give_verdict",
        description="Say whether the request may be carried out.",
        schema=GUARD_SCHEMA,
        doing="Checking the request",
    )


def title_question(titler: Agent, request: Request) -> Question:
    question = _question(
        titler,
        request,
        TITLE_TASK,
        [_said(bounded(request.input, _MAX_NAMED) or "(a file)")],
        name="give_title",
        description="Name the conversation.",
        schema=TITLE_SCHEMA,
        doing="Working",
    )
    # The work goes on meanwhile.
    return msgspec.structs.replace(question, phase="working")


def spoken(history: Iterable[Message], max_chars: int) -> list[Message]:
    """The newest of what people and agents said to each other, as text: no calls, no results. It begins with a user."""
    kept: list[Message] = []
    room = max_chars
    for message in reversed(tuple(history)):
        text = "\n".join(part.text for part in message.parts if isinstance(part, Text) and part.text)
        if not text:
            continue
        if len(text) > room:
            break
        room -= len(text)
        parts = (Text(text=text),)
        kept.append(UserMessage(parts=parts) if isinstance(message, UserMessage) else AssistantMessage(parts=parts))
    while kept and isinstance(kept[-1], AssistantMessage):
        kept.pop()
    return repaired(list(reversed(kept)))


def _question(
    agent: Agent,
    request: Request,
    task: str,
    messages: Sequence[Message],
    *,
    name: str,
    description: str,
    schema: dict[str, Any],
    doing: str,
) -> Question:
    given = agent.instructions
    info = RunInfo(
        run_id=request.run_id,
        thread_id=request.thread_id,
        agent=agent.name,
        principal=request.principal,
        input=request.input,
        metadata=request.metadata,
    )
    instructions = given if isinstance(given, str) else given(info)
    how = f"Answer by calling {name}. If you cannot, answer with its arguments as one JSON object and nothing else."
    return Question(
        agent=agent.name,
        system=f"{instructions}\n\n{task}{how}".strip(),
        messages=tuple(repaired(messages)),
        name=name,
        description=description,
        schema=schema,
        models=agent.models,
        max_tokens=agent.max_tokens,
        doing=doing,
    )


def _revision(revision: Revision) -> str:
    todos = [msgspec.json.encode(todo).decode() for todo in revision.plan.todos]
    came_to = [
        f"{todo.id} came to: {bounded(revision.outcomes[todo.id], _MAX_OUTCOME)}"
        for todo in revision.plan.todos
        if todo.id in revision.outcomes
    ]
    return "\n".join(
        [
            "The plan so far:",
            *todos,
            *came_to,
            "The user has corrected the course:",
            *revision.corrections,
            _REVISE,
        ]
    )


def _said(text: str) -> UserMessage:
    return UserMessage(parts=(Text(text=text),))
