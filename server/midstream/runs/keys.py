"""How runs are named in the store, and where the ids come from that a client did not make.

`<namespace>.<run_id>`: run ids are namespaced per principal, so nobody can guess or take another's. An id that the
client left out is derived from its command_id under a key of this server's, so that the same start, sent again before
any run exists, names the same run.
"""

import base64
import hashlib
import hmac
import secrets
from functools import lru_cache

from midstream.log import Records, VersionConflict

_KEY_BYTES = 32


@lru_cache(maxsize=4096)
def namespace(principal_id: str) -> str:
    return hashlib.sha256(principal_id.encode()).hexdigest()[:16]


def store_key(principal_id: str, run_id: str) -> str:
    return f"{namespace(principal_id)}.{run_id}"


def derived_id(prefix: str, *, key: bytes, principal_id: str, command_id: str) -> str:
    text = f"{prefix}\0{principal_id}\0{command_id}".encode()
    digest = hmac.digest(key, text, "sha256")[:15]
    return f"{prefix}_{base64.urlsafe_b64encode(digest).decode()}"


async def server_key(records: Records) -> bytes:
    """This store's key: made once, the same for every server on it."""
    found = await records.get("server", "key")
    if found is None:
        try:
            found = await records.put("server", "key", secrets.token_bytes(_KEY_BYTES), expect_version=0)
        except VersionConflict:
            found = await records.get("server", "key")
    assert found is not None
    return found.data
