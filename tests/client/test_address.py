import pytest

from midstream.client import Address
from midstream.client.backoff import told_in


@pytest.mark.parametrize(
    ("url", "socket", "loopback"),
    [
        ("http://127.0.0.1:8484", "ws://127.0.0.1:8484/v1/ws?client_id=c%2F1", True),
        ("https://example.org/agents/", "wss://example.org/agents/v1/ws?client_id=c%2F1", False),
        ("ws://localhost:1", "ws://localhost:1/v1/ws?client_id=c%2F1", True),
        ("ws://localhost:1/agents/v1/ws", "ws://localhost:1/agents/v1/ws?client_id=c%2F1", True),
        ("http://localhost:1/v1/", "ws://localhost:1/v1/ws?client_id=c%2F1", True),
        ("http://localhost:1/v12", "ws://localhost:1/v12/v1/ws?client_id=c%2F1", True),
        ("wss://[::1]:8", "wss://[::1]:8/v1/ws?client_id=c%2F1", True),
        ("http://10.0.0.1", "ws://10.0.0.1/v1/ws?client_id=c%2F1", False),
    ],
)
def test_one_url_names_both_doors(url, socket, loopback):
    address = Address(url)
    assert address.socket(client_id="c/1") == socket
    assert address.web("/v1/runs").endswith("/v1/runs")
    assert address.web().startswith("http")
    assert address.loopback is loopback


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ('{"reconnect_in_s":1.5}', 1.5),
        ('{"reconnect_in_s":-1}', None),
        ("bye", None),
        ("[1]", None),
        ("", None),
        ("{}", None),
    ],
)
def test_when_to_come_back_stands_in_the_reason(reason, told):
    assert told_in(reason) == told
