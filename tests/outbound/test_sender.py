"""One request to a place: which address it goes to, whose certificate it takes, and that it goes nowhere else."""

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from midstream.outbound.address import resolve
from midstream.outbound.post import Sender
from tests.outbound.receiver import Answer, receiver

pytestmark = pytest.mark.asyncio


def sender(resolved: Any = resolve, *, allow_private: bool = True, tls: ssl.SSLContext | None = None) -> Sender:
    return Sender(timeout_s=5.0, allow_private=allow_private, resolve=resolved, tls=tls)


def names(**addresses: list[str]) -> Any:
    """A resolver that knows these names (`_` for a dot)."""

    async def look_up(host: str, port: int) -> list[str]:
        found = addresses.get(host.replace(".", "_"))
        if found is None:
            raise OSError(f"no such name: {host}")
        return found

    return look_up


async def test_it_goes_to_the_address_that_was_checked_under_the_name_that_was_asked() -> None:
    async with receiver() as place:
        answer = await sender(names(hooks_example=["127.0.0.1"])).post(
            f"http://hooks.example:{place.port}/a?b=c", headers={"x-one": "1"}, body=b"{}"
        )
        assert answer.status == 200
        assert place.got[0].headers["host"] == f"hooks.example:{place.port}"
        assert (place.got[0].path, place.got[0].headers["x-one"], place.got[0].body) == ("/a?b=c", "1", b"{}")


async def test_a_name_that_points_elsewhere_after_the_check_leads_nowhere_else() -> None:
    """Rebinding: the name is looked up once for a request, and the request goes to what was found then."""
    looked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        looked.append(host)
        return ["127.0.0.2"] if len(looked) == 1 else ["127.0.0.1"]

    async with receiver() as inside, receiver(host="127.0.0.2", port=inside.port) as checked:
        answer = await sender(rebinding).post(f"http://rebind.example:{inside.port}/", headers={}, body=b"{}")
        assert answer.status == 200
        assert (len(checked.got), inside.got, looked) == (1, [], ["rebind.example"])
        # Had it become private by the next request, that would not be sent.
        answer = await sender(rebinding, allow_private=False).post(
            f"http://rebind.example:{inside.port}/", headers={}, body=b"{}"
        )
        assert answer.refused
        assert inside.got == []


async def test_the_connection_goes_to_the_very_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the machine's own resolver would say something else by then."""

    async def elsewhere(*_: Any, **__: Any) -> Any:
        raise AssertionError("the machine's resolver is asked again")

    async with receiver() as place:
        loop = asyncio.get_running_loop()
        original = loop.getaddrinfo

        async def only_addresses(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "127.0.0.1":
                return await elsewhere()
            return await original(host, *args, **kwargs)

        monkeypatch.setattr(loop, "getaddrinfo", only_addresses)
        answer = await sender(names(hooks_example=["127.0.0.1"])).post(
            f"http://hooks.example:{place.port}/", headers={}, body=b"{}"
        )
        assert answer.status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "inside.example"])
async def test_nothing_is_sent_to_a_private_address_in_any_spelling(host: str) -> None:
    async with receiver() as place:
        known = names(inside_example=["127.0.0.1", "10.0.0.1"], localhost=["::1", "127.0.0.1"])
        answer = await sender(known, allow_private=False).post(f"http://{host}:{place.port}/", headers={}, body=b"{}")
        assert answer.refused
        assert place.got == []


async def test_the_next_address_is_tried_when_nobody_is_at_the_first() -> None:
    async with receiver() as place:
        known = names(two_example=["127.0.0.2", "127.0.0.1"])
        answer = await sender(known).post(f"http://two.example:{place.port}/", headers={}, body=b"{}")
        assert answer.status == 200


async def test_what_goes_wrong_is_said_and_never_raised() -> None:
    ask = sender(names())
    async with receiver(lambda _: Answer(hang_up=True)) as place:
        for url in ("http://nowhere.example/", f"http://127.0.0.1:{place.port}/", "http://127.0.0.1:1/", "http://[::"):
            answer = await ask.post(url, headers={}, body=b"")
            assert answer.failure
            assert not answer.refused


async def test_an_answer_that_never_ends_is_not_read() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n" + b"x" * 10_000)
        try:
            await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        answer = await sender().post(f"http://127.0.0.1:{port}/", headers={}, body=b"{}")
        assert answer.status == 200


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for hooks.example, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example",
         "-keyout", str(path.with_name("key.pem")), "-out", str(path.with_name("cert.pem"))],
        check=True,
        capture_output=True,
    )  # fmt: skip
    path.write_text(path.with_name("key.pem").read_text() + path.with_name("cert.pem").read_text())
    return path


@pytest.mark.parametrize(
    ("host", "trusted", "taken"),
    [("hooks.example", True, True), ("other.example", True, False), ("hooks.example", False, False)],
)
async def test_the_certificate_must_be_the_names_own(certificate: Path, host: str, trusted: bool, taken: bool) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    ours = ssl.create_default_context(cafile=str(certificate)) if trusted else None
    known = names(hooks_example=["127.0.0.1"], other_example=["127.0.0.1"])
    async with receiver(tls=server) as place:
        answer = await sender(known, tls=ours).post(f"https://{host}:{place.port}/", headers={}, body=b"{}")
        assert (answer.status == 200) is taken
        assert bool(place.got) is taken
        if not taken:
            assert "certificate" in (answer.failure or "").lower()
