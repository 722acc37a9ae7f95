"""VICI's messages of what we want, and what charon says, as our words. Pure.

Invariant: what is sent for a wanted connection and what charon tells of it then make the same ``Loaded``
(``model.expected``); whatever else charon tells makes some ``Loaded`` too, never an exception that quotes it.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from chukan.vpn.ipsec.model import (
    CHILD,
    DPD_S,
    ESP_PROPOSALS,
    ESP_REKEY_S,
    IKE_PROPOSALS,
    IKE_REKEY_S,
    Actual,
    Association,
    Child,
    Gateway,
    Loaded,
    Wanted,
    ike_secret,
    local_id,
    remote_id,
)

Message = Mapping[str, Any]

_HALF_OPEN: Final = "(unnamed)"
"""The name of an IKE_SA before its device has said who it is."""


def secret(wanted: Wanted) -> dict[str, Any]:
    """Return load-shared's message: a pre-shared key that serves for the device's identity alone.

    The centre's identity must not be an owner too: charon tries every key of which either end is an owner (measured),
    so that whoever has one link's key could show another's identity.
    """
    return {"id": wanted.name, "type": "IKE", "data": ike_secret(wanted.secret), "owners": [remote_id(wanted)]}


def connection(wanted: Wanted, gateway: Gateway) -> dict[str, Any]:
    """Return load-conn's message for one connection, without its name."""
    near: dict[str, Any] = {"auth": wanted.auth, "id": local_id(wanted.centre)}
    far: dict[str, Any] = {"auth": wanted.auth, "id": remote_id(wanted)}
    if wanted.auth == "pubkey":
        near["certs"] = [gateway.certificate]
        far["cacerts"] = [wanted.secret]
    child: dict[str, Any] = {
        "mode": "tunnel",
        "local_ts": sorted(wanted.local),
        "remote_ts": sorted(wanted.remote),
        "esp_proposals": list(ESP_PROPOSALS),
        "rekey_time": f"{ESP_REKEY_S}s",
        "start_action": "none",
        "dpd_action": "clear",
        "close_action": "none",
    }
    if gateway.if_id:
        child["if_id_in"] = child["if_id_out"] = str(gateway.if_id)
    return {
        "version": "2",
        "local_addrs": [gateway.address],
        "remote_addrs": ["%any"],
        "proposals": list(IKE_PROPOSALS),
        "rekey_time": f"{IKE_REKEY_S}s",
        "reauth_time": "0s",
        "dpd_delay": f"{DPD_S}s",
        "unique": "replace",
        "mobike": "no",
        "local": near,
        "remote": far,
        "children": {CHILD: child},
    }


def actual(connections: Iterable[Message], secrets: Message, associations: Iterable[Message]) -> Actual:
    """Return what list-conns, get-shared and list-sas said."""
    return Actual(
        connections={name: _loaded(one) for message in connections for name, one in message.items()},
        secrets=frozenset(text(name) for name in secrets.get("keys", ())),
        associations=tuple(
            _association(name, one)
            for message in associations
            for name, one in message.items()
            if name != _HALF_OPEN or _word(one, "state") == "ESTABLISHED"
        ),
    )


def text(value: object) -> str:
    """Return a value of a message as text; what is no UTF-8 becomes something else that is like nothing of ours."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else ""


def _loaded(one: Message) -> Loaded:
    children: Message = one.get("children", {})
    first: Message = next(iter(children.values()), {})
    near, far = _authentication(one, "local"), _authentication(one, "remote")
    return Loaded(
        version=_word(one, "version"),
        local_addrs=_words(one, "local_addrs"),
        remote_addrs=_words(one, "remote_addrs"),
        local_id=_word(near, "id"),
        remote_id=_word(far, "id"),
        local_auth=_word(near, "class"),
        remote_auth=_word(far, "class"),
        unique=_word(one, "unique"),
        rekey_s=_number(one, "rekey_time"),
        reauth_s=_number(one, "reauth_time"),
        dpd_s=_number(one, "dpd_delay"),
        children=frozenset(children),
        mode=_word(first, "mode"),
        esp_rekey_s=_number(first, "rekey_time"),
        # Of all children: a second one would give the device more than the first.
        local=frozenset().union(*(_selectors(child, "local-ts") for child in children.values())),
        remote=frozenset().union(*(_selectors(child, "remote-ts") for child in children.values())),
    )


def _authentication(one: Message, side: str) -> Message:
    """Return how a side shows who it is; one that has to do so twice, or not at all, is none of ours."""
    found: list[Message] = [value for key, value in one.items() if key.startswith(f"{side}-")]
    return found[0] if len(found) == 1 else {}


def _association(name: str, one: Message) -> Association:
    host = _word(one, "remote-host")
    return Association(
        number=_number(one, "uniqueid"),
        name=name,
        identity=_word(one, "remote-id"),
        established=_word(one, "state") == "ESTABLISHED",
        age_s=max(_number(one, "established"), 0),
        endpoint=_endpoint(host, _number(one, "remote-port")) if host else None,
        children=tuple(_child(child) for child in one.get("child-sas", {}).values()),
    )


def _child(one: Message) -> Child:
    return Child(
        stands=_word(one, "state") in {"INSTALLED", "REKEYING", "REKEYED"},
        local=_selectors(one, "local-ts"),
        remote=_selectors(one, "remote-ts"),
        rx=max(_number(one, "bytes-in"), 0),
        tx=max(_number(one, "bytes-out"), 0),
    )


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _word(one: Message, key: str) -> str:
    return text(one.get(key))


def _words(one: Message, key: str) -> tuple[str, ...]:
    found: Sequence[object] = one.get(key, ())
    return tuple(text(value) for value in found)


def _number(one: Message, key: str) -> int:
    said = _word(one, key)
    return int(said) if said.isascii() and said.isdigit() else -1


def _selectors(one: Message, key: str) -> frozenset[str]:
    return frozenset(_canonical(word) for word in _words(one, key))


def _canonical(word: str) -> str:
    """Return a selector as ours are written; a range, or one of a protocol or port, stays as charon says it."""
    try:
        return str(ipaddress.ip_network(word, strict=False))
    except ValueError:
        return word
