"""How ``chukan records verify`` tells what it found of kept messages (電文の証跡), for people and as JSON.

It reads the network's public keys from files that the checker names, never from the evidence file, and judges nothing.
"""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from chukan.errors import Problem
from chukan.platform.message_check import SHOWS, WORDS, MessageReport


def read_network_keys(paths: tuple[Path, ...]) -> list[Ed25519PublicKey]:
    """Return the keys (Ed25519, PEM) of the network. Raises ``Problem`` setting_invalid."""
    keys = []
    for path in paths:
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise Problem("setting_invalid", pointer="--network-key", expected="an Ed25519 public key (PEM)")
        keys.append(key)
    return keys


def document(report: MessageReport) -> dict[str, Any]:
    """Return what was found, for JSON."""
    return {
        "sound": report.sound,
        "lists": report.lists,
        "permits": report.permits,
        "bound": dict(sorted(report.bound.items())),
        "others": dict(sorted(report.others.items())),
        "without": report.without,
        "findings": [each._asdict() | {"means": WORDS[each.code]} for each in report.findings],
        "shows": SHOWS,
    }


def rows(report: MessageReport) -> list[list[str]]:
    """Return what was found, for a table."""
    told = [
        ["messages", f"{report.lists} lists and {report.permits} permits signed by the network"],
        ["bound to records", _counts(report.bound)],
        ["signed, not bound", _counts(report.others)],
        ["records without", str(report.without)],
    ]
    if report.sound:
        return [*told, ["messages show", SHOWS]]
    return told + [[each.code, f"{each.first or ''} {WORDS[each.code]}".strip()] for each in report.findings]


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(found.items())) or "none"
