"""Settings: one TOML file, overlaid by the environment, read once into frozen structures.

``CHUKAN__EXCHANGE__AGENCY_PORT=8443`` overlays ``agency_port`` of ``[exchange]``; ``CHUKAN__CELLS__EAST__HOST`` reaches
into a table of tables. Relative paths of the file are relative to the file. An unknown key is refused, with the nearest
known one, because a misspelt limit would otherwise silently not hold.

Invariant: no setting is a secret. Secrets are files, and a setting names the file; so every setting may be shown, and
``explain`` shows each one with the place that it came from. Problems name the key, never the value.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from chukan import settings_tree, toml_reading
from chukan.errors import Problem
from chukan.settings_tree import Entry

_MIB = 1024 * 1024

_MEMBER_FORMS = (
    ("name", re.compile(r"[a-z][a-z0-9-]{0,31}"), "a-z, 0-9 and hyphens, a letter first"),
    ("host", re.compile(r"[^/].*"), "a host name or an address"),
    ("rest", re.compile(r"https://[0-9A-Za-z.:\[\]-]+:[0-9]{1,5}/?"), "https://host:port"),
)
_ORIGIN: Final = re.compile(r"https://([a-z0-9.-]+)(?::[0-9]{1,5})?")
_LOGIN_FILES: Final = ("broker_password_file", "app_password_file")

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
LEAD_MIN_S: Final = 60.0
"""A change of production's common data takes effect this far ahead at least."""
Environment = Literal["production", "sandbox"]
"""What cells, key stores, common data, certificates and exports are stamped with; neither takes the other's."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where this process stands. ``address_check`` may be off in a sandbox only (DESIGN invariant 8)."""

    centre: str
    links_cell: str | None = None
    """Cell that holds the desired state of the links (団体の回線): the first by name unless given."""
    address_check: bool = True
    sandbox: bool = False
    """A test environment (検証環境): its people are synthetic, and production's keys and data are refused."""
    fraction: Positive = 1
    """N of a sandbox that is 1/N of production (本番1/Nモデル): what an agency may use is divided by it."""

    common_data_lead_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """How far ahead a change of the common data takes effect: 60 s unless given, 0 in a sandbox. Only a sandbox may
    have less than 60 s (DESIGN §7). A kill switch never waits."""

    @property
    def lead_s(self) -> float:
        """The seconds that hold."""
        if self.common_data_lead_s is not None:
            return self.common_data_lead_s
        return 0.0 if self.sandbox else LEAD_MIN_S

    @property
    def environment(self) -> Environment:
        """The word of the stamp."""
        return "sandbox" if self.sandbox else "production"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a cell: its PostgreSQL and its Patroni (``rest``), and the centre (拠点) where it stands."""

    name: str
    host: str
    port: Port
    rest: str
    centre: str


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one cell (セル): one server, or the members of a Patroni cluster of which one leads.

    With ``members`` (``[[cells.X.members]]``) there is no ``host`` and ``port``; without, ``host`` is a host name or
    the directory of a Unix socket.
    """

    host: str = ""
    port: Port = 0
    members: list[Member] = []
    restore_epoch: Positive = 1
    """Raised by a restore: only then may a cell come back with an older timeline (DESIGN §7)."""
    tls_ca_file: Path | None = None
    """Who certifies the members' PostgreSQL and Patroni; every connection to a member is verified against it."""
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None
    """This process's own certificate, which Patroni asks for."""
    database: str = "chukan"
    broker_password_file: Path | None = None
    app_password_file: Path | None = None
    """Both are needed by whoever reads these settings; only a gateway's own settings (``vpn``) have neither."""
    steward_password_file: Path | None = None
    links_password_file: Path | None = None
    """Password of the login of a gateway's process, which may read no table."""
    broker_connections: Positive = 4
    app_connections: Positive = 4


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange server: its three listeners, its certificate, and its bounds."""

    name: str
    agency_host: str = "127.0.0.1"
    agency_port: Port = 8443
    network_host: str = "127.0.0.1"
    network_port: Port = 8444
    health_host: str = "127.0.0.1"
    health_port: Port = 8445
    link_hosts: list[str] = []
    """Service addresses inside the links (団体の回線), at which agency and health listener listen too, at the same
    ports: this centre's own and the one that a device's route moves with. The network listener never does."""
    tls_certificate_file: Path
    tls_key_file: Path
    tls_ca_file: Path
    crl_files: dict[str, Path] = {}
    """Revocation lists (失効リスト) by the name of their authority, each with its issuing certificate. They are looked
    at every second, and honoured on both listeners and in calls of the network (``chukan pki crl`` makes them)."""
    signing_key_file: Path
    directory_key_file: Path
    """Public half (PEM, Ed25519) of the key that signs the common data."""
    request_bytes_max: Positive = 16 * _MIB
    in_flight_max: Positive = 256
    permit_skew_s: Seconds = 2.0
    permit_grace_s: Seconds = 30.0
    """How long after a permit's expiry an answer may still be on its way to the inquirer: then the line expires."""
    notice_hold_s: Seconds = 30.0
    drain_notice_s: Seconds = 3.0
    """How long everybody is told of a planned stop, and still served, before connections are closed. A device moves its
    route 1.1 s after ``/readyz`` says no (DESIGN §8)."""
    result_keep_days: Positive = 14


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the information-provision network (情報提供ネットワークシステム)."""

    url: str
    ca_file: Path
    verify_key_file: Path
    name: str = "network"
    """How the network names itself: sender of its envelopes, peer urn of its certificate, id of its permit key."""
    timeout_s: Seconds = 10.0


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Where to find the law's lists and the directory, when not the shipped ones are wanted."""

    law_directory: Path | None = None
    directory_file: Path | None = None


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What ``/metrics`` tells besides the exchange's own."""

    textfiles: Path | None = None
    """Folder of ``*.prom`` that drills and backups write, where no node_exporter collects them."""


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """What grants tell devices of links (団体の回線): the service addresses inside the tunnels, and their ports."""

    addresses: dict[str, str] = {}
    """Each centre's own service address; in the order of the centres' names by the plan of addresses unless given."""
    service_address: str = "10.255.255.1"
    """The one that a device's route moves with."""
    service_tunnel_port: Port = 51821
    """UDP port of the gateways' tunnels for devices of one tunnel, at the endpoint's own address."""
    service_port: Port = 0
    """Agency port there; 0: that of ``[exchange]``."""
    health_port: Port = 0
    """Likewise."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that sign and cosign the logs of records (証跡); without any, no checkpoint is made."""

    name: str = "chukan.invalid"
    """With what the logs' origin lines begin: a name of the installation's own, without spaces or plus signs."""
    signing_key_file: Path | None = None
    """This centre's private key (PEM, Ed25519). It exists in this centre only."""
    public_key_files: dict[str, Path] = {}
    """The public half of each centre's key, this one's among them."""
    memory_cell: str | None = None
    """Cell that keeps what this centre has cosigned: the one that bears the centre's name unless given."""


