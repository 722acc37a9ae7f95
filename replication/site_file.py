"""The site file ``site.toml`` read into a ``Site``: its form here, what must hold of it in ``site_rules``."""

from pathlib import Path

from chukan import toml_reading
from chukan.replication.site import Cell, Centre, Host, Site, Token
from chukan.replication.site_rules import check


def read(path: Path) -> Site:
    """Return the site of a file, whole and checked.

    Raises ``Problem``: settings_unreadable, setting_unknown, setting_missing, setting_invalid, and those of ``check``.
    """
    site = parse(toml_reading.read_text(path), path.absolute().parent)
    for problem in check(site):
        raise problem
    return site


def parse(text: str, base: Path) -> Site:
    """Return the site of a text, its form checked only; relative paths are relative to ``base``."""
    tree = toml_reading.parse(text)
    # Each named table by itself first: msgspec does not say under which key of a table of tables it stumbled.
    for table, kind in (("centres", Centre), ("hosts", Host), ("cells", Cell), ("key_tokens", Token)):
        rows = tree.get(table)
        for name, row in rows.items() if isinstance(rows, dict) else ():
            toml_reading.convert(row, kind, f"/{table}/{name}", base)
    return toml_reading.convert(tree, Site, "", base)
