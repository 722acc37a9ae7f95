"""Whose certificate this is: a client certificate that is read from a document instead of from a connection.

On a connection TLS itself checks the chain; here the same is done for certificates that come along with something
signed: the chain leads to this installation's authority, it is valid at the instant, it is for client authentication,
and its one name ``urn:chukan:client:<id>`` is the registered id.

Invariant: a credential is made only of a chain that was verified. What its holder may do is the directory's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

CLIENT_URN: Final = "urn:chukan:client:"
CHAIN_MAX: Final = 4
"""Certificates of a chain, the root left out."""
_INTERMEDIATES_MAX: Final = 2
UNREADABLE: Final = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
"""What the library raises for a certificate, request or list that is none, when it is read or when a part of it is
asked for; most of these are no ``ValueError``."""


class UntrustedError(Exception):
    """A chain of certificates that proves no client's identity here. The text names no one."""


class Credential(NamedTuple):
    """A client's verified identity: its registered id and the public key (P-256) that signs in its name."""

    client: str
    public: ec.EllipticCurvePublicKey


def read_chain(certificates: Sequence[bytes]) -> list[x509.Certificate]:
    """Return the certificates of DER bytes; ``UntrustedError`` for anything else, or for more than a chain has."""
    if not 1 <= len(certificates) <= CHAIN_MAX:
        raise UntrustedError("a chain has one to four certificates")
    try:
        return [x509.load_der_x509_certificate(each) for each in certificates]
    except UNREADABLE:
        raise UntrustedError("a certificate cannot be read") from None


def name_of(certificate: x509.Certificate) -> str:
    """Return the client id that a certificate names; an identity that has to be guessed is none.

    Raises:
        UntrustedError: it names no client, or more than one thing of ours.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        raise UntrustedError("a certificate names nobody") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or not uris[0].startswith(CLIENT_URN):
        raise UntrustedError("a certificate names no client")
    return uris[0].removeprefix(CLIENT_URN)


def verify_chain(chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate], at: dt.datetime) -> Credential:
    """Return the identity that a chain proves.

    Args:
        chain: the client's own certificate first, then those above it, without the root.
        trusted: the authority's roots.
        at: the instant at which every certificate of the chain must be valid.

    Raises:
        UntrustedError: it proves none (no path to a root, out of date, for another use, no P-256 key, no client).
    """
    if not trusted or not 1 <= len(chain) <= CHAIN_MAX:
        raise UntrustedError("there is no chain to verify")
    policy = PolicyBuilder().store(Store(list(trusted))).time(at).max_chain_depth(_INTERMEDIATES_MAX)
    try:
        policy.build_client_verifier().verify(chain[0], list(chain[1:]))
        public = chain[0].public_key()
    except (VerificationError, *UNREADABLE):
        raise UntrustedError("a certificate is not of this authority, or not valid now") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise UntrustedError("a certificate has no P-256 key")
    return Credential(name_of(chain[0]), public)
