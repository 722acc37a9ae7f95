"""How officers (職員) sign in, in the settings of exchanges: the same everywhere, for a session serves at both centres.

Invariant: pure; no operator's settings say anything of officers.
"""

from collections.abc import Mapping

import msgspec

from chukan.replication.plain_toml import Value
from chukan.replication.site import Site


def tables(site: Site) -> list[tuple[str, Mapping[str, Value]]]:
    """Return ``[officers]`` of an exchange; nothing for a site that says nothing of them."""
    return [] if site.officers is None else [("officers", msgspec.to_builtins(site.officers))]
