"""Patroni with a REST API that refuses revoked certificates (失効): ``python -m chukan.replication.patroni_rest FILE``.

FILE is its configuration. Patroni has no setting for revocation lists. This is Patroni, started by its own ``main``,
with its server of the REST API asked one thing more: after the handshake, and before a byte of a request is read, the
serial number of the caller's certificate is looked for among the revoked ones. They lie in the file that the
configuration names (``restapi.revoked_serials``), which ``chukan pki join`` writes from lists that it verified; serials
are random (159 bits), so that one authority's never hits another's. The file is looked at for each connection: nothing
is started anew.

Invariants: only refuses; whoever Patroni itself would not let in stays outside. Told of a file, it does not start
without a good one, and the last good one goes on whatever lies there later; told of none, it refuses nobody for it.
TLS is 1.3 alone.
It must never end connections of PostgreSQL, decide about leaders, or import more of this project than the ground: it
runs as the databases' user, where the rest cannot be read. No core dump holds the memory of it or of its PostgreSQL.
"""

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chukan import core_dumps
from chukan.replication.revoked_serials import Serials

OPTION: Final = "revoked_serials"
_HELD: Final = "chukan_revoked"

_log = logging.getLogger("chukan.patroni_rest")
"""Patroni's own log, in its form: this process has no other."""


def refuse_revoked(server: Any) -> None:  # noqa: ANN401 - of a class without types
    """Have Patroni's server of the REST API refuse revoked certificates; one connection is one request (HTTP/1.0).

    Its own methods are replaced, not the class: Patroni calls those above them by the name of the class.
    """
    reload_config, finish_request = server.reload_config, server.finish_request

    def reloading(self: Any, config: Mapping[str, Any]) -> None:  # noqa: ANN401
        """Take the settings, at the start and when Patroni reloads; a file that is followed is followed on."""
        named, known = config.get(OPTION), getattr(self, _HELD, None)
        if named is None:
            setattr(self, _HELD, None)
        elif known is None or str(known.path) != named:
            setattr(self, _HELD, Serials(Path(named)))
        reload_config(self, config)
        if isinstance(self.socket, ssl.SSLSocket):
            # Nor has it a setting for this; everybody here speaks 1.3.
            self.socket.context.minimum_version = ssl.TLSVersion.TLSv1_3

    def finishing(self: Any, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer a request, unless its sender's certificate is revoked: then the connection ends unread."""
        held: Serials | None = getattr(self, _HELD, None)
        if held is not None and isinstance(request, ssl.SSLSocket):
            shown = request.getpeercert() or {}
            if held.refuses(str(shown["serialNumber"]) if "serialNumber" in shown else None):
                _log.warning("a caller's certificate is revoked, nothing is read of it")
                return
        finish_request(self, request, client_address)

    server.reload_config, server.finish_request = reloading, finishing


def main() -> None:
    """Be Patroni."""
    core_dumps.forbid()
    # Not before: who imports Patroni has its umask from then on.
    from patroni.__main__ import main as patroni_main  # type: ignore[import-untyped] # noqa: PLC0415 - brings no types
    from patroni.api import RestApiServer  # type: ignore[import-untyped] # noqa: PLC0415

    refuse_revoked(RestApiServer)
    patroni_main()


if __name__ == "__main__":
    main()
