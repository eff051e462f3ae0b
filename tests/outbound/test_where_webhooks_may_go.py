"""Which addresses and URLs are refused: whoever names a webhook's place must not reach into the server's own network."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.outbound.address import AddressRefused, literal, permitted, refusal
from midstream.outbound.endpoint import origin, wrong_with

PRIVATE = [
    "127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1",
    "240.0.0.1", "255.255.255.255", "::1", "fc00::1", "fd12:3456::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:c0a8:101::", "2001:db8::1",
]  # fmt: skip
NEVER = [
    "0.0.0.0", "::", "224.0.0.1", "ff02::1", "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0",
    "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "168.63.129.16", "100.100.100.200", "fd00:ec2::254",
    "::ffff:0.0.0.0", "2002:a9fe:a9fe::",
]  # fmt: skip
PUBLIC = ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_to_be_allowed(address: str) -> None:
    assert refusal(address, allow_private=False) is not None
    assert refusal(address, allow_private=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_allowed(address: str) -> None:
    assert refusal(address, allow_private=False) is not None
    assert refusal(address, allow_private=True) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal(address, allow_private=False) is None


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_judged_the_same_in_every_spelling(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    spellings = [f"::ffff:{address}", str(ipaddress.IPv6Address((0x64FF9B << 96) | number))]
    for allow_private in (False, True):
        expected = refusal(str(address), allow_private=allow_private)
        assert [refusal(each, allow_private=allow_private) for each in spellings] == [expected] * 2


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "::1"])
def test_an_address_is_seen_however_it_is_written(host: str) -> None:
    found = literal(host)
    assert found is not None
    assert ipaddress.ip_address(found).is_loopback


@pytest.mark.parametrize("host", ["example.org", "1.example", "localhost"])
def test_a_name_is_no_address(host: str) -> None:
    assert literal(host) is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://example.org/x", "https://"),
        ("file:///etc/passwd", "https://"),
        ("https:///x", "name a host"),
        ("just text", "https://"),
        ("https://ex\nample.org", "no URL"),
        ("https://user:word@example.org/", "user or password"),
        ("https://user@example.org/", "user or password"),
        ("http://127.0.0.1:9/", "private"),
        ("http://127.1/", "private"),
        ("http://2130706433/", "private"),
        ("http://[::1]/", "private"),
        ("http://[::ffff:10.0.0.1]/", "private"),
        ("http://localhost/", "private"),
        ("http://app.localhost./", "private"),
        ("http://LOCALHOST/", "private"),
        ("http://169.254.169.254/latest", "metadata"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, says: str) -> None:
    wrong = wrong_with(url, allow_private=False)
    assert wrong is not None
    assert says in wrong


def test_a_refusal_of_a_private_address_names_the_setting() -> None:
    assert "MIDSTREAM_WEBHOOK_ALLOW_PRIVATE" in (wrong_with("http://10.0.0.1/", allow_private=False) or "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://localhost/x", "http://[::1]/", "http://10.0.0.1/"])
def test_private_urls_may_be_allowed(url: str) -> None:
    assert wrong_with(url, allow_private=True) is None


@pytest.mark.parametrize("url", ["https://example.org/hooks?x=1", "http://example.org:8080", "https://exämple.org/"])
def test_other_urls_are_right(url: str) -> None:
    assert wrong_with(url, allow_private=False) is None


def test_a_log_line_never_has_what_may_be_secret_in_a_url() -> None:
    assert origin("https://hooks.example.org:8443/T0/B0/s3cret?token=s3cret") == "https://hooks.example.org:8443"


@pytest.mark.asyncio
async def test_only_the_permitted_addresses_of_a_name_are_left() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("example.org", 443)
        return ["10.0.0.1", "93.184.215.14", "::1"]

    found = await permitted("example.org", 443, allow_private=False, resolve=resolve)
    assert found == ["93.184.215.14"]


@pytest.mark.asyncio
@pytest.mark.parametrize("addresses", [["10.0.0.1", "::ffff:127.0.0.1"], []])
async def test_a_name_without_a_permitted_address_is_refused(addresses: list[str]) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    with pytest.raises(AddressRefused, match="private" if addresses else "no address"):
        await permitted("example.org", 443, allow_private=False, resolve=resolve)