class Officers(msgspec.Struct, frozen=True, kw_only=True):
    """How officers (職員) sign in, and when they are out again; without a domain, by card and password alone."""

    passkey_domain: str = ""
    """Domain that passkeys are for (WebAuthn RP ID): the console's own, or one above it. Changed, all are void."""
    passkey_origins: list[str] = []
    """Where officers' browsers show the console, as ``https://console.example``; each within the domain."""
    idle_s: Annotated[int, msgspec.Meta(ge=60, le=3600)] = 900
    """A session ends when its officer was not there for so long."""
    session_s: Annotated[int, msgspec.Meta(ge=300, le=43_200)] = 36_000
    """A session ends so long after signing in, whatever its officer does."""
    failures_free: Annotated[int, msgspec.Meta(ge=0, le=9)] = 4
    """So many failures in a row lock nothing; each one beyond locks the account, each time for twice as long."""
    lock_first_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 300
    lock_max_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 86_400


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """What only an operator's machine has; no exchange needs it."""

    directory_signing_key_file: Path | None = None
    """Private key (PEM, Ed25519) that signs the common data; ``--directory-key`` goes before it."""
    certificate_file: Path | None = None
    """Certificate (PEM, named ``operator.…``) of whoever acts, once there is an operators' register."""
    key_file: Path | None = None
    """Its private key (PEM)."""


