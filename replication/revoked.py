"""Calls to a cell's members (PostgreSQL, Patroni's REST) end at the handshake where the other's certificate is revoked.

The check stands in the connection's own handshake, after OpenSSL has found that the certificate leads to a trusted
root: before anything is asked, and before a password is on its way. Whether it is revoked is asked of whoever holds the
lists, which are honoured as they change; nothing is started anew.

Invariant: only refuses; it never lets anybody through whom the context would not. Connections that stand go on.
"""

import ssl
from collections.abc import Callable
from typing import TypeAlias

Refuses: TypeAlias = Callable[[bytes], bool]
"""Tells whether the certificate with this content (DER) is revoked."""


def refusing(context: ssl.SSLContext, refuses: Refuses) -> ssl.SSLContext:
    """Have a client's context refuse revoked certificates: a handshake raises ``ssl.SSLCertVerificationError`` then."""

    class Checked(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            shown = self.getpeercert(binary_form=True)
            if shown is None or refuses(shown):
                raise ssl.SSLCertVerificationError("the certificate is revoked")

    context.sslobject_class = Checked
    return context
