"""What a centre's gateway is told of its links of kind ``ipsec``: the table ``[ipsec]`` of its configuration file.

```toml
[ipsec]
directory = "/var/lib/chukan/gateway/ipsec"     # charon's own: socket, configuration, pid
address = "198.51.100.1"                        # the outer address that devices call; "%any" for all
esp = "userspace"                               # or "kernel", with the number of an XFRM interface in if_id
```

Invariant: no key stands here, only the names of private files.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from chukan.errors import Problem

INTERFACE = "ipsec0"
"""The device that decrypted packets come from: charon makes it where ESP is its own, and names it so."""


class Ipsec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table. ``selectors`` are what a device may reach, the service addresses unless given.

    Where ESP is charon's own, the gateway's host must have an address in each selector: charon finds the way by it. So
    a gateway that stands apart from its exchange gives one wider range here (``10.255.0.0/16``) and has an address of
    it; the packet filter, not the selector, then says which of it a body reaches. Its devices ask for that range too: a
    narrower wish would be met with a narrower selector.

    With the kernel's ESP the host's own network configuration makes the XFRM interface ``ipsec0`` with that ``if_id``;
    the controller leads the links' addresses to it.
    """

    directory: Path
    address: str = "%any"
    esp: Literal["userspace", "kernel"] = "userspace"
    if_id: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    selectors: list[str] = []
    certificate_file: Path | None = None
    """The centre's certificate (PEM) and key, for devices that have a certificate themselves."""
    private_key_file: Path | None = None
    charon: Path = Path("/usr/lib/ipsec/charon")


def check(settings: Ipsec) -> None:
    """Raise ``Problem`` setting_invalid for what does not go together."""
    if (settings.esp == "kernel") != (settings.if_id > 0):
        raise Problem("setting_invalid", pointer="/ipsec/if_id", expected="above 0 with esp = kernel, and only then")
    if (settings.certificate_file is None) != (settings.private_key_file is None):
        raise Problem("setting_invalid", pointer="/ipsec/private_key_file", expected="certificate and key, or neither")