class KeyToken(msgspec.Struct, frozen=True, kw_only=True):
    """The token (HSM) that holds one centre's master keys (親鍵), reached by PKCS#11."""

    module: Path
    """The library of the HSM's maker."""
    token: str
    """Label of the token."""
    pin_file: Path
    """File with the PIN in one line, of mode 0600."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one process; ``keystores`` maps a centre (拠点) to its key-store directory.

    ``key_tokens`` maps a centre to the token of its master keys; without any they lie in the directories, for a demo.
    """

    site: Site
    cells: dict[str, Cell]
    exchange: Exchange
    network: Network
    keystores: dict[str, Path]
    key_tokens: dict[str, KeyToken] = {}
    data: Data = Data()
    metrics: Metrics = Metrics()
    evidence: Evidence = Evidence()
    officers: Officers = Officers()
    operator: Operator = Operator()
    links: Links = Links()

    @property
    def links_cell(self) -> str:
        """The cell that holds the desired state of the links."""
        return self.site.links_cell or min(self.cells)


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check the settings.

    Raises ``Problem``: settings_unreadable, setting_unknown, setting_missing, setting_invalid, setting_forbidden.
    """
    raw = settings_tree.read(Settings, path, environ)
    for name, members in raw.tree.get("cells", {}).items():
        # Each cell by itself first: msgspec does not say under which key of a table of tables it stumbled.
        for key in (*(() if members.get("members") else ("host", "port")), *_LOGIN_FILES):
            if key not in members:
                raise Problem("setting_missing", pointer=f"/cells/{name}/{key}")
        toml_reading.convert(members, Cell, f"/cells/{name}")
    settings = toml_reading.convert(raw.tree, Settings, "")
    _check_site(settings)
    _check_tokens(settings)
    check_officers(settings.officers)
    check_link_hosts(settings.exchange)
    for name, cell in settings.cells.items():
        check_cell(f"/cells/{name}", cell)
    names = [(at, member.name) for at, member in _members(settings.cells)]
    for position, (at, name) in enumerate(names):
        # A member's name is its name as a synchronous standby: twice, it would silently stand for another one.
        if name in {earlier for _, earlier in names[:position]}:
            raise Problem("setting_invalid", pointer=f"{at}/name", expected="a name of its own over all cells")
    return settings


def _check_site(settings: Settings) -> None:
    """Refuse what only a sandbox may have, and a cell that there is not."""
    if not settings.site.address_check and not settings.site.sandbox:
        raise Problem("setting_forbidden", pointer="/site/address_check")
    if settings.site.fraction != 1 and not settings.site.sandbox:
        raise Problem("setting_forbidden", pointer="/site/fraction")
    if settings.site.lead_s < LEAD_MIN_S and not settings.site.sandbox:
        raise Problem("setting_forbidden", pointer="/site/common_data_lead_s", expected="at least 60 s")
    if settings.site.links_cell is not None and settings.site.links_cell not in settings.cells:
        raise Problem("setting_invalid", pointer="/site/links_cell", expected="the name of a cell")


def _check_tokens(settings: Settings) -> None:
    """Refuse tokens for some centres only, and one token for two: each centre's master keys are its own."""
    if not settings.key_tokens:
        return
    for centre in sorted({*settings.keystores, *settings.key_tokens}):
        if centre not in settings.key_tokens or centre not in settings.keystores:
            table = "key_tokens" if centre in settings.keystores else "keystores"
            raise Problem("setting_missing", pointer=f"/{table}/{centre}")
    tokens = [(token.module, token.token) for token in settings.key_tokens.values()]
    if len(set(tokens)) != len(tokens):
        raise Problem("setting_invalid", pointer="/key_tokens", expected="a token of its own for each centre")


