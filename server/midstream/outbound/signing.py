"""Signing what is sent, by the Standard Webhooks scheme, so that its receiver can check who sent it and when
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md). Pure.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final

_PREFIX: Final = "whsec_"


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: `whsec_<base64>`, or any other text as it is. Raises ValueError."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("what follows whsec_ must be base64: make one with `openssl rand -base64 32`")
    return key


def signed(key: bytes, *, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers that say which message this is, when it was sent (Unix seconds), and that we sent it."""
    digest = hmac.digest(key, b"%s.%d.%s" % (message_id.encode(), at_s, body), hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
