"""What uvicorn is told of the settings."""

import pytest

from midstream.gateway.options import OVERSIZE_FACTOR
from midstream.serving import server_config
from midstream.settings import Settings


async def nothing(*_: object) -> None: ...


def test_pings_and_frames_are_as_they_were_set_and_nothing_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_PING_INTERVAL_S", "7")
    monkeypatch.setenv("MIDSTREAM_PING_TIMEOUT_S", "3")
    monkeypatch.setenv("MIDSTREAM_MAX_FRAME_BYTES", "4096")
    config = server_config(nothing, Settings())
    assert (config.ws_ping_interval, config.ws_ping_timeout) == (7.0, 3.0)
    assert config.ws_max_size == 4096 * OVERSIZE_FACTOR
    assert config.ws_per_message_deflate is False
