"""One clear line for everything that can go wrong, saying what to do; and the exit codes."""

from typing import Final

from midstream.cli.invoked import invoked
from midstream.client import BadAddress, Disconnected, Pending, Unreachable
from midstream.client.safe_text import safe_line, safe_text
from midstream_protocol.errors import (
    AlreadyResolved,
    InvalidArgs,
    NotFound,
    ProtocolError,
    Unauthorized,
    UnknownAgent,
)
from midstream_protocol.events import RunCancelled, RunCompleted, RunFailed

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

EXIT_OF: Final = {
    RunCompleted.TYPE: EXIT_OK,
    RunFailed.TYPE: EXIT_FAILED,
    RunCancelled.TYPE: EXIT_INTERRUPTED,
}


class NothingWaits(Exception):
    """There is no one thing to answer; the text says what there is."""


Explained = (ProtocolError, Disconnected, Pending, BadAddress, NothingWaits)
"""What `explain` has words for; anything else is a defect."""

_HINTS: Final[dict[type[ProtocolError], str]] = {
    NotFound: "`{program} runs` lists the ones you may see",
    Unauthorized: "give its token with --token or MIDSTREAM_TOKEN",
    UnknownAgent: "`{program} agents` lists them",
}


def explain(error: Exception, *, url: str) -> str:
    """What happened and what to do, safe for a terminal."""
    match error:
        case Unreachable(status=None):
            return (
                f"no Midstream server answers at {safe_line(url)} ({safe_line(error.reason)});"
                f" start one with `{invoked()} serve`, or say where it is with --url or MIDSTREAM_URL"
            )
        case Unreachable():
            return f"the server at {safe_line(url)} refused the connection: {safe_line(error.reason)}"
        case Disconnected():
            return f"the server at {safe_line(url)} ended the connection: {safe_line(error.reason or str(error.code))}"
        case AlreadyResolved():
            return f"it was answered already{_resolution(error)}"
        case InvalidArgs() if error.errors:
            wrong = "; ".join(f"{each.path or '/'}: {each.text}" for each in error.errors)
            return f"the arguments do not fit: {safe_line(wrong)}"
        case ProtocolError():
            hint = next((f"; {text}" for kind, text in _HINTS.items() if isinstance(error, kind)), "")
            return f"{safe_line(error.text)} ({safe_line(error.code)}){hint.format(program=invoked())}"
    return safe_text(str(error))


def _resolution(error: AlreadyResolved) -> str:
    if error.resolution is None:
        return ""
    decision, by = error.resolution.get("decision"), error.resolution.get("by")
    return f": {safe_line(str(decision))}" + (f" by {safe_line(str(by))}" if by else "")
