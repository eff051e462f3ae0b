"""Fingerprints that a client can recompute (`terminal_digest`) and ones it cannot (`args_digest`)."""

import hashlib
import hmac
from typing import Any

import msgspec
import rfc8785

from midstream_protocol.events import Payload


def canonical(value: Any) -> bytes:
    """The RFC 8785 form of a JSON value or struct.

    Raises ValueError for what JSON cannot carry (NaN, integers beyond ±(2^53-1), lone surrogates): see `json_safe`.
    """
    return rfc8785.dumps(msgspec.to_builtins(value))


def terminal_digest(payload: Payload) -> str:
    """Lower-case hex SHA-256 of a terminal payload's canonical form without its `digest`. Raises as `canonical`."""
    fields = msgspec.to_builtins(payload)
    fields.pop("digest", None)
    return hashlib.sha256(canonical(fields)).hexdigest()


def args_digest(key: bytes, args: dict[str, Any]) -> str:
    """Lower-case hex HMAC-SHA256 of the canonical arguments. Raises as `canonical`.

    Keyed per run: a plain hash of small arguments (an amount, a file name) could be guessed by trying.
    """
    return hmac.new(key, canonical(args), hashlib.sha256).hexdigest()
