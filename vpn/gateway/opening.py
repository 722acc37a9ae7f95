"""Opens the pre-shared keys that are sealed for this gateway, each once: 2,500 of them take a fifth of a second.

Invariant: the clear keys live in memory alone, here and in what is given to the interfaces, and in no file.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.vpn.psk_sealing import PskSealError, open_psk

OPENED_MAX: Final = 50_000
"""Beyond it all is forgotten and opened anew: a bound, not a working size."""


class PskOpener:
    """``opener(link, sealed)`` returns the key, or None where it does not open here."""

    def __init__(self, private: X25519PrivateKey, centre: str) -> None:
        self._private = private
        self._centre = centre
        self._opened: dict[tuple[str, bytes], bytes | None] = {}

    def __call__(self, link: str, sealed: bytes) -> bytes | None:
        """Return the pre-shared key of a link, None where it does not open."""
        place = (link, sealed)
        if place not in self._opened:
            if len(self._opened) >= OPENED_MAX:
                self._opened.clear()
            try:
                self._opened[place] = open_psk(self._private, sealed, link=link, to=self._centre)
            except PskSealError:
                self._opened[place] = None
        return self._opened[place]
