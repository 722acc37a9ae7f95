"""The demo's agencies keep the last checkpoint of their logs (チェックポイント), and hold the next one against it.

What an earlier start kept is still there: a log that was rolled back between two starts is found out. The keys that
verify come from the demo's own files, as an agency gets them from its operator; they are written beside for
``chukan client checkpoint``.
"""

import asyncio
from pathlib import Path
from typing import Final, NamedTuple

from chukan import private_file
from chukan.clock import Clock
from chukan.errors import Problem
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import Credentials
from chukan.ops.demo.config import EVIDENCE_NAME
from chukan.ops.demo.systems import Systems, for_each
from chukan.ops.sandbox.checkpoint_book import CheckpointBook
from chukan.ops.sandbox.clients import AgencyClient, ClientError
from chukan.tenants.checkpoint import Key
from chukan.tenants.evidence import CentreKeys

TIMEOUT_S: Final = 30.0
"""How long a log may take to be signed and cosigned; 2 s are usual."""
_LOOK_S: Final = 0.5


class Logs(NamedTuple):
    """Of how many agencies the log is signed and cosigned, and of how many it contradicts what was kept."""

    cosigned: int
    contradicted: int


def write_keys(folder: Path, credentials: Credentials) -> None:
    """Write the verifier keys of every agency's log into a folder."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for agency in cast.agencies():
        text = "".join(f"{key.text()}\n" for key in _keys(credentials, agency.code))
        private_file.write(folder / f"{agency.code}.keys", text.encode("ascii"))


def _keys(credentials: Credentials, code: str) -> list[Key]:
    public = {centre: key.private.public_key() for centre, key in credentials.evidence.items()}
    return CentreKeys(EVIDENCE_NAME, "sandbox", "", None, public).known(code)


async def look_at_logs(systems: Systems, credentials: Credentials, folder: Path, clock: Clock) -> Logs:
    """Look at every agency's log until the other centre has cosigned it, or the time is over."""
    write_keys(folder, credentials)
    found: dict[str, bool] = {}

    async def one(code: str) -> None:
        book = CheckpointBook(folder / f"{code}.checkpoint", _keys(credentials, code))
        try:
            found[code] = await _until_cosigned(book, systems.agencies[code], clock)
        except Problem:
            return

    await for_each([agency.code for agency in cast.agencies()], one)
    return Logs(sum(found.values()), len(cast.agencies()) - len(found))


async def _until_cosigned(book: CheckpointBook, client: AgencyClient, clock: Clock) -> bool:
    """Tell whether it was cosigned in time. Raises ``Problem`` log_contradicted, checkpoint_unsigned."""
    deadline = clock.monotonic() + TIMEOUT_S
    while clock.monotonic() < deadline:
        try:
            if (await book.look(client)).cosigned:
                return True
        except ClientError as error:
            if error.code != "proof_pending":
                raise
        await asyncio.sleep(_LOOK_S)
    return False
