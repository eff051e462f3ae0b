"""What planning is made of: the request that is judged and planned, the parts of an app, and how they may fail."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

from msgspec import Struct

from midstream.agents.conversation import Message
from midstream.agents.declared import check_choice, check_function, check_number
from midstream.agents.planning.plan import Plan
from midstream.runs.contract import Principal


class Request(Struct, kw_only=True, frozen=True):
    """What was asked, as a planner, a title and a guardrail see it: `input` is its text, `history` the thread so far.

    `problems`: what was wrong with the plan that a planner has just made of it; it is asked once more.
    """

    run_id: str
    thread_id: str
    agent: str
    principal: Principal
    input: str
    history: tuple[Message, ...]
    metadata: dict[str, Any]
    problems: tuple[str, ...] = ()


class Allow(Struct, kw_only=True, frozen=True):
    """A guardrail's verdict: go on."""


class Stop(Struct, frozen=True):
    """A guardrail's verdict: this must not be done. `reason` is shown to the user."""

    reason: str


class ProposedTodo(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One step as a planner proposes it. `agent` None: the only specialist, or the agent itself.

    `depends_on`: ids of the steps that must be done first. In a plan where no step has it, each follows the one before;
    in any other, a step without it may begin at once.
    """

    title: str
    id: str | None = None
    agent: str | None = None
    depends_on: list[str] | None = None


class Revision(Struct, kw_only=True, frozen=True):
    """Why a plan is made again: the corrections (their texts), the plan as it is, and what came of its finished steps
    (todo id → text).
    """

    corrections: tuple[str, ...]
    plan: Plan
    outcomes: dict[str, str]


Planner = Callable[[Request, Revision | None], Awaitable[list[ProposedTodo]]]
"""A planner that is a function. The revision is None for the first plan."""

Titler = Callable[[Request], Awaitable[str]]

Guardrail = Callable[[Request], Awaitable[Allow | Stop]]

Replan = Callable[[str, Plan], bool]
"""Whether a correction (its text) changes the plan. Quick and without I/O: it is asked at a safe point."""

WithoutPlan = Literal["one_stage", "fail"]
GuardrailError = Literal["closed", "open"]
GuardrailMode = Literal["gate", "race"]
ReplanWhen = Literal["asked", "always", "never"]


class Planning(Struct, kw_only=True, frozen=True):
    """How an agent plans, and what happens when a part of it fails. Seconds. Raises ValueError."""

    plan_timeout_s: float = 60.0
    title_timeout_s: float = 15.0
    guardrail_timeout_s: float = 20.0
    max_todos: int = 20
    without_plan: WithoutPlan = "one_stage"
    """No valid plan in time: do all of it in one step, or end the run as `no_plan`."""
    guardrail_error: GuardrailError = "closed"
    """A guardrail that fails or is late: stop the run, or go on without it."""
    guardrail_mode: GuardrailMode = "gate"
    """`gate`: nothing is shown or begun before the verdict. `race`: the work begins, but no tool runs and no text of an
    answer leaves before the verdict."""
    replan: ReplanWhen | Replan = "asked"
    """Which corrections make the plan anew: those that ask for it, all, none, or what a function says."""
    parallel_stages: int = 3
    """Steps that run at the same time at most."""
    hook_timeout_s: float = 60.0
    """What all hooks after one step may take together, and a join."""
    history_chars: int = 24_000
    """Characters of the thread's newest messages that a planning call is given, some 6,000 tokens."""
    max_todo_chars: int = 200
    """Characters of one step's title."""
    max_title_chars: int = 60
    """Characters of the thread's title; a longer one is cut."""
    max_reason_chars: int = 500
    """Characters of what a guardrail says to the user."""

    def __post_init__(self) -> None:
        for name, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True):
            if not isinstance(default, str):
                check_number("planning", name, getattr(self, name), whole=isinstance(default, int))
        check_choice("planning", "without_plan", self.without_plan, WithoutPlan)
        check_choice("planning", "guardrail_error", self.guardrail_error, GuardrailError)
        check_choice("planning", "guardrail_mode", self.guardrail_mode, GuardrailMode)
        if isinstance(self.replan, str):
            check_choice("planning", "replan", self.replan, ReplanWhen)
        else:
            check_function("planning", "replan", self.replan, "text, plan", plain=True)


class Orchestrates(Protocol):
    """The orchestrator as the executor and the pipeline know it."""

    @property
    def plan(self) -> Plan | None:
        """The plan as it is now; None while there is none, and for an agent that does not plan."""
        ...

    async def prepare(self) -> None:
        """Plan, name the thread, and ask the guardrails, all at once. Returns when the work may begin: the plan is
        shown and, in `gate` mode, the verdict is there. Whatever is still under way then ends by `finish` or `aclose`.

        Raises `RunFailure` (`guardrail`, `no_plan`, `guardrail_failed`), `Stopping`.
        """
        ...

    async def verdict(self) -> None:
        """Returns when every guardrail has allowed the request (in `gate` mode at once after `prepare`). Raises
        `RunFailure` as soon as one has not, `Stopping` after `aclose`. Several may wait.
        """
        ...

    async def finish(self) -> None:
        """The work is done and the run is about to end: wait for the verdict and for the thread's title, each within
        its timeout. Raises as `verdict` does.
        """
        ...

    async def aclose(self) -> None:
        """Stop what is still under way and wait for its end. For every way out; may be called twice."""
        ...

    def replans(self, text: str, *, asked: bool) -> bool:
        """Whether a correction of this text makes the plan anew."""
        ...

    async def revise(self, corrections: list["Correction"], *, outcomes: dict[str, str]) -> Plan | None:
        """Plan what remains anew. The new plan is durable and shown when this returns; None: it stays as it was.

        Stages may go on meanwhile and `mark` what they come to. A todo that was running and that the new plan drops is
        `skipped` in it; one that had not begun is gone. One call at a time.
        """
        ...

    async def mark(self, plan: Plan, *, reason: str | None = None, correction_id: str | None = None) -> None:
        """Make this the current plan: durable and shown when this returns.

        It is current from the call on, so make it of `plan` without waiting in between.
        """
        ...


class Correction(Struct, kw_only=True, frozen=True):
    """A correction that has entered the run."""

    correction_id: str
    text: str
    replanned: bool = False
