"""Lets an operator's command at an installation only if whoever acts has the role for it (運用者の権限).

Who acts is said by a certificate named ``operator.…`` and its private key (``[operator] certificate_file``,
``key_file``, which each person sets by CHUKAN__OPERATOR__CERTIFICATE_FILE and so on); what they may do, by the
operators' register in force, which two people changed. As long as there is no register every command is let in.

Invariant: deny by default once there is a register. Roles say who may give orders; what keeps operators from reading is
that they have no key, here and everywhere. Whoever is root on a host and has the steward's password needs no command.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chukan import log
from chukan.clock import to_jst
from chukan.errors import Problem
from chukan.ops import operator_roles
from chukan.ops.certificates import Issued, read_certificates, read_identity
from chukan.ops.revoked_cards import revoked_cards
from chukan.platform.law.masters import operators
from chukan.replication.primary import Cells
from chukan.settings import Settings
from chukan.tenants import master_book, masters
from chukan.tenants.common_reading import read_common
from chukan.tenants.credentials import UntrustedError, verify_chain
from chukan.tenants.operator_register import Register, Role

_log = log.get("ops.operator_gate")
_AWAY: Final = frozenset({"no_primary", "unavailable", "busy"})
"""What is said of cells of which none answers."""


class Holder(NamedTuple):
    """Who holds a certificate of an operator, and its key."""

    name: str
    chain: list[x509.Certificate]
    key: ec.EllipticCurvePrivateKey


def read_holder(settings: Settings, issued: Issued, now: dt.datetime) -> Holder:
    """Return who holds a certificate and its key.

    Raises ``Problem``: master_invalid (not of this installation's authority, revoked, not an operator's),
    certificate_unreadable, revocation_list_invalid.
    """
    chain = read_certificates(issued.certificate)
    identity = read_identity(issued)
    try:
        credential = verify_chain(chain, read_certificates(settings.exchange.tls_ca_file), now)
    except UntrustedError:
        raise Problem("master_invalid", expected="a certificate of this installation's authority") from None
    revoked = revoked_cards(settings, now)
    if any(revoked(each) for each in chain):
        raise Problem("master_invalid", expected="a certificate that is not revoked")
    if not credential.client.startswith(masters.PERSON_PREFIX) or chain[0].public_key() != identity.key.public_key():
        raise Problem("master_invalid", expected=f"a certificate named {masters.PERSON_PREFIX}… and its private key")
    return Holder(credential.client, chain, identity.key)


async def register_in_force(settings: Settings, cells: Cells, public: Ed25519PublicKey) -> Register:
    """Return the register that the common data names, of the cells that answer.

    Raises ``Problem``: as a cell says that is away; signature_invalid; master_invalid.
    """
    snapshot = (await read_common(cells, public, past_missing=True)).snapshot
    named = None if snapshot is None else masters.named(snapshot.law_number)
    if named is None:
        return operators({}, settings.data.law_directory)
    body = (await master_book.get_anywhere(cells, named.digest)).body
    if masters.digest_of(body) != named.digest:
        raise Problem("master_invalid", expected="the version that was named")
    return operators(masters.unpack(body).files, settings.data.law_directory)


def require(register: Register, name: str, role: Role, now: dt.datetime) -> None:
    """Refuse somebody who has not got a role today. Raises ``Problem`` operator_role_required."""
    if not register.may(name, role, to_jst(now).date()):
        _log.warning("operator refused", peer=name, stage=role, code="operator_role_required")
        raise Problem("operator_role_required", expected=f"the role {role} in the operators' register")


async def admit(settings: Settings, cells: Cells, public: Ed25519PublicKey, now: dt.datetime) -> None:
    """Let the command in that was begun, or refuse it.

    Raises ``Problem``: operator_role_required, and as ``read_holder`` and ``register_in_force``.
    """
    needed = operator_roles.needed()
    try:
        register = await register_in_force(settings, cells, public)
    except Problem as problem:
        if problem.code in _AWAY and not operator_roles.needs_cells():
            return  # no cell says who may; what it does harms nothing
        raise
    if not register.operators or needed == "signed":
        return
    mine = settings.operator
    if mine.certificate_file is None or mine.key_file is None:
        raise Problem("operator_role_required", expected="[operator] certificate_file and key_file of who acts")
    holder = read_holder(settings, Issued(mine.certificate_file, mine.key_file), now)
    require(register, holder.name, needed, now)
    _log.info("operator acts", peer=holder.name, stage=needed)
