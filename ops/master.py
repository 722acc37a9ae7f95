"""``chukan master``: versions of the master data (配信マスター) — proposed, shown as a difference, approved by another.

Commands that act take the person's certificate and key; ``approve`` and ``withdraw`` need the key of the common data
besides. A version takes effect at its instant in every cell and exchange at once, for instance at a midnight in Japan.
"""

import datetime as dt
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from chukan.errors import Problem
from chukan.ops import installation as acts
from chukan.ops import masters, notices
from chukan.ops.installation import Installation
from chukan.ops.output import Json, say, table
from chukan.tenants.masters import FileDifference
from chukan.tenants.operator_register import FILE as OPERATORS
from chukan.tenants.publishing import Published

app = App(name="master", help="Change the master data: lists of the law, agencies, layouts, calendar.")

Certificate = Annotated[Path, Parameter(name="--certificate")]
"""Certificate (PEM) of the person who acts, named operator.…"""
PersonKey = Annotated[Path, Parameter(name="--key")]
"""Its private key (PEM)."""
DirectoryKey = Annotated[Path | None, Parameter(name="--directory-key")]
"""Private key (PEM, Ed25519) that signs the common data."""
_SANDBOX_NETWORK: Final = (
    "The sandbox network does not follow: it and the counterparts judge by the files of their own law_directory. "
    "To give them this version: chukan master show {version} --into DIR, law_directory = DIR in their files, "
    "and start them anew when it takes effect."
)


