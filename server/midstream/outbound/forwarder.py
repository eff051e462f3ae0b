"""A run forwarded into a chat: one message that is changed as the run goes on, as often as the platform allows.

What happens between two edits becomes one; only the newest state is ever sent, and the last one always is.
"""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from typing import Final

from midstream.clock import Clock, SystemClock
from midstream.log import LogError
from midstream.logs import Logger
from midstream.outbound.contract import Channel, ChannelError, ChannelGone, RetryAfter
from midstream.outbound.pace import DEFAULT_INTERVAL_S, Pace
from midstream.outbound.rendering import rendered
from midstream.outbound.retrying import delay_s
from midstream.runs import Principal, Registry, Subscription, SubscriptionLost
from midstream.runs.replay import own_event
from midstream_protocol.errors import QuotaExceeded, Unavailable
from midstream_protocol.events import TERMINAL_STATUSES
from midstream_protocol.view import View, fold_all, view_from_builtins

GIVE_UP_AFTER_S: Final = 3600.0
"""How long a platform may refuse everything before the forwarder ends with its last refusal."""

_PULL_EVENTS: Final = 1024
_PULL_BYTES: Final = 1 << 20

Render = Callable[[View, int], str]
"""A view as text of at most so many UTF-16 units."""

_log = Logger("midstream.forwarder")


async def forward(
    registry: Registry,
    run_id: str,
    channel: Channel,
    *,
    principal: Principal,
    handle: str | None = None,
    opened: Callable[[str], Awaitable[None] | None] | None = None,
    interval_s: float = DEFAULT_INTERVAL_S,
    pace: Pace | None = None,
    render: Render = rendered,
    give_up_after_s: float = GIVE_UP_AFTER_S,
    clock: Clock | None = None,
    fraction: Callable[[], float] = random.random,
) -> str:
    """Follow the run to its end, and return the message's handle once its last state is there.

    `handle`: go on with that message, as after a restart; `opened` is told the handle of a new one, to be kept for
    that.
    `interval_s`: between two calls; or give forwarders into one chat the same `pace`. Raises `NotFound`, `ChannelGone`,
    and the last `ChannelError` when the platform took nothing for `give_up_after_s`.
    """
    clock = clock or SystemClock()
    pace = pace or Pace(interval_s, clock=clock)
    follower = _Follower(registry, principal, run_id)
    message = _Message(channel, pace, handle=handle, opened=opened)
    trouble = _Trouble(clock, give_up_after_s=give_up_after_s, fraction=fraction, run_id=run_id)
    try:
        while True:
            await follower.moved.wait()
            async with pace.turn():
                try:
                    view = await follower.view()
                    new = await message.show(render(view, channel.max_chars))
                except ChannelGone:
                    raise
                except (ChannelError, LogError, Unavailable, QuotaExceeded, OSError, TimeoutError) as error:
                    wait = trouble.again(error)
                    if isinstance(error, RetryAfter):
                        pace.hold(error.seconds)
                        wait = 0.0
                    follower.moved.set()
                else:
                    trouble.over()
                    if view.status in TERMINAL_STATUSES:
                        return message.handle
                    # What changes nothing may come often, and need not be looked at each time.
                    wait = 0.0 if new else pace.interval_s / 4
            # Not within the turn: others may be luckier.
            await clock.sleep(wait)
    finally:
        follower.close()


class _Message:
    """What the chat shows."""

    def __init__(
        self,
        channel: Channel,
        pace: Pace,
        *,
        handle: str | None,
        opened: Callable[[str], Awaitable[None] | None] | None,
    ) -> None:
        self.handle = handle or ""
        self._channel = channel
        self._pace = pace
        self._opened = opened
        self._shown: str | None = None

    async def show(self, text: str) -> bool:
        """Whether that is new there. Raises `ChannelError`."""
        if text == self._shown:
            return False
        try:
            if self.handle:
                await self._channel.edit(self.handle, text)
            else:
                self.handle = await self._channel.open(text)
                told = self._opened(self.handle) if self._opened is not None else None
                if inspect.isawaitable(told):
                    await told
        finally:
            self._pace.spent()
        self._shown = text
        return True


class _Follower:
    """The run's view, kept up to date by its events. `moved`: there may be something new."""

    def __init__(self, registry: Registry, principal: Principal, run_id: str) -> None:
        self.moved: Final = asyncio.Event()
        self.moved.set()
        self._registry = registry
        self._principal = principal
        self._run_id = run_id
        self._subscription: Subscription | None = None
        self._view: View | None = None

    async def view(self) -> View:
        """As it is now. Raises `NotFound`, `Unavailable`, `QuotaExceeded`, `LogError`."""
        self.moved.clear()
        while True:
            if self._subscription is None or self._view is None:
                self._subscription, self._view = await self._attached()
            try:
                events = await self._subscription.pull(max_events=_PULL_EVENTS, max_bytes=_PULL_BYTES)
            except SubscriptionLost:
                # Too far behind, or in a history that is no more: from its newest state on.
                self.close()
                continue
            if not events:
                return self._view
            self._view = fold_all(map(own_event, events), self._view)

    async def _attached(self) -> tuple[Subscription, View]:
        attachment = await self._registry.attach(self._principal, self._run_id, wake=self.moved.set, replay="snapshot")
        assert attachment.reset is not None
        return attachment.subscription, view_from_builtins(attachment.reset.snapshot)

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None


class _Trouble:
    """How long nothing was taken, and how long to wait then."""

    def __init__(self, clock: Clock, *, give_up_after_s: float, fraction: Callable[[], float], run_id: str) -> None:
        self._clock = clock
        self._give_up_after_s = give_up_after_s
        self._fraction = fraction
        self._run_id = run_id
        self._failures = 0
        self._since = 0.0

    def over(self) -> None:
        self._failures = 0

    def again(self, error: Exception) -> float:
        """Seconds until the next try. Raises `error` if it has been long enough."""
        self._failures += 1
        now = self._clock.monotonic()
        if self._failures == 1:
            self._since = now
            _log.info("a forwarded message waits", run=self._run_id, why=str(error))
        elif now - self._since >= self._give_up_after_s:
            raise error
        return delay_s(self._failures, slow=False, told=None, fraction=self._fraction())
