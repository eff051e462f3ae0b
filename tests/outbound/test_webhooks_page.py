"""What docs/webhooks.md shows works as it stands there."""

import os
import re
import subprocess
import textwrap
import time
from typing import Any

import pytest

from midstream.outbound import retrying
from midstream.outbound.message import EVENTS
from midstream.outbound.signing import key_of, signed
from tests.house.checkout import read
from tests.outbound.rig import KEY, SECRET

PAGE = read("docs/webhooks.md")


def block(language: str, part: str) -> str:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return next(textwrap.dedent(text) for _, text in found if part in text)


@pytest.fixture
def verified() -> Any:
    names: dict[str, Any] = {}
    exec(block("python", "def verified"), names)
    return names["verified"]


@pytest.mark.parametrize("secret", [SECRET, "plain words"])
def test_its_receiver_takes_what_we_sign_and_nothing_else(verified: Any, secret: str) -> None:
    body, now = b'{"a":1}', int(time.time())
    headers = signed(key_of(secret), message_id="run_1.2.x", at_s=now, body=body)
    assert verified(secret, headers, body)
    assert not verified(secret, headers, body + b" ")
    assert not verified("another", headers, body)
    assert not verified(secret, {**headers, "webhook-id": "run_1.3.x"}, body)
    assert verified(secret, {**headers, "webhook-signature": f"v1a,x {headers['webhook-signature']}"}, body)
    old = signed(key_of(secret), message_id="run_1.2.x", at_s=now - 301, body=body)
    assert not verified(secret, old, body)


def test_its_shell_signs_as_we_do(verified: Any) -> None:
    script = block("sh", "openssl dgst").partition("curl")[0] + 'printf "%s %s %s" "$id" "$at" "$signature"\n'
    environment = {**os.environ, "MIDSTREAM_WEBHOOK_SECRET": SECRET}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
    message_id, at, signature = done.stdout.split()
    body = re.search(r"body='(.*)'", script)
    assert body is not None
    headers = signed(KEY, message_id=message_id, at_s=int(at), body=body[1].encode())
    assert headers["webhook-signature"] == f"v1,{signature}"


def test_it_names_every_event_and_the_waits_as_they_are() -> None:
    assert re.findall(r"^\| `(\w+\.\w+)` \|", PAGE, flags=re.MULTILINE) == list(EVENTS)
    assert f"1, 2, 4 … {retrying.MAX_INTERVAL_S:g} s" in PAGE
    assert f"60, 120 … {retrying.SLOW_MAX_INTERVAL_S:g} s" in PAGE
