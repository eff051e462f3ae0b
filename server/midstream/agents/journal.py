"""Journal records from structs."""

import msgspec
from msgspec import Struct

from midstream.log import JournalRecord


def journal_record(kind: str, key: str, value: Struct) -> JournalRecord:
    """`value` as the record of that kind (its schema) about `key`."""
    return JournalRecord(kind=kind, key=key, data=msgspec.json.encode(value))