def check_officers(officers: Officers) -> None:
    """Refuse origins that no browser would let use the domain's passkeys, and ends that come before what they end.

    Raises ``Problem``: setting_missing, setting_invalid.
    """
    if officers.session_s < officers.idle_s:
        raise Problem("setting_invalid", pointer="/officers/session_s", expected="at least idle_s")
    if officers.lock_max_s < officers.lock_first_s:
        raise Problem("setting_invalid", pointer="/officers/lock_max_s", expected="at least lock_first_s")
    if bool(officers.passkey_domain) != bool(officers.passkey_origins):
        missing = "passkey_origins" if officers.passkey_domain else "passkey_domain"
        raise Problem("setting_missing", pointer=f"/officers/{missing}")
    for position, origin in enumerate(officers.passkey_origins):
        match = _ORIGIN.fullmatch(origin)
        host = "" if match is None else match[1]
        if host != officers.passkey_domain and not host.endswith(f".{officers.passkey_domain}"):
            pointer = f"/officers/passkey_origins/{position}"
            raise Problem(
                "setting_invalid", pointer=pointer, expected="https://, a host within the domain, a port if any"
            )


def check_link_hosts(exchange: Exchange) -> None:
    """Refuse what is no address of its own: bodies meet these listeners at their own addresses, and no others there."""
    for position, host in enumerate(exchange.link_hosts):
        others = {exchange.agency_host, exchange.health_host, exchange.network_host, *exchange.link_hosts[:position]}
        if _is_wildcard(host) is not False or host in others:
            pointer = f"/exchange/link_hosts/{position}"
            raise Problem("setting_invalid", pointer=pointer, expected="an address that no other listener has")
    for key in ("agency_host", "health_host", "network_host"):
        # A listener of all addresses would answer inside the links too, with what is not for bodies.
        if exchange.link_hosts and _is_wildcard(getattr(exchange, key)):
            raise Problem("setting_invalid", pointer=f"/exchange/{key}", expected="one address beside link_hosts")


def _is_wildcard(host: str) -> bool | None:
    """Tell whether this stands for all addresses; None for what is no address."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return True if host == "" else None


def _members(cells: Mapping[str, Cell]) -> Iterator[tuple[str, Member]]:
    for name, cell in cells.items():
        for position, member in enumerate(cell.members):
            yield f"/cells/{name}/members/{position}", member


def check_cell(at: str, cell: Cell) -> None:
    """Refuse a cell that cannot be meant: a server and members at once, members without TLS or of a wrong form.

    Raises ``Problem`` setting_forbidden, setting_missing, setting_invalid, with the place under ``at``.
    """
    if not cell.members:
        return
    if cell.host:
        raise Problem("setting_forbidden", pointer=f"{at}/host", expected="members or a host")
    for key in ("tls_ca_file", "tls_certificate_file", "tls_key_file"):
        if getattr(cell, key) is None:
            raise Problem("setting_missing", pointer=f"{at}/{key}")
    for position, member in enumerate(cell.members):
        for key, form, words in _MEMBER_FORMS:
            if form.fullmatch(getattr(member, key)) is None:
                raise Problem("setting_invalid", pointer=f"{at}/members/{position}/{key}", expected=words)


def explain(path: Path | None, environ: Mapping[str, str]) -> list[Entry]:
    """Return every setting with its value and source, also when some are missing or wrong in value.

    Raises ``Problem`` settings_unreadable or setting_unknown.
    """
    return list(settings_tree.explain(Settings, settings_tree.read(Settings, path, environ)))
