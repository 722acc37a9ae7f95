"""Where Patroni's dynamic configuration of a cell differs from what the site file wants.

Patroni takes its dynamic settings from the rendered file once, when a cell is born; from then on they live in etcd, and
a new release or an edited site file changes nothing by itself. What the site does not name is not looked at: an
operator may have set it.

Invariant: pure.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """One setting: its path with dots, what the site file wants, what Patroni has (None where it has none)."""

    path: str
    wanted: object
    present: object


def differences(wanted: Mapping[str, Any], present: Mapping[str, Any], path: str = "") -> Iterator[Difference]:
    """Yield every setting of ``wanted`` that ``present`` has otherwise or not at all."""
    for name, value in wanted.items():
        here = f"{path}.{name}" if path else name
        has = present.get(name)
        if isinstance(value, Mapping):
            yield from differences(value, has if isinstance(has, Mapping) else {}, here)
        elif not _same(value, has):
            yield Difference(here, value, has)


def _same(value: object, has: object) -> bool:
    """Tell whether two settings say the same; Patroni takes on, true and "on" for one and the same switch."""
    return _plain(value) == _plain(has)


def _plain(value: object) -> str | None:
    if value is None:
        return None
    text = str(value).lower()
    return {"true": "on", "false": "off"}.get(text, text)
