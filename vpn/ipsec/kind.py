"""IPsec as a kind of link for the gateway's controller: desired links become connections of charon, and are kept so.

What a row's ``config`` may say: ``{"auth": "psk" | "pubkey", "id": …, "ca": …}``; without it a link has a pre-shared
key and the identity of its name. A next pre-shared key is a second connection beside the first, with an identity of its
own, and who is connected by it has changed: no device is ever without a key that works.

Invariant: a link whose row cannot be used (its key does not open, its certificate is none, its identity is another's
too) is left as it is, and told; it keeps nobody else from being right. Two links never share an identity: by it charon
chooses the selectors, which say whose a packet is. Whoever is suspended, revoked or past the validity has neither
connection, secret nor IKE_SA left when ``cut`` or ``reconcile`` has returned.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from chukan import log
from chukan.errors import Problem
from chukan.tenants.credentials import UNREADABLE
from chukan.tenants.links import DesiredPeer
from chukan.vpn.gateway.desired import Goal, LinkGoal
from chukan.vpn.gateway.key_files import read_private
from chukan.vpn.gateway.kinds import Pass, Report, Sighting, merge_sightings
from chukan.vpn.ipsec.charon import Charon
from chukan.vpn.ipsec.model import (
    Actual,
    DropSecret,
    Gateway,
    PutConnection,
    Step,
    Terminate,
    Unload,
    Wanted,
    link_of,
    mark,
    remote_id,
    selectors,
)
from chukan.vpn.ipsec.plan import Plan, names, plan
from chukan.vpn.ipsec.settings import INTERFACE, Ipsec
from chukan.vpn.ipsec.vici import Vici
from chukan.vpn.model import Drift

LOG = log.get("vpn.ipsec")

Lead = Callable[[Mapping[str, str]], Awaitable[None]]

REFRESH_S: Final = 3600.0
"""So often each connection and secret is loaded again: charon tells neither proposals nor keys, so a change by hand of
those would not be seen. Who is connected stays connected."""
_ID: Final = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?")
"""A domain name: charon says it back as it was given, and takes no other for it, as it would with ``*`` or ``%``."""


class IpsecKind:
    """The kind ``ipsec`` of one centre; see ``gateway.kinds.Kind`` for the promises."""

    name: Final = "ipsec"

    def __init__(
        self,
        charon: Charon,
        gateway: Gateway,
        services: Iterable[str],
        private_key: bytes = b"",
        *,
        lead: Lead | None = None,
    ) -> None:
        """Say what it drives.

        Args:
            charon: the daemon.
            gateway: what all connections have in common.
            services: prefixes that a device may reach.
            private_key: the centre's key (DER, PKCS#8) for devices with certificates; empty where there is none.
            lead: makes the links' routes where charon does not.
        """
        self._lead = lead
        self._charon = charon
        self._gateway = gateway
        self._services = frozenset(services)
        self._private_key = private_key
        self._fresh: set[str] = set()
        self._fresh_since_s = 0.0
        self._given: frozenset[str] | None = None
        self._known: set[str] | None = None

    def mine(self, peer: DesiredPeer) -> bool:
        """Tell whether it is a link of this kind."""
        return peer.kind == "ipsec"

    async def ensure(self) -> bool:
        """Find charon or start it; tell whether it was started. Raises ``Problem``."""
        started = await self._charon.ensure()
        if self._private_key and (started or not self._fresh):
            await self._vici.load_key(self._private_key)
        if started:
            self._fresh.clear()
        return started

    async def cut(self, goal: Goal, links: Collection[str]) -> None:
        """Take the connections and secrets of links away and end their sessions. Raises ``Problem``."""
        del goal  # What a link was given bears its name.
        if self._known is None:
            self._known = names(await self._vici.get())
        given = sorted(name for name in self._known if link_of(name) in links)
        steps: list[Step] = [step(name) for step in (Unload, DropSecret, Terminate) for name in given]
        if steps:
            await self._vici.apply(steps)
        self._fresh.difference_update(given)

    async def reconcile(self, now: Pass) -> Report:
        """Compare, and repair where told to. Raises ``Problem``."""
        if now.repair and now.now_s - self._fresh_since_s > REFRESH_S:
            self._fresh, self._fresh_since_s = set(), now.now_s
        wanted, unusable = self._wanted(now.links)
        held = unusable | now.goal.held.keys()
        actual = await self._vici.get()
        self._known = names(actual)
        found = plan(wanted, self._gateway, _without(actual, held), self._fresh, self._ended(actual))
        left, refused = found.drift, 0
        if now.repair and found.steps:
            refused = await self._vici.apply(found.steps)
            actual = await self._vici.get()
            self._known = names(actual)
            again = plan(wanted, self._gateway, _without(actual, held), wanted.keys(), self._ended(actual))
            left = again.drift
            self._remember(found, again)
        if now.repair and self._lead is not None:
            await self._lead({prefix: INTERFACE for one in wanted.values() for prefix in one.remote})
        if refused:
            LOG.warning("charon refused connections", count=refused)
        if now.repair:
            self._given = frozenset(one.link for one in wanted.values())
        bad = tuple(Drift("missing", link) for link in sorted(unusable))
        return Report(
            differences=found.drift + bad,
            left=left + bad,
            steps=len(found.steps) if now.repair else 0,
            marks=_marks(wanted.values()),
            rotated=tuple(_rotated(now.links, actual)),
            sightings=_sightings(actual, wanted, now.now_s),
        )

    async def died(self) -> None:
        """Return when charon is gone."""
        await self._charon.died()

    async def close(self) -> None:
        """Nothing is held: each call has a session of its own, and charon lives on."""

    @property
    def _vici(self) -> Vici:
        return self._charon.vici

    def _ended(self, actual: Actual) -> frozenset[str]:
        """Return the links that had a connection in the last pass; in the first one nobody knows, so all may have."""
        return frozenset(map(link_of, names(actual))) if self._given is None else self._given

    def _remember(self, done: Plan, again: Plan) -> None:
        """Note what was loaded by this process; what differs still is not, so it will be tried again."""
        self._fresh.update(step.wanted.name for step in done.steps if isinstance(step, PutConnection))
        left = {drift.link for drift in again.drift}
        self._fresh = {name for name in self._fresh if link_of(name) not in left}

    def _wanted(self, links: Mapping[str, LinkGoal]) -> tuple[dict[str, Wanted], set[str]]:
        """Return the connections that shall be, by name, and the links whose row cannot be used."""
        wanted: dict[str, Wanted] = {}
        unusable: set[str] = set()
        for link, goal in links.items():
            try:
                wanted.update((one.name, one) for one in list(self._of(goal)))
            except ValueError:
                unusable.add(link)
        shown = Counter(remote_id(one) for one in wanted.values())
        unusable.update(one.link for one in wanted.values() if shown[remote_id(one)] > 1)
        return {name: one for name, one in wanted.items() if one.link not in unusable}, unusable

    def _of(self, goal: LinkGoal) -> Iterator[Wanted]:
        """Yield a link's connection, and the one of its next key. ``ValueError`` for a row that cannot be used."""
        config: Mapping[str, Any] = goal.peer.config or {}
        local, remote = selectors(goal.prefixes, self._services)
        auth = config.get("auth", "psk")
        shown = config.get("id", "") if auth == "pubkey" else ""
        if auth not in {"psk", "pubkey"} or not isinstance(shown, str) or (shown and not _ID.fullmatch(shown)):
            raise ValueError("a link's config is not one of ours")
        secrets = [goal.psk, goal.next_psk] if auth == "psk" else [self._authority(config)]
        if not secrets[0]:
            raise ValueError("a link has nothing to be known by")
        for secret in secrets:
            if secret:
                yield Wanted(
                    link=goal.peer.link,
                    centre=self._gateway.centre,
                    auth=auth,
                    secret=secret,
                    local=local,
                    remote=remote,
                    remote_id=shown,
                )

    def _authority(self, config: Mapping[str, Any]) -> bytes:
        if not self._gateway.certificate:
            raise ValueError("the centre has no certificate to show")
        try:
            return x509.load_pem_x509_certificate(str(config.get("ca", "")).encode()).public_bytes(Encoding.DER)
        except UNREADABLE:
            raise ValueError("the link's authority is no certificate") from None


