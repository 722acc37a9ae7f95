"""The evidence keys (証跡の鍵) in the settings of exchanges and of the operator: who signs, cosigns, remembers where.

Each centre holds its own private half and the public halves of both, as copies: ``signing/evidence-<centre>.pem`` and
``.public.pem`` under its directory. What a centre has cosigned is remembered in the cell whose home it is, apart from
the logs of the other one.

Invariant: pure; a private key is named in the settings of its own centre only, never in the operator's.
"""

from collections.abc import Mapping
from pathlib import Path

from chukan.replication.plain_toml import Value
from chukan.replication.site import Site

Table = tuple[str, Mapping[str, Value]]


def private_file(site: Site, centre: str) -> Path:
    """Return the file of a centre's private key."""
    return site.directory(centre) / "signing" / f"evidence-{centre}.pem"


def public_file(folder: Path, centre: str) -> Path:
    """Return the file of a centre's public key in the folder of whoever reads it."""
    return folder / "signing" / f"evidence-{centre}.public.pem"


def tables(site: Site, centre: str) -> list[Table]:
    """Return ``[evidence]`` of an exchange of a centre; nothing for a site that signs no log."""
    if site.evidence is None:
        return []
    memory = min((name for name, cell in site.cells.items() if cell.home == centre), default=min(site.cells))
    own: Mapping[str, Value] = {"signing_key_file": private_file(site, centre), "memory_cell": memory}
    return [("evidence", {"name": site.evidence.name, **own}), _public(site, site.directory(centre))]


def operator_tables(site: Site) -> list[Table]:
    """Return ``[evidence]`` of the operator's settings: public keys, for exports and for showing them."""
    if site.evidence is None:
        return []
    return [("evidence", {"name": site.evidence.name}), _public(site, site.operator.directory)]


def _public(site: Site, folder: Path) -> Table:
    return "evidence.public_key_files", {centre: public_file(folder, centre) for centre in site.centres}
