"""Words of nftables' JSON (libnftables-json(5)) from which ``vpn.firewall`` puts the gateway's table together.

Pure; nothing here knows what a link is, or decides what passes.
"""

from collections.abc import Iterable
from typing import Any, Final

FAMILY: Final = "inet"
TABLE: Final = "chukan"

Object = dict[str, Any]
"""One object or command of nftables' JSON."""


def chain(name: str, **base: Any) -> Object:  # noqa: ANN401 - JSON
    """Add a chain; ``base`` makes it a base chain."""
    return {"chain": {"family": FAMILY, "table": TABLE, "name": name, **base}}


def named_set(name: str, kind: str | list[str], elements: list[Any], **more: Any) -> Object:  # noqa: ANN401 - JSON
    """Add a set of a type, or of a concatenation of types, with its elements."""
    elem = {"elem": elements} if elements else {}
    return {"set": {"family": FAMILY, "table": TABLE, "name": name, "type": kind, **more, **elem}}


def rule(within: str, *expressions: Object) -> Object:
    """Add a rule at the end of a chain."""
    return {"rule": {"family": FAMILY, "table": TABLE, "chain": within, "expr": list(expressions)}}


def match(left: Object, right: object, op: str = "==") -> Object:
    """Compare two things, by default for equality."""
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> Object:
    """A field of a packet's header."""
    return {"payload": {"protocol": protocol, "field": field}}


def device(key: str, names: Iterable[str]) -> Object:
    """One of these devices, by ``iifname`` or ``oifname``."""
    return match({"meta": {"key": key}}, {"set": sorted(names)})


def state(*names: str) -> Object:
    """The connection's state is one of these."""
    return match({"ct": {"key": "state"}}, list(names), "in")


def known() -> Object:
    """Part of a connection that was let through, or of what belongs to it."""
    return state("established", "related")
