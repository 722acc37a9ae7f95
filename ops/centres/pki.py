"""Certificates, signing keys and passwords of the lab: an authority at each site, one outside for everybody else.

Nodes, etcd and exchanges trust the three sites' roots (``sites.pem``) among themselves; agencies' systems, the network
and the counterparts are certified outside, and only the exchanges' own listeners trust them (``everybody.pem``): an
agency's certificate opens no database, no etcd and no REST. What both centres need lies in each of them as a copy, so
that either can go on without the other's tree.
"""

import datetime as dt
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from chukan.chance import Chance
from chukan.clock import Clock
from chukan.ops import certificate_life, revocation_joining
from chukan.ops.certificates import Authority, Issued, read_certificates
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES, Credentials
from chukan.ops.demo.config import SigningKey, keep_password
from chukan.ops.demo.neighbours import COUNTERPARTS, NETWORK, REGISTRY
from chukan.ops.demo.place import Place
from chukan.ops.local.machine import Identity
from chukan.replication import backup, render, render_evidence, render_revocation
from chukan.replication.site import ExchangeHost, Site, backup_hosts, members

_RENEW_BEFORE: Final = dt.timedelta(days=1)
_LOOPBACK: Final = "127.0.0.1"


class Outside(Authority):
    """The authority of everybody outside; what its clients trust includes the exchanges' roots."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Open it."""
        super().__init__(folder, clock)
        self.trusted = folder / "everybody.pem"


class LabCredentials(Credentials):
    """All that is certified or signed with in the lab, made when missing."""

    def __init__(self, site: Site, place: Place, clock: Clock, chance: Chance) -> None:
        """Make what is missing; ``place`` is that of everybody outside the centres."""
        self._site, self._now = site, clock.now
        sites = (*site.centres, site.witness.name)
        authorities = {name: _authority(site.directory(name) / "pki", f"Chukan lab {name}", clock) for name in sites}
        outside = _authority(place.pki, "Chukan lab outside", clock)
        self._bundles(authorities, outside)
        self.authority = Outside(place.pki, clock)
        for name, authority in authorities.items():
            for peer in site.members(name):
                self._certify(authority, peer, _addresses(site, peer))
        for host in backup_hosts(site):
            # pgBackRest compares names in a certificate with the address that it connects to, and knows no addresses.
            address = site.address(host)
            self._certify(authorities[site.where(host)], address, [f"DNS:{address}"])
        self._operator(authorities[site.witness.name])
        if site.revocation is not None:
            hand_out(site, authorities, clock)
        network = next(iter(site.operator.addresses))
        beside = {name: self._certify(outside, name, [network]) for name in (NETWORK, REGISTRY, *COUNTERPARTS)}
        exchanges = {name: Issued(*site.certificate(name, centre)[:2]) for name, centre in EXCHANGES.items()}
        self.peers = {**beside, **exchanges}
        self.clients = {client.id: self._keep_client(outside, client.id) for client in cast.clients()}
        self.signing = self._signing(place)
        self._passwords(chance)

    # ------------------------------------------------------------ certificates

    def _bundles(self, authorities: dict[str, Authority], outside: Authority) -> None:
        roots = [authority.folder / "ca.pem" for authority in authorities.values()]
        for authority in (*authorities.values(), outside):
            _join(roots, authority.folder / "sites.pem")
            _join([*roots, outside.folder / "ca.pem"], authority.folder / "everybody.pem")

    def _certify(self, authority: Authority, name: str, addresses: list[str]) -> Issued:
        hosts = list(dict.fromkeys(["localhost", _LOOPBACK, *addresses]))

        def issue() -> Issued:
            return authority.issue_peer(name, hosts=hosts)

        return self._kept(authority.folder / "peers" / name, issue, addresses)

    def _keep_client(self, authority: Authority, name: str) -> Issued:
        return self._kept(authority.folder / "clients" / name, lambda: authority.issue_client(name))

    def _kept(self, home: Path, issue: Callable[[], Issued], addresses: Sequence[str] = ()) -> Issued:
        kept = Issued(home / "certificate.pem", home / "key.pem")
        if not kept.certificate.exists():
            return issue()
        certificate = read_certificates(kept.certificate)[0]
        # One of an earlier start without links does not bear the addresses inside them.
        if certificate.not_valid_after_utc - self._now() < _RENEW_BEFORE or not _bears(certificate, addresses):
            home.rename(home.with_name(f"{home.name}.{self._now():%Y%m%dT%H%M%S}"))
            return issue()
        return kept

    def _operator(self, authority: Authority) -> None:
        folder = self._site.operator.directory
        folder.mkdir(mode=0o700, exist_ok=True)
        issued = self._certify(authority, "operator", list(self._site.operator.addresses))
        for source, name in ((issued.certificate, "certificate.pem"), (issued.key, "key.pem")):
            _copy(source, folder / name, 0o600)
        _copy(authority.folder / "everybody.pem", folder / "ca.pem", 0o644)

    # ------------------------------------------------------------ keys and passwords

    def _signing(self, place: Place) -> dict[str, SigningKey]:
        keys = {name: SigningKey(place.signing, name) for name in (NETWORK, REGISTRY, *COUNTERPARTS)}
        folder = self._site.operator.directory / "signing"
        folder.mkdir(mode=0o700, exist_ok=True)
        keys["directory"] = SigningKey(folder, "directory")
        for name, centre in EXCHANGES.items():
            mine = self._site.directory(centre) / "signing"
            mine.mkdir(mode=0o700, exist_ok=True)
            keys[name] = SigningKey(mine, name)
            _copy(keys["directory"].public_file, mine / "directory.public.pem", 0o644)
            # The network knows the exchanges by copies of its own: a lost centre takes nothing of it along.
            _copy(keys[name].public_file, place.signing / f"{name}.public.pem", 0o644)
        self.evidence = self._evidence()
        for key in self.evidence.values():
            _copy(key.public_file, place.signing / key.public_file.name, 0o644)
        return keys

    def _evidence(self) -> dict[str, SigningKey]:
        """Make each centre's evidence key in its own tree, and give everybody a copy of its public half."""
        site, keys = self._site, dict[str, SigningKey]()
        for centre in site.centres if site.evidence is not None else ():
            own = render_evidence.private_file(site, centre)
            keys[centre] = key = SigningKey(own.parent, own.stem)
            for folder in (*(site.directory(each) for each in site.centres if each != centre), site.operator.directory):
                target = render_evidence.public_file(folder, centre)
                target.parent.mkdir(mode=0o700, exist_ok=True)
                _copy(key.public_file, target, 0o644)
        return keys

    def _passwords(self, chance: Chance) -> None:
        """Make each password once, at the operator's, and give each centre its copy."""
        source = self._site.operator.directory / "passwords"
        source.mkdir(mode=0o700, exist_ok=True)
        for name in password_names(self._site):
            keep_password(source / name, chance)
            for centre in self._site.centres:
                target = self._site.password(name, centre)
                target.parent.mkdir(mode=0o700, exist_ok=True)
                _copy(source / name, target, 0o600)
        for cell in self._site.cells if self._site.backup is not None else ():
            for centre in self._site.centres:
                # Of its centre alone: who takes one repository away has nothing to read the other with.
                keep_password(backup.key_file(self._site, cell, centre), chance)

    def give(self, identity: Identity | None) -> None:
        """Hand the servers' keys to the user that they run as."""
        if identity is None:
            return
        site = self._site
        members = [(member.name, site.where(member.host)) for member in site.etcd.members]
        members += [(node.name, site.where(node.host)) for _, node in site.nodes()]
        members += [(site.address(host), site.where(host)) for host in backup_hosts(site)]
        for name, place in members:
            certificate, key, _ = site.certificate(name, place)
            for path in (certificate.parent, certificate, key):
                os.chown(path, identity.uid, identity.gid)


