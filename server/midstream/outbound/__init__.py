"""What leaves the server by its own doing: webhooks, and runs forwarded into chats."""

from midstream.outbound.chat_http import ChatChannel, SlackChannel, TelegramChannel
from midstream.outbound.contract import Channel, ChannelError, ChannelGone, RetryAfter
from midstream.outbound.forwarder import forward
from midstream.outbound.pace import Pace
from midstream.outbound.rendering import rendered, shortened

__all__ = [
    "Channel",
    "ChannelError",
    "ChannelGone",
    "ChatChannel",
    "Pace",
    "RetryAfter",
    "SlackChannel",
    "TelegramChannel",
    "forward",
    "rendered",
    "shortened",
]
