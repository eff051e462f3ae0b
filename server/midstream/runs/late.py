"""Receipts of commands that came after their run's end. The log takes nothing after the terminal event, so these
refusals are remembered beside it: the same command gets the same receipt, whoever sends it.
"""

from typing import Final

import msgspec
from msgspec import Struct

from midstream.log import Records, VersionConflict
from midstream.runs.inputs import Asked
from midstream_protocol.errors import Conflict
from midstream_protocol.frames import Receipt


class _Late(Struct, kw_only=True, frozen=True):
    fingerprint: str
    receipt: Receipt


class LateReceipts:
    """`run` is a store key."""

    def __init__(self, records: Records) -> None:
        self._records: Final = records

    async def find(self, run: str, asked: Asked) -> Receipt | None:
        """What this command was told before. Raises `Conflict` if another one had its id, `LogError`."""
        record = await self._records.get(_kind(run), asked.command.command_id)
        if record is None:
            return None
        late = msgspec.json.decode(record.data, type=_Late)
        if late.fingerprint != asked.fingerprint:
            raise Conflict("this command_id was used for another command: make a new id for each command")
        return late.receipt

    async def keep(self, run: str, asked: Asked, receipt: Receipt) -> Receipt:
        """Remember what it is told now; if it came twice at once, what the first was told. Raises as `find`."""
        data = msgspec.json.encode(_Late(fingerprint=asked.fingerprint, receipt=receipt))
        try:
            await self._records.put(_kind(run), asked.command.command_id, data, expect_version=0)
        except VersionConflict:
            return await self.find(run, asked) or receipt
        return receipt

    async def forget(self, run: str) -> None:
        """Erase them all."""
        kind = _kind(run)
        while found := await self._records.list(kind):
            for record in found:
                await self._records.delete(kind, record.id)


def _kind(run: str) -> str:
    return f"late.{run}"
