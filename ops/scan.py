"""``chukan scan leaks``: proves on a running installation that planted values are nowhere to be read.

Plant what nobody else has — a name, addressee numbers, linkage codes, keys, PINs —, let it go through the whole, and
search for it: every row of every cell, the servers' files and WAL, key stores, backups, logs, temporary files, metrics,
what the API answers to wrong requests that hold the values, processes and whether a crash would dump their memory.

Ends with status 1 where anything was found, or could not be searched. No value is ever shown or logged.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops.leaks import running
from chukan.ops.leaks.needles import Needles, read_values, standard_input
from chukan.ops.leaks.search import Search
from chukan.ops.output import Json, say
from chukan.platform.tls import client_context
from chukan.settings import Settings, load
from chukan.tenants.departure import administrator

STDIN: Final = "-"
_TEMPORARY: Final = (Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - searched, not written

app = App(name="scan", help="Search a running installation for values that must not be readable.")

Paths = Annotated[tuple[Path, ...], Parameter(negative="")]
Words = Annotated[tuple[str, ...], Parameter(negative="")]
Numbers = Annotated[tuple[int, ...], Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Api:
    """An exchange whose replies to wrong requests are searched, and a system of an agency that asks."""

    api: str | None = None
    """Base URL of an exchange's agency listener; nothing is asked without one."""
    agency: str = ""
    """Agency to ask for (16-digit code)."""
    certificate: Path | None = None
    """The system's certificate (PEM)."""
    key: Path | None = None
    """Its key."""
    ca: Path | None = None
    """Root certificate to trust (PEM)."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Where:
    """What is searched besides what the settings name."""

    folder: Paths = ()
    """Files or folders: backups, logs, journals written out; several times."""
    page: Words = ()
    """URLs of pages: metrics of a gateway, of Patroni; several times."""
    process: Numbers = ()
    """Process ids; several times."""
    temp: bool = True
    """With settings: search the folders for temporary files too."""
    api: Api = field(default_factory=Api)


@app.command
def leaks(
    *,
    values: str = STDIN,
    config: Path | None = None,
    admin_user: Annotated[str, Parameter(name="--admin-user")] = "postgres",
    admin_password_file: Annotated[Path | None, Parameter(name="--admin-password-file")] = None,
    where: Where | None = None,
    as_json: Json = False,
) -> int:
    """Search for planted values; status 1 where one was found or a place could not be searched.

    Args:
        values: File of values, one a line: text, or hex: and bytes in hexadecimal; standard input by default.
        config: Settings file of an exchange: its cells, key stores, pages and processes on this host are searched.
        admin_user: An administrator's login to the cells.
        admin_password_file: File with its password; needed with settings.
        where: What else.
        as_json: Print JSON.
    """
    places = where or Where()
    known, past = _values(values)
    settings = None if config is None else load(config, os.environ)
    if settings is None and not (places.folder or places.page or places.process or places.api.api):
        raise Problem("setting_missing", expected="--config, --folder, --page, --process or --api")
    search = Search(Needles(known), past=past)
    asyncio.run(_search(search, known, settings, config, places, (admin_user, admin_password_file)))
    _say(search, as_json=as_json)
    return 0 if search.clean else 1


def _values(named: str) -> tuple[dict[int, str | bytes], frozenset[tuple[int, int]]]:
    """Read the values, and tell which file they stand in: that one is not searched."""
    if named == STDIN:
        return read_values(standard_input()), frozenset()
    try:
        with Path(named).open("rb") as file:
            stood = os.fstat(file.fileno())
            return read_values(file), frozenset({(stood.st_dev, stood.st_ino)})
    except OSError:
        raise Problem("settings_unreadable", expected="a readable file of values") from None


async def _search(
    search: Search,
    values: Mapping[int, str | bytes],
    settings: Settings | None,
    config: Path | None,
    where: Where,
    admin: tuple[str, Path | None],
) -> None:
    """Search place after place; the API first, so that what it logs of its requests is searched as well."""
    api = where.api
    if api.api is not None:
        if api.certificate is None or api.key is None or api.ca is None or not api.agency:
            raise Problem("setting_missing", expected="--agency, --certificate, --key and --ca with --api")
        context = client_context(api.certificate, api.key, api.ca)
        await running.replies(search, api.api, api.agency, values, context)
    numbers = list(where.process)
    pages = list(where.page)
    folders = [("folder", folder) for folder in where.folder]
    if settings is not None and config is not None:
        mine = settings.exchange
        pages += [f"http://{mine.health_host}:{mine.health_port}/{name}" for name in ("metrics", "healthz", "readyz")]
        numbers += running.processes_of(config)
        folders += _named(settings, temp=where.temp)
        await _cells(search, settings, *admin)
    for url in pages:
        await running.page(search, url, None)
    running.all_processes(search, numbers)
    for sort, folder in folders:
        await asyncio.to_thread(search.folder, sort, folder)


async def _cells(search: Search, settings: Settings, user: str, password_file: Path | None) -> None:
    if password_file is None:
        raise Problem("setting_missing", expected="--admin-password-file")
    for name, cell in settings.cells.items():
        async with administrator(cell, user, password_file) as admin:
            await running.cell(search, name, admin)


def _named(settings: Settings, *, temp: bool) -> list[tuple[str, Path]]:
    """Return what the settings name, and where programs leave temporary files."""
    found = [("key store", folder) for folder in settings.keystores.values() if folder.exists()]
    if settings.metrics.textfiles is not None:
        found.append(("metrics", settings.metrics.textfiles))
    if temp:
        folders = dict.fromkeys([Path(tempfile.gettempdir()), *_TEMPORARY])
        found += [("temporary files", folder) for folder in folders if folder.is_dir()]
    return found


def _say(search: Search, *, as_json: bool) -> None:
    document = {
        "clean": search.clean,
        "forms": search.needles.count,
        "searched": {sort: each._asdict() for sort, each in search.searched.items()},
        "found": [hit._asdict() for hit in search.hits],
        "found_besides": search.more,
        "findings": [each._asdict() for each in search.findings],
        "not_searched": [each._asdict() for each in search.unread],
    }
    lines = [f"{sort}: {each.places} searched, {each.read:,} bytes" for sort, each in search.searched.items()]
    lines += [f"FOUND {hit.sort}: {hit.place}: line {hit.line} as {hit.form}, {hit.times} times" for hit in search.hits]
    lines += [f"FOUND {search.more} more" for _ in (1,) if search.more]
    lines += [f"FINDING {each.place}: {each.why}" for each in search.findings]
    lines += [f"NOT SEARCHED {each.sort}: {each.place}: {each.why}" for each in search.unread]
    lines.append("nothing was found" if search.clean else "this is no proof: see above")
    say(document, "\n".join(_shorten(lines)), as_json=as_json)


def _shorten(lines: Sequence[str], most: int = 200) -> list[str]:
    """Keep what a person reads; the document has it all."""
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 2], f"… {len(lines) - most + 1} lines more: see --json", lines[-1]]
