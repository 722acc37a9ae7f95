"""Acts on links (団体の回線) by operators: ``LinkSteward``. What officers may do is in ``tenants.sets.links``.

Who acts is a name by which the caller has verified him (a credential's, a login's), of letters, digits and
``._:@/+=-``; the second person is another one, which the database holds to. Acts raise the link's generation; the
gateways hear of them by a hint and by their timers.

Invariant: an act is asked for once and is one commit; ``Problem`` unavailable or no_primary leaves open whether it
happened, and ``show`` tells. Free text of an act holds no individual number (invariant 7 of the design).
"""

import contextlib
import datetime as dt
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from chukan.errors import Problem
from chukan.replication.primary import Cells
from chukan.tenants.link_calls import Record, change, fetch, gateway_row, link_rows, zoned
from chukan.tenants.link_plan import Link, parse_link
from chukan.tenants.link_rows import (
    CHANNEL,
    HISTORY_MAX,
    REASON_LENGTH_MAX,
    Change,
    GatewayPart,
    GatewayRow,
    Kind,
    LinkRow,
    Mode,
    Requested,
)
from chukan.tenants.numbers import find_forbidden

_LIST_MAX: Final = 20_000
_ENDPOINT: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,253}):[0-9]{1,5}")
_CENTRES_MAX: Final = 4


