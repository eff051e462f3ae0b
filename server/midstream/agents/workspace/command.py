"""Running a command in the folder, in a process group of its own, which is gone when the call is over - however it
ended. A program that leaves its group (`setsid`) is beyond reach; a sandbox, not this, would hold it.
"""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from midstream.agents.tools.context import ToolContext, ToolError
from midstream.agents.tools.definition import Preview, Tool, tool
from midstream.agents.workspace.folder import Folder
from midstream.runs.contract import Stopping
from midstream.tasks import spawn, stop

DEFAULT_TIMEOUT_S: Final = 120
MAX_TIMEOUT_S: Final = 600

MAX_HEAD: Final = 10_000
MAX_TAIL: Final = 18_000
"""Bytes of output kept from the beginning and from the end: the end is where it says what went wrong."""

TERM_GRACE_S: Final = 0.4
"""Seconds between SIGTERM and SIGKILL. A cancelled command must be gone within a second."""

PROGRESS_S: Final = 0.5
PROGRESS_CHARS: Final = 400
_CHUNK: Final = 64 * 1024

KEPT_VARIABLES: Final = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "JAVA_HOME", "NVM_DIR", "PYENV_ROOT", "CARGO_HOME", "GOPATH", "SSL_CERT_FILE",
)  # fmt: skip
"""All that a command gets of the server's environment: its keys are not for a model's commands."""


def command_tool(folder: Folder) -> Tool:
    """`run_command` over one folder."""

    def preview(args: Any) -> Preview:
        return Preview(kind="command", data=args.command)

    @tool(
        approval="always",
        risk="high",
        on_unknown="ask",
        preview=preview,
        label="Run {command}",
        timeout=MAX_TIMEOUT_S + 10,
    )
    async def run_command(command: str, ctx: ToolContext, timeout_s: int = DEFAULT_TIMEOUT_S) -> str:
        """Run a shell command in the workspace and return its exit code and output. The user decides first.

        It gets no input, and what it leaves running in the background is stopped when it ends.

        Args:
            command: The command line, for `sh`.
            ctx: The call.
            timeout_s: Seconds it may take, 600 at most.
        """
        return await run(command, cwd=folder.root, timeout_s=max(1, min(timeout_s, MAX_TIMEOUT_S)), context=ctx)

    return run_command


async def run(command: str, *, cwd: Path, timeout_s: float, context: ToolContext) -> str:
    """Raises `ToolError` when it did not start or end in time, also when it was cancelled: its end is then known."""
    output = Output()
    async with _pipe() as (stream, write_end):
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                command,
                cwd=cwd,
                env={**{name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}, "TERM": "dumb"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ToolError(f"The command could not be started: {type(error).__name__}.") from error
        finally:
            os.close(write_end)
        reading = spawn(_read(stream, output, context), name=f"output:{context.tool_call_id}")
        try:
            async with asyncio.timeout(timeout_s):
                await process.wait()
            await end_group(process)
            # Its own output is there already; only what left its group could still hold the pipe open.
            await asyncio.wait({reading}, timeout=TERM_GRACE_S)
        except TimeoutError:
            await end_group(process)
            raise ToolError(f"The command took more than {timeout_s:g} s and was stopped.\n{output.text()}") from None
        except asyncio.CancelledError:
            await end_group(process)
            raise ToolError("The command was stopped before it had ended.") from None
        finally:
            await stop(reading)
    code = process.returncode
    ended = f"stopped by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return f"{ended}\n{output.text() or '(no output)'}"


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
    """A pipe to read, and the end to write into. A pipe of asyncio's own would make `process.wait` wait for whoever
    inherited it.
    """
    read_end, write_end = os.pipe()
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream),
        open(read_end, "rb", buffering=0),  # noqa: ASYNC230, PTH123, SIM115 - a descriptor, which the transport closes
    )
    try:
        yield stream, write_end
    finally:
        transport.close()


class Output:
    """What a command wrote, as much as is kept of it."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._left_out = 0

    def add(self, data: bytes) -> None:
        room = MAX_HEAD - len(self._head)
        self._head += data[:room]
        rest = data[room:] if room > 0 else data
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
        while self._tail and self._tail_size - len(self._tail[0]) >= MAX_TAIL:
            gone = self._tail.popleft()
            self._tail_size -= len(gone)
            self._left_out += len(gone)

    def text(self) -> str:
        tail = b"".join(self._tail)
        left_out = self._left_out + max(0, len(tail) - MAX_TAIL)
        tail = tail[-MAX_TAIL:]
        if not left_out:
            return (bytes(self._head) + tail).decode(errors="replace")
        note = f"\n… [{left_out:,} bytes left out] …\n"
        return f"{self._head.decode(errors='replace')}{note}{tail.decode(errors='replace')}"

    def end(self) -> str:
        """The last of it, for people who watch."""
        last = self._tail[-1] if self._tail else bytes(self._head)
        return last[-PROGRESS_CHARS:].decode(errors="replace")


async def _read(stream: asyncio.StreamReader, output: Output, context: ToolContext) -> None:
    loop = asyncio.get_running_loop()
    told = loop.time() - PROGRESS_S
    while data := await stream.read(_CHUNK):
        output.add(data)
        if loop.time() - told >= PROGRESS_S:
            told = loop.time()
            # A run that has ended shows nothing any more; the command is stopped by who ended it.
            with contextlib.suppress(Stopping):
                await context.progress(output.end())


async def end_group(process: asyncio.subprocess.Process) -> None:
    """End the command's whole process group: asked first, then killed. A second cancellation kills at once."""
    if not _signal(process, signal.SIGTERM):
        return
    try:
        async with asyncio.timeout(TERM_GRACE_S):
            await process.wait()
            # Nothing tells when the last process of a group has gone.
            while _signal(process, 0):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        pass
    finally:
        _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: int) -> bool:
    """Whether any of its group was there to get it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # It leads its own session, so its id is the group's.
        os.killpg(process.pid, number)
        return True
    return False
