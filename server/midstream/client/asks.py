"""What a run waits for from a person: its approvals and questions, as objects that are answered by their methods."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol

import msgspec

from midstream.clock import Clock
from midstream_protocol.commands import Remember
from midstream_protocol.events import ApprovalRequired, InputRequired, Preview
from midstream_protocol.frames import Receipt, RunAttached
from midstream_protocol.view import View

Scope = Literal["run", "thread", "always"]
"""How far an approval is remembered; one of the approval's `remember_scopes`."""


class Answers(Protocol):
    """Where the answers go: the run."""

    run_id: str

    async def approve(
        self,
        approval_id: str,
        *,
        args: dict[str, Any] | None = None,
        args_digest: str | None = None,
        remember: Remember | Scope | None = None,
    ) -> Receipt: ...

    async def deny(self, approval_id: str, *, reason: str | None = None) -> Receipt: ...

    async def answer(self, input_id: str, answer: Any) -> Receipt: ...


class Approval:
    """A call that waits for a yes or no. `expires_at` is by this machine's clock. The texts come from models and tools.

    Answering raises the refusal: `already_resolved` says in `resolution` who was first and how.
    """

    def __init__(self, run: Answers, said: ApprovalRequired, expires_at: datetime) -> None:
        self.id: Final = said.approval_id
        self.run_id: Final = run.run_id
        self.call_id: Final = said.tool_call_id
        self.tool: Final = said.tool
        self.label: Final = said.label
        self.reason: Final = said.reason
        self.risk: Final = said.risk
        self.args: Final[dict[str, Any]] = said.args
        self.args_schema: Final[dict[str, Any] | None] = said.args_schema
        self.args_digest: Final = said.args_digest
        self.editable: Final = said.editable
        self.preview: Final[Preview | None] = said.preview
        self.decisions: Final = tuple(said.decisions)
        self.remember_scopes: Final = tuple(said.remember_scopes)
        self.on_expire: Final = said.on_expire
        self.expires_at: Final = expires_at
        self._run = run

    def __repr__(self) -> str:
        return f"<Approval {self.id} {self.tool!r}>"

    async def approve(self, *, remember: Remember | Scope | None = None) -> Receipt:
        """What was seen here is what is approved: other arguments meanwhile are refused (`digest_mismatch`)."""
        return await self._run.approve(self.id, args_digest=self.args_digest, remember=remember)

    async def edit(self, args: dict[str, Any], *, remember: Remember | Scope | None = None) -> Receipt:
        """Approve with these top-level arguments instead. Raises `InvalidArgs` with `errors`; it stays open then."""
        return await self._run.approve(self.id, args=args, args_digest=self.args_digest, remember=remember)

    async def deny(self, reason: str | None = None) -> Receipt:
        """`reason` is shown to the model."""
        return await self._run.deny(self.id, reason=reason)


class Question:
    """A question of the agent. `schema` or `choices` say what an answer must be; neither: a text."""

    def __init__(self, run: Answers, said: InputRequired, expires_at: datetime) -> None:
        self.id: Final = said.input_id
        self.run_id: Final = run.run_id
        self.question: Final = said.question
        self.schema: Final[dict[str, Any] | None] = said.schema
        self.choices: Final = None if said.choices is None else tuple(said.choices)
        self.expires_at: Final = expires_at
        self._run = run

    def __repr__(self) -> str:
        return f"<Question {self.id}>"

    async def answer(self, answer: Any) -> Receipt:
        """Any JSON value that fits. Raises `InvalidArgs` with `errors`; it stays open then."""
        return await self._run.answer(self.id, answer)


class Asks:
    """The open ones of one run, each the same object for as long as it is open, oldest first."""

    def __init__(self, run: Answers, *, clock: Clock) -> None:
        self.approvals: tuple[Approval, ...] = ()
        self.questions: tuple[Question, ...] = ()
        self._run = run
        self._clock = clock
        self._fresh: dict[str, datetime] = {}
        self._seen: tuple[dict[str, Any], ...] = ()
        self._live = True

    def attached(self, frame: RunAttached) -> None:
        """It says how long is left now, whatever this machine's clock says."""
        for item in frame.pending:
            if isinstance(left_s := item.get("expires_in_s"), int | float):
                self._fresh[_id(item)] = self._in(left_s)

    def look(self, view: View, *, live: bool) -> None:
        """`live`: what is new in the view happened just now."""
        if view.pending is self._seen and live is self._live:
            return
        self._seen, self._live = view.pending, live
        open_before: list[Approval | Question] = [*self.approvals, *self.questions]
        known = {each.id: each for each in open_before}
        approvals: list[Approval] = []
        questions: list[Question] = []
        for item in view.pending:
            before = known.get(_id(item))
            if before is None and not live and _id(item) not in self._fresh:
                # History: what follows in the replay answers it, or it would have been in `run.attached`.
                continue
            match item.get("kind"):
                case "approval":
                    found = before if isinstance(before, Approval) else self._approval(item, live=live)
                    approvals.append(found)
                case "input":
                    asked = before if isinstance(before, Question) else self._question(item, live=live)
                    questions.append(asked)
        self.approvals, self.questions = tuple(approvals), tuple(questions)
        open_ids = {_id(item) for item in view.pending}
        self._fresh = {each: at for each, at in self._fresh.items() if each in open_ids or not live}

    def _approval(self, item: dict[str, Any], *, live: bool) -> Approval:
        return Approval(self._run, msgspec.convert(item, ApprovalRequired), self._deadline(item, live=live))

    def _question(self, item: dict[str, Any], *, live: bool) -> Question:
        return Question(self._run, msgspec.convert(item, InputRequired), self._deadline(item, live=live))

    def _deadline(self, item: dict[str, Any], *, live: bool) -> datetime:
        if (fresh := self._fresh.get(_id(item))) is not None:
            return fresh
        return self._in(item["expires_in_s"]) if live else datetime.fromisoformat(item["expires_at"])

    def _in(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC) + timedelta(seconds=seconds)


def _id(item: dict[str, Any]) -> str:
    return str(item.get("approval_id") or item.get("input_id") or item.get("tool_call_id"))
