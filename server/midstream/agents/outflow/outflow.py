"""The way out of a program: transform → enrich → process, for every drafted event, each phase with its own boundary.

Fail closed: a function that raises costs the texts of that event, never the run, and never shows what it would have
left out. Enrichment fails open: it only adds.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from midstream.agents.conversation import calls_of, decode_message
from midstream.agents.outflow.contract import Audience, Outflow
from midstream.agents.outflow.enrich import Enrichment
from midstream.agents.outflow.exact import HIDDEN
from midstream.agents.outflow.known import Secrets, known_secrets, process_secrets
from midstream.agents.outflow.leakage import TextFilter, text_filter_for
from midstream.agents.outflow.process import HiddenTools
from midstream.agents.outflow.transform import DROPPED, clean, kept, masked
from midstream.clock import Clock
from midstream.log import JournalRecord
from midstream.logs import Logger
from midstream.runs.contract import CallRecord
from midstream.runs.port import Port
from midstream_protocol.events import (
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    MessageSuperseded,
    Payload,
    UsageUpdated,
)

_END: Final = "msg_end"
"""The message that a run's last words would be of."""

_log = Logger("midstream.agents")


class Outlet:
    """An app's outflow, for all runs of a process: what its catalogues say is asked once."""

    def __init__(self, outflow: Outflow, *, clock: Clock | None = None) -> None:
        self._outflow = outflow
        self._enrichment = Enrichment(outflow, clock=clock)
        self._texts = (*outflow.secrets, *process_secrets(os.environ))

    def passage(self, port: Port, *, agent: str, system: Iterable[str] = ()) -> "Passage":
        """The way out of this run of `agent`. `system`: all that its models are told as system text."""
        outflow, start = self._outflow, port.start
        return Passage(
            outflow,
            Audience(run_id=start.run_id, thread_id=start.thread_id, agent=agent, principal=start.principal),
            secrets=known_secrets(texts=self._texts, system=system, environ={}, guess=outflow.guess),
            enrichment=self._enrichment,
            journal=port.journal,
        )


