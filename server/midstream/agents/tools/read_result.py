"""The built-in tool by which a model reads again what was shortened to fit its window. It changes nothing."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from midstream.agents.tools.context import ToolError
from midstream.agents.tools.definition import Tool, tool
from midstream.agents.tools.shown import in_text
from midstream.log import JournalRecord
from midstream.runs.contract import ResultRecord

DEFAULT_SLICE_CHARS: Final = 8_000

WholeResult = Callable[[str], Awaitable[str | None]]
"""From the id of a call of this conversation to its whole result; None if there is none."""


# What it gives was hidden from people where its own tool says so: nobody sees it again here.
@tool(name="read_result", label="Read a result again", idempotent=True, redact=("text",))
async def read_result(call_id: str, offset: int = 0) -> dict[str, Any]:
    """Read the whole result of an earlier call that is shown shortened, one part at a time.

    Use it only for what you still need. `next_offset` of the answer is where the next part begins, null at the end.

    Args:
        call_id: The id that the note in the shortened result names.
        offset: The character to begin at.
    """
    raise NotImplementedError(call_id, offset)


def reading(whole: WholeResult, *, slice_chars: int = DEFAULT_SLICE_CHARS) -> Tool:
    """`read_result` for one conversation, at most `slice_chars` characters at a time."""

    async def read(call_id: str, offset: int) -> dict[str, Any]:
        text = await whole(call_id)
        if text is None:
            raise ToolError("There is no result of a call with this id. The note in a shortened result names it.")
        if not 0 <= offset < max(1, len(text)):
            raise ToolError(f"This result has {len(text):,} characters: offset must be 0 to {max(0, len(text) - 1)}.")
        end = offset + slice_chars
        return {
            "text": text[offset:end],
            "offset": offset,
            "characters": len(text),
            "next_offset": end if end < len(text) else None,
        }

    return msgspec.structs.replace(read_result, fn=read)


def result_in(journal: Iterable[JournalRecord], call_id: str) -> str | None:
    """The whole result of that call as a journal has it. The first counts, as for the model."""
    for record in journal:
        if record.kind == "result" and record.key == call_id:
            result = msgspec.json.decode(record.data, type=ResultRecord)
            return in_text(result.value) if result.ok else f"{result.error}: {result.text or 'the call failed'}"
    return None
