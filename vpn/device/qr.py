"""A configuration as a QR code, for a device that is set up by a camera: on the terminal, as SVG or as PNG.

Invariant: the picture holds the private key. What is returned here goes to a screen that one person sees, or into a
file of mode 0600, and nowhere else.
"""

import io
from typing import Literal

import segno

_SCALE = 6
_BORDER = 4


def on_terminal(text: str) -> str:
    """Return the code drawn with half blocks."""
    out = io.StringIO()
    _code(text).terminal(out, compact=True, border=2)
    return out.getvalue()


def as_file(text: str, kind: Literal["svg", "png"]) -> bytes:
    """Return the code as the content of a picture's file."""
    out = io.BytesIO()
    _code(text).save(out, kind=kind, scale=_SCALE, border=_BORDER)
    return out.getvalue()


def _code(text: str) -> segno.QRCode:
    return segno.make_qr(text, error="m")
