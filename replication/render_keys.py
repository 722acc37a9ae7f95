"""The tokens (HSM) of the centres' master keys (親鍵) in the settings of exchanges and of the operator.

Invariant: pure; a PIN is never here, only the place of its file.
"""

from collections.abc import Mapping

from chukan.replication.plain_toml import Value
from chukan.replication.site import Site

Table = tuple[str, Mapping[str, Value]]


def tables(site: Site) -> list[Table]:
    """Return ``[keystores]`` with each centre's folder, and ``[key_tokens.<centre>]`` where the site names tokens."""
    folders: Mapping[str, Value] = {centre: site.directory(centre) / "keystore" for centre in site.centres}
    tokens: list[Table] = [
        (f"key_tokens.{centre}", {"module": row.module, "token": row.token, "pin_file": row.pin_file})
        for centre, row in site.key_tokens.items()
    ]
    return [("keystores", folders), *tokens]