class LinkSteward:
    """Decides on links and gateways.

    Every method raises ``Problem``: invalid_field (a value in no possible form), no_such_link, link_state (the link is
    not in a state in which this may be done), second_person, no_primary, unavailable, busy, internal; setting_missing
    without the steward's password file.
    """

    def __init__(self, cells: Cells, cell: str) -> None:
        self._cells = cells
        self._cell = cell

    # ---------------------------------------------------------------- the life of a link

    async def invite(
        self, body: str, mode: Mode, kind: Kind, public_key: bytes, expires_at: dt.datetime, who: str
    ) -> str:
        """Invite a body (6-digit code) and return the link's name; the same call again returns the same.

        ``public_key`` is the public half of the invitation's Ed25519 key. ``Problem`` besides: links_full after 63
        links; invitations_open when three wait already; invitation_invalid for an expiry past or more than 14 days off.
        """
        _name(str(Link(body, 1)))
        sql = "SELECT chukan.link_invite($1, $2, $3, $4, $5, $6) AS link"
        return str(await self._act(sql, body, mode, kind, public_key, zoned(expires_at), who))

    async def request(self, link: str, requested: Requested, who: str) -> None:
        """Take in a device's request, its signatures verified before; the same request again changes nothing.

        ``Problem`` besides: invitation_invalid for another key than the invitation's or when it has expired;
        link_key_taken when one of the device's keys is or was another link's, or is a gateway's.
        """
        peers = requested.peers
        if not 1 <= len(peers) <= _CENTRES_MAX:
            raise Problem("invalid_field", pointer="/peers", expected="a key for each centre")
        configs = [
            None if peer.config is None else msgspec.json.encode(peer.config).decode() for peer in peers.values()
        ]
        await self._act(
            "SELECT chukan.link_request($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            _name(link),
            requested.invitation_key,
            requested.device_key,
            requested.device_sealing_key,
            requested.digest,
            list(peers),
            [peer.public_key for peer in peers.values()],
            configs,
            who,
        )

    async def approve(
        self,
        link: str,
        psks: Mapping[str, bytes],
        *,
        second: str,
        who: str | None = None,
        valid_from: dt.datetime | None = None,
        valid_until: dt.datetime | None = None,
    ) -> None:
        """Approve a request: ``psks`` by centre, each sealed for that centre's gateway.

        ``second`` must be another person than the one who invited, and than ``who`` asks, where that is a third one.
        """
        await self._act(
            "SELECT chukan.link_approve($1, $2, $3, $4, $5, $6, $7)",
            _name(link),
            list(psks),
            list(psks.values()),
            None if valid_from is None else zoned(valid_from),
            None if valid_until is None else zoned(valid_until),
            who,
            second,
        )

    async def suspend(self, link: str, *, who: str, reason: str, second: str | None = None) -> None:
        """Take an active link out of service, or take over what an officer suspended; one person may."""
        await self._act("SELECT chukan.link_suspend($1, $2, $3, $4)", _name(link), who, second, _reason(reason))

    async def resume(self, link: str, *, second: str, reason: str, who: str | None = None) -> None:
        """Put a suspended link back into service.

        ``second`` must be another person than the one who suspended, and than ``who`` asks, where that is a third one.
        """
        await self._act("SELECT chukan.link_resume($1, $2, $3, $4)", _name(link), who, second, _reason(reason))

    async def revoke(self, link: str, *, who: str, reason: str, second: str | None = None) -> None:
        """End a link for ever, in whatever state it is; one person may. Its name and keys never come back."""
        await self._act("SELECT chukan.link_revoke($1, $2, $3, $4)", _name(link), who, second, _reason(reason))

    async def extend(
        self, link: str, *, valid_from: dt.datetime | None, valid_until: dt.datetime | None, who: str, second: str
    ) -> None:
        """Change from when until when a link may be used (None: without an end); two persons."""
        ends = [None if at is None else zoned(at) for at in (valid_from, valid_until)]
        await self._act("SELECT chukan.link_extend($1, $2, $3, $4, $5)", _name(link), *ends, who, second)

    # ---------------------------------------------------------------- rotation

    async def put_next_key(
        self,
        link: str,
        centre: str,
        *,
        who: str,
        public_key: bytes | None = None,
        psk: bytes | None = None,
        replace: bool = False,
        second: str | None = None,
    ) -> None:
        """Lay down a device's next key at a centre, its next pre-shared key (sealed), or both.

        The present ones hold until the gateway sees the next ones in use. One that is laid down already is replaced
        only with ``replace``: the device may have turned to it (``Problem`` link_state). A link of kind ``ipsec`` needs
        ``second``, for its keys are read by people. ``Problem`` besides: link_key_taken for a key that was given up, or
        is another's.
        """
        sql = "SELECT chukan.link_next_key($1, $2, $3, $4, $5, $6, $7)"
        await self._act(sql, _name(link), centre, public_key, psk, replace, who, second)

    async def rotate(self, link: str, psks: Mapping[str, bytes], *, who: str, replace: bool = False) -> None:
        """Lay down the next pre-shared key at each centre named; a commit each, so that a repeat goes on."""
        for centre, psk in psks.items():
            await self.put_next_key(link, centre, psk=psk, who=who, replace=replace)

    # ---------------------------------------------------------------- gateways

    async def gateway(self, centre: str, part: GatewayPart, who: str) -> None:
        """Make a centre's gateway known, or change what ``part`` names of it.

        A present key that is changed at once cuts every device that does not know it; lay down ``next_public_key``,
        give all devices the new configuration, then call ``turn_gateway``. ``Problem`` besides: gateway_incomplete;
        link_key_taken for a key that another gateway or a device has.
        """
        for name, endpoint in (("endpoint", part.endpoint), ("next_endpoint", part.next_endpoint)):
            if endpoint is not None and _ENDPOINT.fullmatch(endpoint) is None:
                raise Problem("invalid_field", pointer=f"/{name}", expected="host:port")
        await self._act(
            "SELECT chukan.link_gateway_put($1, $2, $3, $4, $5, $6, $7, $8)",
            centre,
            part.endpoint,
            part.public_key,
            part.sealing_key,
            part.next_public_key,
            part.next_endpoint,
            part.service_public_key,
            who,
        )

    async def turn_gateway(self, centre: str, who: str) -> None:
        """Make the gateway's next key and endpoint its present ones; ``Problem`` link_state where there is none."""
        await self._act("SELECT chukan.link_gateway_turn($1, $2)", centre, who)

    async def drain(self, centre: str, *, on: bool, who: str) -> bool:
        """Have a centre's links moved to the other centre, or allow them back; False where it is so already.

        ``Problem`` gateway_incomplete for a centre whose gateway is not known.
        """
        return bool(await self._act("SELECT chukan.link_drain($1, $2, $3)", centre, on, who))

    # ---------------------------------------------------------------- looking

    async def show(self, link: str) -> LinkRow:
        """Return a link. ``Problem`` no_such_link."""
        found = link_rows(await self._read("SELECT * FROM chukan.link_rows($1, NULL, 1)", _name(link)))
        if not found:
            raise Problem("no_such_link")
        return found[0]

    async def list(self, body: str | None = None) -> tuple[LinkRow, ...]:
        """Return the links of a body, or all, revoked ones too, in the order of their names; 20,000 at most."""
        return link_rows(await self._read("SELECT * FROM chukan.link_rows(NULL, $1, $2)", body, _LIST_MAX))

    async def gateways(self) -> dict[str, GatewayRow]:
        """Return the gateways that are known, by centre."""
        rows = await self._read("SELECT * FROM chukan.link_gateway_rows()")
        return {row["centre"]: gateway_row(row) for row in rows}

    async def history(
        self, link: str | None = None, limit: int = 100, *, body: str | None = None
    ) -> tuple[Change, ...]:
        """Return lines of the audit, the newest first: of a link, of a body, or all; 1,000 at most."""
        sql = "SELECT * FROM chukan.link_history($1, $2, $3)"
        named = None if link is None else _name(link)
        return tuple(map(change, await self._read(sql, named, body, min(limit, HISTORY_MAX))))

    # ---------------------------------------------------------------- calls

    async def _act(self, sql: str, *values: object) -> object:
        async with self._cells.steward(self._cell) as connection:
            rows = await fetch(connection, sql, *values)
            # The hint goes alone, after the commit; whoever misses it looks by its timer.
            with contextlib.suppress(Problem):
                await fetch(connection, "SELECT pg_notify($1, '')", CHANNEL)
        return rows[0][0]

    async def _read(self, sql: str, *values: object) -> tuple[Record, ...]:
        async with self._cells.steward(self._cell) as connection:
            return tuple(await fetch(connection, sql, *values))


def _name(link: str) -> str:
    """Return a link's name; ``Problem`` no_such_link for what can be none."""
    try:
        return str(parse_link(link))
    except ValueError:
        raise Problem("no_such_link", expected="131016-1") from None


def _reason(text: str) -> str:
    if not 1 <= len(text.strip()) <= REASON_LENGTH_MAX:
        raise Problem("invalid_field", pointer="/reason", limit=REASON_LENGTH_MAX)
    if (found := find_forbidden(text)) is not None:
        raise Problem(f"{found}_present", pointer="/reason")
    return text.strip()
