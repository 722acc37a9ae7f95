"""TOML of plain values, for the settings files that are made by programs: what is written is read back the same."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Value = str | int | float | bool | Path | Sequence[str] | Sequence[int]
Tables = Sequence[tuple[str, Mapping[str, Value]]]
"""Tables in their order: the empty name stands for the top, ``[name]`` (in brackets) for an element of an array."""


def to_toml(tables: Tables) -> str:
    """Return TOML of tables of plain values; a table's name may have dots."""
    blocks = [
        "\n".join([*([f"[{name}]"] if name else []), *(f"{key} = {_value(value)}" for key, value in members.items())])
        for name, members in tables
    ]
    return "\n\n".join(blocks) + "\n"


def _value(value: Value) -> str:
    # A JSON string with its escapes is a TOML basic string too; numbers, truth values and lists are written alike.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