@app.command
def propose(
    folder: Path,
    *,
    effective_at: str,
    note: str,
    certificate: Certificate,
    key: PersonKey,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Propose a version: the files of a folder in the place of the present ones, the others as they are.

    Args:
        folder: Folder with the changed files, named as ``chukan master show`` names them.
        effective_at: When it takes effect, with an offset: 2027-04-01T00:00+09:00.
        note: Why, for everybody who approves or looks it up.
        certificate: Certificate of the person who proposes.
        key: Its private key.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    files, at = masters.read_files(folder), _instant(effective_at)

    async def act(installation: Installation) -> masters.Version:
        person = masters.read_person(installation, certificate, key)
        return await masters.propose(installation, person, files, at, note)

    _tell(acts.run(config, act), as_json=as_json)


@app.command
def rollback(
    version: int,
    *,
    effective_at: str,
    note: str,
    certificate: Certificate,
    key: PersonKey,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Propose a new version with the files of an old one (0: what the release brings).

    Args:
        version: The old version.
        effective_at: When it takes effect, with an offset.
        note: Why.
        certificate: Certificate of the person who proposes.
        key: Its private key.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """
    at = _instant(effective_at)

    async def act(installation: Installation) -> masters.Version:
        person = masters.read_person(installation, certificate, key)
        files = await masters.files_of(installation, version)
        files.pop(OPERATORS, None)  # who may act is not rolled back along with the law
        return await masters.propose(installation, person, files, at, note)

    _tell(acts.run(config, act), as_json=as_json)


@app.command
def diff(version: int, *, against: int | None = None, config: Path | None = None, as_json: Json = False) -> None:
    """Show what a version says otherwise than the one that it was made from, and how many lines are open.

    Args:
        version: The version.
        against: Another one than that it was made from; 0 is what the release brings.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """

    async def act(installation: Installation) -> masters.Preview:
        base = (await masters.content_of(installation, version)).base if against is None else against
        before = await masters.files_of(installation, base)
        return await masters.preview(installation, before, await masters.files_of(installation, version))

    found = acts.run(config, act)
    told = {"differences": [each._asdict() for each in found.differences], "pending": found.pending}
    open_lines = ", ".join(f"{cell} {count}" for cell, count in found.pending.items())
    text = "\n".join([*map(_lines, found.differences), f"open lines that are judged anew: {open_lines}"])
    say(told, text, as_json=as_json)


@app.command
def approve(
    version: int,
    *,
    certificate: Certificate,
    key: PersonKey,
    config: Path | None = None,
    directory_key: DirectoryKey = None,
    as_json: Json = False,
) -> None:
    """Approve another person's proposal; it takes effect at its instant, and the bodies are told.

    Args:
        version: The version.
        certificate: Certificate of the person who approves.
        key: Its private key.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        as_json: Print JSON.
    """

    async def act(installation: Installation) -> tuple[Published, bool]:
        person = masters.read_person(installation, certificate, key)
        published = await masters.approve(installation, person, version)
        if published.changed:
            await notices.of_master(installation, version, published.effective_at, person.name)
        return published, installation.settings.site.sandbox

    published, sandbox = acts.run(config, act, directory_key=directory_key)
    note = _SANDBOX_NETWORK.format(version=version) if sandbox else ""
    _tell_published(published, version, "approved", note, as_json=as_json)


@app.command
def reject(
    version: int,
    *,
    reason: str,
    certificate: Certificate,
    key: PersonKey,
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Refuse a proposal, or take one's own back.

    Args:
        version: The version.
        reason: Why.
        certificate: Certificate of the person who rejects.
        key: Its private key.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """

    async def act(installation: Installation) -> None:
        await masters.reject(installation, masters.read_person(installation, certificate, key), version, reason)

    acts.run(config, act)
    say({"version": version, "state": "rejected"}, f"version {version}: rejected", as_json=as_json)


@app.command
def withdraw(
    version: int,
    *,
    reason: str,
    certificate: Certificate,
    key: PersonKey,
    config: Path | None = None,
    directory_key: DirectoryKey = None,
    as_json: Json = False,
) -> None:
    """Keep an approved version that waits from taking effect: what is in force before it stays.

    Args:
        version: The version.
        reason: Why.
        certificate: Certificate of the person who withdraws.
        key: Its private key.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        directory_key: Private key that signs the common data.
        as_json: Print JSON.
    """

    async def act(installation: Installation) -> Published:
        person = masters.read_person(installation, certificate, key)
        return await masters.withdraw(installation, person, version, reason)

    _tell_published(acts.run(config, act, directory_key=directory_key), version, "withdrawn", as_json=as_json)


@app.command(name="list")
def list_(*, config: Path | None = None, as_json: Json = False) -> None:
    """List the versions with their state, the newest first."""
    found = acts.run(config, masters.versions)
    rows = [
        [str(each.version), each.state, each.proposed_by, each.approved_by or "-", _when(each.effective_at)]
        for each in found
    ]
    shown = table("version", "state", "proposed by", "approved by", "takes effect", rows=rows)
    say([_document(each) for each in found], shown, as_json=as_json)


@app.command
def show(version: int, *, into: Path | None = None, config: Path | None = None, as_json: Json = False) -> None:
    """Show a version's files, or write them into a folder, to change them and propose anew.

    Args:
        version: The version; 0 is what the release brings.
        into: An empty folder, or one that does not exist.
        config: Settings file; CHUKAN_SETTINGS names it otherwise.
        as_json: Print JSON.
    """

    async def act(installation: Installation) -> dict[str, str]:
        return await masters.files_of(installation, version)

    files = acts.run(config, act)
    if into is not None:
        _write(into, files)
    counts = {name: len(text.splitlines()) for name, text in sorted(files.items())}
    shown = table("file", "lines", rows=[[name, str(count)] for name, count in counts.items()])
    say({"version": version, "files": counts}, shown, as_json=as_json)


def _write(into: Path, files: dict[str, str]) -> None:
    try:
        into.mkdir(mode=0o755, exist_ok=True)
        if any(into.iterdir()):
            raise Problem("file_exists", expected=str(into))
        for name, text in files.items():
            (into / name).write_text(text, encoding="utf-8")
    except OSError:
        raise Problem("file_unwritable", expected=str(into)) from None


def _instant(text: str) -> dt.datetime:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Problem("invalid_field", pointer="/effective_at", expected="an instant with its offset")
    return found.astimezone(dt.UTC)


def _lines(found: FileDifference) -> str:
    lines = [f"{found.file}: {len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed"]
    lines += [f"  - {row}" for row in found.removed]
    lines += [f"  + {row}" for row in found.added]
    lines += [line for old, new in found.changed for line in (f"  < {old}", f"  > {new}")]
    return "\n".join(lines)


def _when(at: dt.datetime | None) -> str:
    return "-" if at is None else at.isoformat()


def _document(found: masters.Version) -> dict[str, object]:
    return {
        "version": found.version,
        "digest": found.digest.hex(),
        "state": found.state,
        "proposed_by": found.proposed_by,
        "approved_by": found.approved_by,
        "effective_at": found.effective_at,
    }


def _tell(found: masters.Version, *, as_json: bool) -> None:
    say(_document(found), f"version {found.version}: {found.state}; another person has to approve it", as_json=as_json)


def _tell_published(published: Published, version: int, word: str, note: str = "", *, as_json: bool) -> None:
    told = {"version": version, "state": word, "effective_at": published.effective_at}
    text = f"version {version}: {word}, from {_when(published.effective_at)}"
    say(told | ({"note": note} if note else {}), f"{text}\n{note}" if note else text, as_json=as_json)
