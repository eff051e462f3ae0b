"""What the forwarder asks of a chat platform: a message that can be written and changed, and words for refusals."""

from typing import Protocol


class ChannelError(Exception):
    """What a channel raises. As it is: something that may pass, tried again after a growing wait.

    ChannelError
    ├── RetryAfter     the platform named a time to wait
    └── ChannelGone    nothing more can be said there: the message, the chat or the right to write is gone
    """


class RetryAfter(ChannelError):
    """`seconds` until the platform takes something again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"wait {seconds:g} s")
        self.seconds = seconds


class ChannelGone(ChannelError):
    pass


class Channel(Protocol):
    """One chat. A handle is the platform's name of a message, for as long as it exists: it may be stored."""

    @property
    def max_chars(self) -> int:
        """Of one message, in UTF-16 units."""
        ...

    async def open(self, text: str) -> str:
        """Write a message; returns its handle. Raises `ChannelError`."""
        ...

    async def edit(self, handle: str, text: str) -> None:
        """Change it. The same text again is no error. Raises `ChannelError`."""
        ...
