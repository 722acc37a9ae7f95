"""Who is calling, and whether it may (DESIGN §3, invariant 8): tunnel, certificate and path must agree.

The client certificate names a registered system or officer (SAN URI ``urn:chukan:client:<id>``); the directory says at
which agencies and for which functions; the source address says through which body's tunnel the packet came, by the plan
of addresses alone (``tenants.link_plan``). What a request says about itself (``X-Forwarded-For``, a header, a body) is
never asked.

They are asked in this order, and each refuses with a code of its own: a certificate that names no client, or one that
is not registered; an address of no link (``outside_links``); another body's tunnel (``wrong_address``: a copied
certificate); a path that is not the certificate's (``wrong_agency``); a function. So nobody behind a wrong tunnel
learns what a certificate may do.

Every refusal is counted by its code, told to whoever writes the audit (``refusals``), and leaves one line in the log:
the peer's id, the code, and the bodies of the certificate and of the tunnel where they are known. This module must
never look at a body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from chukan import log
from chukan.errors import Problem
from chukan.platform.tls import CLIENT_URN, peer_urn
from chukan.tenants import link_plan
from chukan.tenants.directory import AgencyRow, ClientRow, Directory

_PLAN_DIGITS: Final = 5
"""An address tells the first five digits of its body's code; the sixth only checks them."""
_log = log.get("http.auth")

Tell = Callable[[str, str, str, str], None]
"""Hears of a refusal: the registered peer, its body, the first five digits of the tunnel's body, the code; '' for none.

It is called in the path of the request, so it waits for nothing and raises nothing.
"""


class AddressCheck(Protocol):
    """Tells through which body's link a source address comes (接続元の検査)."""

    def allows(self, address: str, body: str) -> bool:
        """Tell whether the address belongs to a link of the body with this 6-digit code."""
        ...

    def tunnel(self, address: str) -> str | None:
        """Return the 6-digit code of the body whose link the address belongs to; None where none is known."""
        ...


class NoAddressCheck:
    """Allows every address: for a sandbox, whose clients all stand on one machine. It says so in the log."""

    def __init__(self) -> None:
        _log.warning("source addresses are not checked: this is a sandbox")

    def allows(self, address: str, body: str) -> bool:  # noqa: ARG002 (the port's signature)
        """Allow it."""
        return True

    def tunnel(self, address: str) -> str | None:
        """Return the body of a link's address; the clients of a sandbox may have others."""
        return link_plan.owner_body(address)


class LinkAddresses:
    """Knows whose an inner address is by the plan of addresses; an address of nobody's link is nobody's.

    Nothing is looked up: the first five digits of the body's code stand in the address.
    """

    def allows(self, address: str, body: str) -> bool:
        """Tell whether the address belongs to a link of the body."""
        return link_plan.owner(address) == body[:_PLAN_DIGITS]

    def tunnel(self, address: str) -> str | None:
        """Return the body of a link's address, None for an address of no link."""
        return link_plan.owner_body(address)


@dataclass(frozen=True, slots=True)
class Right:
    """What a call needs: one of these functions (the directory knows which of them only an officer may have)."""

    functions: tuple[str, ...]
    by_session: tuple[str, ...] = ()
    """What an officer's account needs instead, where it is not the same (職員アカウント)."""

    @property
    def in_session(self) -> tuple[str, ...]:
        """One of these functions an officer's account needs."""
        return self.by_session or self.functions


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that was let in, and the agency that it acts for."""

    client: ClientRow
    agency: AgencyRow


def _uncounted(_code: str) -> None:
    """Count nowhere."""


def untold(_peer: str, _body: str, _tunnel: str, _code: str) -> None:
    """Tell nobody."""


class Gate:
    """Lets callers in; ``count`` hears the code of every refusal, ``tell`` what stands in its line of the audit."""

    def __init__(self, addresses: AddressCheck, count: Callable[[str], None] = _uncounted, tell: Tell = untold) -> None:
        self._addresses = addresses
        self._count = count
        self._tell = tell

    def authenticate(self, request: web.Request, directory: Directory) -> ClientRow:
        """Return the registered client behind a request.

        Raises ``Problem``: unauthenticated, unregistered_system, outside_links, wrong_address.
        """
        peer: str | None = None
        client: ClientRow | None = None
        try:
            peer = client_id(request)
            client = directory.client(peer)
            self._check_address(request.remote, client)
        except Problem as problem:
            self._refused(request, peer, client, problem.code)
            raise
        return client

    def _check_address(self, address: str | None, client: ClientRow) -> None:
        if address is None:
            raise Problem("outside_links")
        if not self._addresses.allows(address, client.body):
            raise Problem("outside_links" if self._addresses.tunnel(address) is None else "wrong_address")

    def authorise(self, request: web.Request, client: ClientRow, right: Right, directory: Directory) -> Caller:
        """Return the caller, once it may use one of the functions at the agency of the path.

        Raises ``Problem``: wrong_agency, agency_closed, officer_required, function_not_granted.
        """
        try:
            return authorise(client, request.match_info["agency"], right, directory)
        except Problem as problem:
            self._refused(request, client.id, client, problem.code)
            raise

    def home(self, request: web.Request, client: ClientRow, directory: Directory) -> AgencyRow:
        """Return the open agency of the path, which must be one of the client's; its functions are not asked.

        For who signs in, and for who has: an account's rights are asked instead (``sessions``). Raises ``Problem``:
        wrong_agency, agency_closed.
        """
        code = request.match_info["agency"]
        if code not in client.agencies:
            raise self.turn_away(request, client, Problem("wrong_agency"))
        try:
            return directory.agency(code)
        except Problem as problem:
            raise self.turn_away(request, client, problem) from None

    def turn_away(self, request: web.Request, client: ClientRow, problem: Problem) -> Problem:
        """Count and tell a refusal that was decided elsewhere, and return it."""
        self._refused(request, client.id, client, problem.code)
        return problem

    def _refused(self, request: web.Request, peer: str | None, client: ClientRow | None, code: str) -> None:
        self._count(code)
        resource = request.match_info.route.resource
        body = None if client is None else client.body
        tunnel = None if request.remote is None else self._addresses.tunnel(request.remote)
        self._tell("" if client is None else client.id, body or "", (tunnel or "")[:_PLAN_DIGITS], code)
        _log.warning(
            "access refused",
            peer=peer,
            code=code,
            body=body,
            tunnel=tunnel,
            route=None if resource is None else resource.canonical,
        )


def client_id(request: web.Request) -> str:
    """Return the id in the client certificate. Raises ``Problem`` unauthenticated where it names no client."""
    urn = peer_urn(request)
    if urn is None or not urn.startswith(CLIENT_URN):
        raise Problem("unauthenticated")
    return urn.removeprefix(CLIENT_URN)


def authorise(client: ClientRow, agency_code: str, right: Right, directory: Directory) -> Caller:
    """Return the caller, once it may use one of the functions at the agency.

    Raises ``Problem``: wrong_agency, agency_closed, officer_required, function_not_granted.
    """
    refusal: Problem | None = None
    for function in right.functions:
        try:
            directory.allow(client.id, agency_code, function)
            return Caller(client, directory.agency(agency_code))
        except Problem as problem:
            refusal = problem
    if refusal is None:
        raise ValueError("a right names at least one function")
    raise refusal
