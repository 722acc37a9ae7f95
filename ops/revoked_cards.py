"""Which officers' cards are revoked, for orders (指示書): what was signed with a stolen card is nobody's order.

The lists are those that the exchange honours (``[exchange] crl_files``), read anew at each order. Invariant: a list
that is named and cannot be read or trusted stops the order; it is never taken for an empty one. One past its next
update is still heard, as at the exchange: what it revokes stays revoked.
"""

import datetime as dt

from cryptography import x509

from chukan.errors import Problem
from chukan.ops.certificates import read_certificates
from chukan.platform import revocation
from chukan.platform.revocation import Identity
from chukan.settings import Settings
from chukan.tenants.orders import Revoked


def revoked_cards(settings: Settings, now: dt.datetime) -> Revoked:
    """Return what tells whether a certificate is on any list of these settings.

    Raises ``Problem`` revocation_list_invalid (``expected`` says why), certificate_unreadable without a root.
    """
    roots = read_certificates(settings.exchange.tls_ca_file)
    named: set[Identity] = set()
    for path in settings.exchange.crl_files.values():
        try:
            with path.open("rb") as file:
                content = file.read(revocation.BYTES_MAX + 1)
        except OSError:
            raise Problem("revocation_list_invalid", expected="a readable file") from None
        found = revocation.parse(content, roots, now)
        named.update(Identity(found.issuer, serial) for serial in found.serials)

    def revoked(certificate: x509.Certificate) -> bool:
        return Identity(certificate.issuer.public_bytes(), certificate.serial_number) in named

    return revoked
