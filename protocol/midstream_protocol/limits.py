"""What a peer may put into one frame. Each limit is counted before the thing it limits is built.

Settable limits are the server's (see its settings); these are the ones every peer can rely on.
"""

from typing import Final

MAX_DEPTH: Final = 32
"""Levels of nesting in one frame: deep enough for any tool's arguments, far from the parser's recursion limit."""

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer a JavaScript client reads exactly; the smallest is its negative."""

MAX_FRAME_BYTES: Final = 1024 * 1024
"""Bytes of one inbound frame, and the default of the server's setting of that name."""

MAX_INPUT_BYTES: Final = 256 * 1024
"""Bytes of text in one `run.start` input or one correction."""

MAX_TOOL_RESULT_BYTES: Final = 512 * 1024
"""Bytes of one client-run tool's result."""

MAX_PREVIEW_CHARS: Final = 2_000
"""Characters of a tool result's preview in an event: what a person reads, not what the model gets."""

MAX_TEXT_CHARS: Final = 2_000
"""Characters of a reason, a title or an error text."""

COMMANDS_IN_FLIGHT: Final = 64
"""Commands one connection may have unanswered."""

MAX_CLIENT_TOOLS: Final = 64
"""Tools one client may offer to one run."""

MAX_VALUE_DEPTH: Final = 24
"""Levels of nesting in one open value (arguments, an answer, an object's data). Less than `MAX_DEPTH`, because a
snapshot repeats the value up to eight levels deeper than the event that brought it."""

MAX_VALUE_ITEMS: Final = 100_000
"""Items in one value that agent code hands over for display; what is beyond is cut."""
