"""The grammar of every id on the wire, and the prefixes of the ones the server makes.

Ids are opaque to clients. Provider ids never travel: what a client sees was made here.
"""

import base64
import re
import secrets
from typing import Final

ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"

# fullmatch, not `$`: `$` would also accept a trailing newline.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_id(value: object) -> bool:
    """Whether `value` is a string that may stand where the protocol wants an id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def new_id(prefix: str) -> str:
    """A fresh id such as `call_8J2k…`: 120 random bits, so it cannot be guessed and never repeats."""
    return f"{prefix}_{base64.urlsafe_b64encode(secrets.token_bytes(15)).decode()}"
