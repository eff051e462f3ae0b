import pytest

from midstream.gateway.origin import crosses, door_rules, host_name, is_loopback, parse_origin, refusal

LOCAL = door_rules(
    bound_host="127.0.0.1",
    allowed_hosts=("App.Example.",),
    allowed_origins=("https://ide.example", "vscode-webview://abc"),
)
EVERYWHERE = door_rules(bound_host="0.0.0.0", allowed_hosts=(), allowed_origins=())


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("127.0.0.1:8484", True),
        ("127.0.0.1", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("localhost.", True),
        ("[::1]:8484", True),
        ("app.example", True),
        ("APP.example:443", True),
        ("sub.app.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example", False),
        ("10.0.0.5", False),
        ("localhost@evil.example", False),
        ("localhost:notaport", False),
        ("localhost/evil", False),
        ("", False),
        (None, False),
    ],
)
def test_hosts(host: str | None, fine: bool) -> None:
    assert (refusal(LOCAL, scheme="http", host=host, origin=None) is None) is fine


@pytest.mark.parametrize(
    ("host", "fine"), [("10.0.0.5:8484", True), ("[fe80::1]", True), ("evil.example", False), ("midstream", False)]
)
def test_a_server_on_every_address_takes_addresses_but_no_names(host: str, fine: bool) -> None:
    assert (refusal(EVERYWHERE, scheme="http", host=host, origin=None) is None) is fine


@pytest.mark.parametrize(
    ("origin", "fine"),
    [
        (None, True),
        ("http://localhost:8484", True),
        ("HTTP://LOCALHOST:8484", True),
        ("https://localhost:8484", False),
        ("http://localhost", False),
        ("http://localhost:8485", False),
        ("http://127.0.0.1:8484", False),
        ("http://localhost:8484.evil.example", False),
        ("http://localhost:8484@evil.example", False),
        ("http://evil.example#http://localhost:8484", False),
        ("http://localhost:8484/", False),
        ("https://ide.example", True),
        ("https://ide.example:443", True),
        ("http://ide.example", False),
        ("https://ide.example.evil.example", False),
        ("https://notide.example", False),
        ("vscode-webview://abc", True),
        ("vscode-webview://abd", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("http://[::1", False),
        (" http://localhost:8484", False),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_origins(scheme: str, origin: str | None, fine: bool) -> None:
    assert (refusal(LOCAL, scheme=scheme, host="localhost:8484", origin=origin) is None) is fine


def test_default_ports_are_the_same_origin() -> None:
    assert refusal(LOCAL, scheme="http", host="localhost", origin="http://localhost:80") is None
    assert refusal(LOCAL, scheme="wss", host="localhost", origin="https://localhost") is None
    assert refusal(LOCAL, scheme="wss", host="localhost", origin="http://localhost") is not None


def test_a_star_opens_one_check_and_not_the_other() -> None:
    any_host = door_rules(bound_host="127.0.0.1", allowed_hosts=("*",), allowed_origins=())
    assert refusal(any_host, scheme="http", host="any.example", origin=None) is None
    assert refusal(any_host, scheme="http", host="any.example", origin="http://other.example") is not None
    any_origin = door_rules(bound_host="127.0.0.1", allowed_hosts=(), allowed_origins=("*",))
    assert refusal(any_origin, scheme="http", host="localhost", origin="null") is None
    assert refusal(any_origin, scheme="http", host="any.example", origin=None) is not None


def test_refusals_name_what_to_set() -> None:
    assert "MIDSTREAM_ALLOWED_HOSTS" in (refusal(LOCAL, scheme="http", host="x.example", origin=None) or "")
    assert "MIDSTREAM_ALLOWED_ORIGINS" in (
        refusal(LOCAL, scheme="http", host="localhost", origin="http://x.example") or ""
    )


def test_an_allowed_origin_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"ide\.example/path"):
        door_rules(bound_host="127.0.0.1", allowed_hosts=(), allowed_origins=("https://ide.example/path",))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("box", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_parts() -> None:
    assert parse_origin("https://A.example:8443") == ("https", "a.example", 8443)
    assert host_name("[::1]:80") == "::1"
    assert crosses(scheme="http", host="localhost:1", origin="http://localhost:2")
    assert not crosses(scheme="http", host="localhost:1", origin="http://localhost:1")
