"""Who is calling, and whether it may (DESIGN §3, invariant 8): tunnel, certificate and path must agree.

The client certificate names a registered system or officer (SAN URI ``urn:chukan:client:<id>``); the directory says at
which agencies and for which functions; the source address says through which body's tunnel the packet came. What a
request says about itself (``X-Forwarded-For``, a header, a body) is never asked.

Every refusal leaves one line in the log with the peer's id and the code. This module must never look at a body.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from chukan import log
from chukan.errors import Problem
from chukan.platform.tls import CLIENT_URN, peer_urn
from chukan.tenants.directory import AgencyRow, ClientRow, Directory

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_log = log.get("http.auth")


class AddressCheck(Protocol):
    """Tells through which body's link a source address comes (接続元の検査)."""

    def allows(self, address: str, body: str) -> bool:
        """Tell whether the address belongs to the link of the body with this 6-digit code."""
        ...


class NoAddressCheck:
    """Allows every address: for a sandbox, whose clients all stand on one machine. It says so in the log."""

    def __init__(self) -> None:
        _log.warning("source addresses are not checked: this is a sandbox")

    def allows(self, address: str, body: str) -> bool:  # noqa: ARG002 (the port's signature)
        """Allow it."""
        return True


class LinkAddresses:
    """Knows the pinned networks of each body's link; an address of nobody's link is nobody's."""

    def __init__(self, links: Mapping[str, Sequence[str]]) -> None:
        """Take the networks (``10.64.0.7/32``, ``fd00:64:7::/48``) by 6-digit body code.

        Raises ``ValueError`` when a network is malformed or overlaps another body's.
        """
        self._networks = [(ipaddress.ip_network(network), body) for body, given in links.items() for network in given]
        _refuse_overlaps(self._networks)
        self._exact = {net.network_address: body for net, body in self._networks if net.num_addresses == 1}

    def allows(self, address: str, body: str) -> bool:
        """Tell whether the address belongs to the body's own link."""
        try:
            source = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(source, ipaddress.IPv6Address) and source.ipv4_mapped is not None:
            source = source.ipv4_mapped
        owner = self._exact.get(source)
        if owner is None:
            owner = next((owner for network, owner in self._networks if source in network), None)
        return owner == body


def _refuse_overlaps(networks: Sequence[tuple[Network, str]]) -> None:
    reached: dict[int, tuple[int, str]] = {}
    for network, owner in sorted(networks, key=lambda entry: (entry[0].version, int(entry[0].network_address))):
        last, last_owner = reached.get(network.version, (-1, owner))
        if int(network.network_address) <= last and owner != last_owner:
            raise ValueError("two bodies' links share addresses")
        if int(network.broadcast_address) > last:
            reached[network.version] = (int(network.broadcast_address), owner)


@dataclass(frozen=True, slots=True)
class Right:
    """What a call needs: one of these functions (the directory knows which of them only an officer may have)."""

    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that was let in, and the agency that it acts for."""

    client: ClientRow
    agency: AgencyRow


def client_id(request: web.Request) -> str:
    """Return the id in the client certificate. Raises ``Problem`` unauthenticated where it names no client."""
    urn = peer_urn(request)
    if urn is None or not urn.startswith(CLIENT_URN):
        raise Problem("unauthenticated")
    return urn.removeprefix(CLIENT_URN)


def authenticate(request: web.Request, directory: Directory, addresses: AddressCheck) -> ClientRow:
    """Return the registered client behind a request.

    Raises ``Problem``: unauthenticated, unregistered_system, wrong_address.
    """
    peer: str | None = None
    try:
        peer = client_id(request)
        client = directory.client(peer)
        _check_address(addresses, request.remote, client)
    except Problem as problem:
        _log.warning("access refused", peer=peer, code=problem.code)
        raise
    return client


def _check_address(addresses: AddressCheck, address: str | None, client: ClientRow) -> None:
    if address is None or not addresses.allows(address, client.body):
        raise Problem("wrong_address")


def authorise(client: ClientRow, agency_code: str, right: Right, directory: Directory) -> Caller:
    """Return the caller, once it may use one of the functions at the agency of the path.

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
    _log.warning("access refused", peer=client.id, code=refusal.code)
    raise refusal
