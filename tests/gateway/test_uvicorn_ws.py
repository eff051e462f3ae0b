"""The frames we write ourselves are what a client's parser reads, and what the library itself would have written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from midstream.gateway.socket import Gone, Socket, Stalled
from midstream.gateway.uvicorn_ws import EXTENSION, unmasked
from tests.testkit.served import served

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", [True, False])
def test_headers_at_every_boundary(size: int, text: bool) -> None:
    body = b"x" * size
    library = Frame(Opcode.TEXT if text else Opcode.BINARY, body).serialize(mask=False)
    assert unmasked([body], text=text) == library


@given(st.lists(st.binary(max_size=200)))
def test_many_frames_are_their_frames_one_after_the_other(frames: list[bytes]) -> None:
    assert unmasked(frames, text=False) == b"".join(Frame(Opcode.BINARY, f).serialize(mask=False) for f in frames)


class Once:
    """An application that sends the same frames to whoever connects, then closes; with or without the extension."""

    def __init__(self, frames: list[bytes], *, text: bool, extension: bool) -> None:
        self.frames = frames
        self.text = text
        self.extension = extension

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert EXTENSION in scope["extensions"]
        if not self.extension:
            scope = {**scope, "extensions": {}}
        socket = Socket(scope, receive, send, send_timeout_s=5)
        await socket.accept(None)
        await socket.send(self.frames, text=self.text)
        await socket.close(4001, "done")
        with pytest.raises((Gone, Stalled)):
            await socket.send(self.frames, text=self.text)


@pytest.mark.asyncio
@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize("text", [True, False])
async def test_a_client_gets_the_same_with_and_without_the_extension(extension: bool, text: bool) -> None:
    frames = [("ü" * size).encode() for size in SIZES]
    async with served(Once(frames, text=text, extension=extension)) as server, server.websocket("/") as socket:
        got = [await socket.recv() for _ in frames]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4001, "done")
    assert [m.encode() if isinstance(m, str) else m for m in got] == frames
    assert {type(m) for m in got} == {str if text else bytes}