def hand_out(site: Site, authorities: Mapping[str, Authority], clock: Clock) -> None:
    """Do what the operators' page says is done each day: sign the lists, hand them to every place, join them there.

    In a lab it is done at each start; what runs for longer than a list is good (31 days) is shut out by PostgreSQL.
    """
    folders = {place: render_revocation.folder(site, place) for place in authorities}
    for folder in folders.values():
        folder.mkdir(mode=0o755, exist_ok=True)
    for name, authority in authorities.items():
        revocation_joining.write_root_list(authority, copies=[each / f"{name}-root.pem" for each in folders.values()])
        copies = [each / f"{name}.pem" for each in folders.values()]
        certificate_life.write_list(authority, days=certificate_life.LIST_DAYS_MAX, copies=copies)
    for place, folder in folders.items():
        files = [folder / f"{name}.pem" for name in render_revocation.authorities(site)]
        revocation_joining.join(files, read_certificates(authorities[place].folder / "sites.pem"), folder, clock)


def password_names(site: Site) -> Iterator[str]:
    """Yield the names of all password files."""
    yield render.REST_PASSWORD
    for cell in site.cells:
        for short in render.PASSWORDS:
            yield f"{cell}-{short}"


def _authority(folder: Path, name: str, clock: Clock) -> Authority:
    exists = (folder / "ca.pem").exists()
    return Authority(folder, clock) if exists else Authority.create(folder, name, clock, "sandbox")


def _addresses(site: Site, name: str) -> list[str]:
    found = [(row, site.address(row.host)) for _, row in members(site) if row.name == name]
    inside = [
        address
        for row, _ in found
        if isinstance(row, ExchangeHost) and site.links is not None
        for address in site.services(site.where(row.host)).addresses
    ]
    return [*(address for _, address in found), *inside]


def _bears(certificate: x509.Certificate, addresses: Sequence[str]) -> bool:
    """Tell whether a certificate names these addresses; those with a form of their own (``DNS:``) are not looked at."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    borne = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return {address for address in addresses if ":" not in address} <= borne


def _join(parts: list[Path], target: Path) -> None:
    _replace(target, b"".join(part.read_bytes() for part in parts), 0o644)


def _copy(source: Path, target: Path, mode: int) -> None:
    _replace(target, source.read_bytes(), mode)


def _replace(target: Path, content: bytes, mode: int) -> None:
    if target.exists() and target.read_bytes() == content:
        return
    aside = target.with_name(f".{target.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    aside.rename(target)


def clear_tree(folder: Path) -> None:
    """Remove a tree whose folders may have been made unreadable."""
    if folder.exists():
        folder.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
