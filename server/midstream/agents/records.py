"""What the agent side keeps in a run's journal: how far planning, stages and turns are. All of it is folded again when
a program begins anew.
"""

from typing import Any, Literal

from msgspec import Struct

from midstream.agents.conversation import Message
from midstream_protocol.events import Todo

NoteKind = Literal["tool_limit", "last_answer", "validation", "simpler"]


class TurnRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `turn`, key = message_id: how a message of the model ended, and whose it is.

    `interrupted` is a stop reason too. `stage` is "" in a run without a plan. `heard`: ids of the corrections that were
    before the model when it said this.
    """

    stop_reason: str
    stage: str = ""
    heard: tuple[str, ...] = ()


class PlanRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `plan`, key = its number: the plan from here on. The newest counts.

    `corrections`: ids of those it was made anew for, also when it came out as it was. `shown` False: it waits for the
    guardrails' verdict. `reason` is that of its event. `asked`: how often the planner was asked so far.
    """

    todos: tuple[Todo, ...]
    corrections: tuple[str, ...] = ()
    shown: bool = True
    reason: str | None = None
    asked: int = 0


class TitleRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `title`, key = "": the title that planning came to. `ours`: None until the thread was asked."""

    title: str
    ours: bool | None = None


class GuardRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `guardrail`, key = the guardrail's name: its verdict. `error`: it gave none, and policy decided."""

    allow: bool
    reason: str = ""
    error: bool = False


class StageRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `stage`, key = stage id: one attempt at a todo began here.

    `brief` is what it was told, `heard` the corrections that are in the brief.
    """

    todo_id: str
    agent: str
    attempt: int
    step_id: str
    brief: str
    heard: tuple[str, ...] = ()


class StageEndRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `stage_end`, key = stage id: what the attempt came to. Written when its work is done, and again with
    the verdict (`go` `retry` `finish` `abort`) once the hooks have been asked; the newest counts.

    `notes` are told to later stages, `why` to the next attempt or to the user, `result` is an early finish's.
    """

    ok: bool
    text: str = ""
    value: Any = None
    code: str | None = None
    error: str | None = None
    retryable: bool = False
    verdict: str = ""
    notes: tuple[str, ...] = ()
    why: str | None = None
    result: Any = None


class NoteRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `note`, key = an id of its own: the loop told the model something here, in the words of `text`.

    `of_run`: the limit that was reached is the whole run's. A `simpler` question is asked apart from the conversation.
    """

    kind: NoteKind
    text: str
    stage: str = ""
    of_run: bool = False


class OutcomeRecord(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Journal kind `outcome`, key = "": what a planned run came to, before it ends with it. The newest counts, while
    nothing was added to the plan since.
    """

    result: Any = None


class ResumedRecord(Struct, kw_only=True, frozen=True):
    """Journal kind `resumed`, key = run_id of the run that this one goes on with: what was asked there, corrections
    included, and what its completed todos came to, by their ids.
    """

    asked: tuple[Message, ...]
    ends: dict[str, StageEndRecord]
