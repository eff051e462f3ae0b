"""Running a command in the folder, in a process group of its own, which is gone when the call is over - however it
ended, also when the server is killed. A program that leaves its group (`setsid`) is beyond reach, and one that runs as
the server's user can read what that user can, the server's own memory included; a sandbox, not this, would hold it.
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
from midstream.agents.tools.settle import settled
from midstream.agents.workspace.folder import Folder
from midstream.runs.contract import Stopping
from midstream.tasks import spawn, stop

DEFAULT_TIMEOUT_S: Final = 120
MAX_TIMEOUT_S: Final = 600

MAX_HEAD: Final = 10_000
MAX_TAIL: Final = 18_000
"""Bytes of output kept from the beginning and from the end: the end is where it says what went wrong."""

STOPPED: Final = "The command was stopped before it had ended."

TERM_GRACE_S: Final = 0.4
"""Seconds between SIGTERM and SIGKILL. A cancelled command must be gone within a second."""

PROGRESS_S: Final = 0.5
PROGRESS_CHARS: Final = 400
_CHUNK: Final = 64 * 1024

_GUARD: Final = 'read -r group && { read -r _ || kill -KILL "-$group"; }'
"""Waits for the end of its input, which comes when the server ends, however that ends. A parent-death signal would
reach the shell alone, and not what it has started.
"""

_GUARDED: Final = 'echo $$ >&0 && exec /bin/sh -c "$1" </dev/null'
"""Tells the guard its group before anything else: whenever the server is killed, the guard knows."""

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
    output, news = Output(), asyncio.Event()
    async with _guard() as guard, _pipe() as (stream, write_end):
        process = await _started(command, cwd=cwd, guard=guard, write_end=write_end)
        reading = spawn(_read(stream, output, news), name=f"output:{context.tool_call_id}")
        telling = spawn(_tell(output, news, context), name=f"output:{context.tool_call_id}/progress")
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
            raise ToolError(STOPPED) from None
        finally:
            await stop(reading, telling)
    code = process.returncode
    ended = f"stopped by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return f"{ended}\n{output.text() or '(no output)'}"


async def _started(command: str, *, cwd: Path, guard: int, write_end: int) -> asyncio.subprocess.Process:
    """The command's shell. The write end is closed here: only the command holds it open."""
    made: list[asyncio.subprocess.Process] = []

    async def start() -> None:
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            _GUARDED,
            "sh",
            command,
            cwd=cwd,
            env={**environment, "TERM": "dumb"},
            stdin=guard,
            stdout=write_end,
            stderr=write_end,
            start_new_session=True,
        )
        made.append(process)

    try:
        # Left half way, asyncio would kill the shell alone, and not what it has started already.
        await settled(start(), name="command")
    except (OSError, ValueError) as error:
        raise ToolError(f"The command could not be started: {type(error).__name__}.") from error
    except asyncio.CancelledError:
        for process in made:
            await end_group(process)
        raise ToolError(STOPPED) from None
    finally:
        os.close(write_end)
    return made[0]


@contextlib.asynccontextmanager
async def _guard() -> AsyncIterator[int]:
    """Where a process group is told that is to end with the server, even if that is killed."""
    read_end, write_end = os.pipe()
    guard = None
    try:
        try:
            guard = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _GUARD,
                env={},
                stdin=read_end,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(f"The command could not be started: {type(error).__name__}.") from error
        finally:
            os.close(read_end)
        yield write_end
    finally:
        # Before its input ends: the group is gone, and its number may be another's soon.
        if guard is not None:
            with contextlib.suppress(ProcessLookupError):
                guard.kill()
        os.close(write_end)
        if guard is not None:
            await guard.wait()


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
    """A pipe to read, and the end to write into. A pipe of asyncio's own would make `process.wait` wait for whoever
    inherited it.
    """
    read_end, write_end = os.pipe()
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    try:
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream),
            open(read_end, "rb", buffering=0),  # noqa: ASYNC230, PTH123, SIM115 - a descriptor; the transport closes it
        )
    except BaseException:
        os.close(write_end)
        raise
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


async def _read(stream: asyncio.StreamReader, output: Output, news: asyncio.Event) -> None:
    while data := await stream.read(_CHUNK):
        output.add(data)
        news.set()


async def _tell(output: Output, news: asyncio.Event, context: ToolContext) -> None:
    """Apart from the reading: while the log is slow this waits, and no output may be lost for it."""
    while await news.wait():
        news.clear()
        # A run that has ended shows nothing any more; the command is stopped by who ended it.
        with contextlib.suppress(Stopping):
            await context.progress(output.end())
        await asyncio.sleep(PROGRESS_S)


async def end_group(process: asyncio.subprocess.Process) -> None:
    """End the command's whole process group: asked first, then killed. A second cancellation kills at once."""
    if not _signal(process, signal.SIGTERM):
        return
    gone = False
    try:
        async with asyncio.timeout(TERM_GRACE_S):
            await process.wait()
            # Nothing tells when the last process of a group has gone.
            while _signal(process, 0):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            gone = True
    except TimeoutError:
        pass
    finally:
        if not gone:
            _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: int) -> bool:
    """Whether any of its group was there to get it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # It leads its own session, so its id is the group's.
        os.killpg(process.pid, number)
        return True
    return False