class Passage:
    """One run's way out (`runs.contract.Filter`). `secrets` are the run's, `enrichment` the process's; without, they
    are made of `outflow`. `journal` is the run's so far: whose its calls are.
    """

    def __init__(
        self,
        outflow: Outflow,
        audience: Audience,
        *,
        secrets: Secrets | None = None,
        enrichment: Enrichment | None = None,
        journal: Iterable[JournalRecord] = (),
    ) -> None:
        self.secrets = secrets if secrets is not None else known_secrets(texts=outflow.secrets, guess=outflow.guess)
        self._outflow = outflow
        self._audience = audience
        self._enrichment = enrichment if enrichment is not None else Enrichment(outflow)
        calls = _calls(journal) if outflow.hidden_tools is not None else ()
        self._hidden = HiddenTools(outflow, audience, calls=calls)
        self._new_filter = text_filter_for(outflow, secrets=self.secrets)
        self._messages: dict[str, _Message] = {}
        self._reported: set[tuple[str, str]] = set()
        self._bare = not outflow.transform and not outflow.process

    async def passed(self, payload: Payload) -> Payload | None:
        """What is shown of it; None: nothing."""
        shown = self._transformed(payload)
        if shown is not None:
            shown = self._processed(await self._enrichment.enriched(shown))
        return self._told(payload, shown)

    def delta(self, message_id: str, text: str) -> str | None:
        """What passes most, where an app has no functions of its own."""
        if not self._bare:
            return None
        shown = self.secrets.exact.replaced(text)
        message = self._messages.get(message_id)
        if message is not None:
            message.add(text, shown)
        return shown

    def passed_now(self, payload: Payload) -> Payload | None:
        """The same without waiting: of the catalogues only what they have said already."""
        shown = self._transformed(payload)
        if shown is not None:
            shown = self._processed(self._enrichment.enriched_now(shown))
        return self._told(payload, shown)

    async def leaving(self, value: Any) -> Any:
        """What the run says at its end: its result, or why it failed. A text as if it had been said in one piece; of
        any other value, the known secrets are hidden.
        """
        if not isinstance(value, str):
            return self.secrets.told(value)
        text = await self._new_filter().whole(value)
        shown = self._transformed(MessageDelta(message_id=_END, text=text))
        shown = None if shown is None else self._processed(shown)
        return shown.text if isinstance(shown, MessageDelta) else HIDDEN

    def text_filter(self, tools: Callable[[], Iterable[str]] | None = None) -> Callable[[], TextFilter]:
        """Makes the filter of a message's text, by this run's secrets. `tools`: the names of its tools, for `leaving`
        too.
        """
        names = None if tools is None else lambda: frozenset(tools())
        self._new_filter = text_filter_for(self._outflow, secrets=self.secrets, tools=names)
        return self._new_filter

    # -- the phases

    def _transformed(self, payload: Payload) -> Payload | None:
        if isinstance(payload, UsageUpdated):
            return payload
        shown: Payload | None = self._safely("transform", clean, payload, self.secrets)
        for transform in self._outflow.transform:
            if shown is None:
                break
            shown = self._safely("transform", transform, shown)
        return shown

    def _processed(self, payload: Payload) -> Payload | None:
        if isinstance(payload, UsageUpdated):
            return payload
        shown: Payload | None = self._safely("process", self._hidden.passed, payload)
        for process in self._outflow.process:
            if shown is None:
                break
            shown = self._safely("process", process, shown, self._audience)
        return shown

    def _safely(self, phase: str, fn: Callable[..., Payload | None], payload: Payload, *more: Any) -> Payload | None:
        """What a function makes of the payload, as far as it may."""
        try:
            made = fn(payload, *more)
            if made is None:
                return _less(payload)
            shown, meddled = kept(payload, made)
        except Exception as error:  # noqa: BLE001 - the app's function may raise anything
            self._report(phase, fn, payload, "failed", exc_info=error)
            return _less(payload)
        if meddled:
            self._report(phase, fn, payload, "changed what it may not, which was put back")
        return shown

    def _report(self, phase: str, fn: object, payload: Payload, what: str, **more: Any) -> None:
        """Once a run for a function and a type: it may be asked for every delta."""
        name = getattr(fn, "__qualname__", type(fn).__name__)
        if (name, payload.TYPE) not in self._reported:
            self._reported.add((name, payload.TYPE))
            _log.error(f"outflow: {phase} {what}", function=name, of=payload.TYPE, run=self._audience.run_id, **more)

    # -- messages: what was shown of each is what its end says

    def _told(self, payload: Payload, shown: Payload | None) -> Payload | None:
        match payload:
            case MessageStarted():
                self._messages[payload.message_id] = _Message()
            case MessageSuperseded():
                self._messages.pop(payload.message_id, None)
            case MessageDelta() if payload.message_id in self._messages:
                text = shown.text if isinstance(shown, MessageDelta) else ""
                self._messages[payload.message_id].add(payload.text, text)
                return shown if text else None
            case MessageCompleted() if payload.message_id in self._messages:
                whole = self._messages.pop(payload.message_id).shown_of(payload.text)
                return shown if whole is None or shown is None else msgspec.structs.replace(shown, text=whole)
        return shown


class _Message:
    """An open message: what its deltas said and what was shown of them, of the newest two each for itself."""

    def __init__(self) -> None:
        self._length = 0
        self._shown: list[str] = []
        self._before: tuple[str, str] | None = None
        self._last: tuple[str, str] | None = None

    def add(self, said: str, shown: str) -> None:
        settled, self._before, self._last = self._before, self._last, (said, shown)
        if settled is not None:
            self._length += len(settled[0])
            self._shown.append(settled[1])

    def shown_of(self, said: str) -> str | None:
        """What was shown of `said`, all deltas joined; None: these are not its deltas.

        A delta may have been given up on its way, when its speaker was stopped: the newest, or the one before the rest
        of the text.
        """
        tail = said[self._length :]
        two = [each for each in (self._before, self._last) if each is not None]
        for newest in (two, two[:-1], two[1:]):
            if tail == "".join(part for part, _ in newest):
                return "".join([*self._shown, *(text for _, text in newest)])
        return None


def _less(payload: Payload) -> Payload | None:
    """The least that must be shown of it."""
    return None if isinstance(payload, DROPPED) else masked(payload)


def _calls(journal: Iterable[JournalRecord]) -> Iterable[tuple[str, str]]:
    """(id, tool) of the calls that a program before this one has seen."""
    for record in journal:
        if record.kind == "call":
            yield record.key, msgspec.json.decode(record.data, type=CallRecord).tool
        elif record.kind == "message":
            yield from ((call.id, call.tool) for call in calls_of(decode_message(record.data)))