def make(
    settings: Ipsec, centre: str, addresses: Iterable[str], *, lead: Lead | None = None, netns: str | None = None
) -> IpsecKind:
    """Return the kind for a gateway's configuration; ``addresses`` are its service addresses.

    ``lead({prefix: interface})`` makes routes to links' addresses, and is used where ESP is the kernel's.

    Raises ``Problem``: setting_invalid for certificate files that are none, gateway_key_unusable for a key that others
    may read.
    """
    certificate, private_key = _certificate(settings)
    gateway = Gateway(centre=centre, address=settings.address, certificate=certificate, if_id=settings.if_id)
    charon, selected = Charon(settings, gateway, netns=netns), settings.selectors or addresses
    return IpsecKind(charon, gateway, selected, private_key, lead=lead if settings.esp == "kernel" else None)


def _certificate(settings: Ipsec) -> tuple[bytes, bytes]:
    if settings.certificate_file is None or settings.private_key_file is None:
        return b"", b""
    try:
        certificate = x509.load_pem_x509_certificate(settings.certificate_file.read_bytes())
        key = load_pem_private_key(read_private(settings.private_key_file), password=None)
    except (OSError, *UNREADABLE):
        raise Problem("setting_invalid", pointer="/ipsec", expected="a certificate and its key, as PEM") from None
    shown = certificate.public_bytes(Encoding.DER)
    return shown, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _without(actual: Actual, held: Collection[str]) -> Actual:
    """Return what charon has, without what is of links that are left alone."""
    if not held:
        return actual
    return Actual(
        connections={name: one for name, one in actual.connections.items() if link_of(name) not in held},
        secrets=frozenset(name for name in actual.secrets if link_of(name) not in held),
        associations=tuple(one for one in actual.associations if link_of(one.name) not in held),
    )


def _marks(wanted: Iterable[Wanted]) -> dict[str, str]:
    given: dict[str, list[str]] = {}
    for one in wanted:
        given.setdefault(one.link, []).append(" ".join([one.name, *sorted(one.local), *sorted(one.remote)]))
    return {link: " ".join(sorted(words)) for link, words in given.items()}


def _rotated(links: Mapping[str, LinkGoal], actual: Actual) -> Iterator[str]:
    """Yield the links whose device is connected by its next key."""
    connected = {one.name for one in actual.associations if one.established}
    for link, goal in links.items():
        if goal.next_psk and f"{link}.{mark(goal.next_psk)}" in connected:
            yield link


def _sightings(actual: Actual, wanted: Mapping[str, Wanted], now_s: float) -> dict[str, Sighting]:
    """Return who is there. An IKE_SA that stands was heard within the dead peer detection's 26 s: it was seen now."""
    seen: dict[str, Sighting] = {}
    for one in actual.associations:
        if one.name in wanted and one.established and any(child.stands for child in one.children):
            sighting = Sighting(
                endpoint=one.endpoint,
                handshake_at=now_s,
                rx=sum(child.rx for child in one.children),
                tx=sum(child.tx for child in one.children),
            )
            link = link_of(one.name)
            seen[link] = merge_sightings(seen.get(link), sighting)
    return seen
