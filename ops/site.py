"""``chukan site``: from one site file, what both centres run — rendered, checked, explained.

``check`` says everything that is wrong at once; ``explain`` says in words what the loss of each part would do;
``render`` writes Patroni's YAML of each node, etcd's arguments, the exchanges' settings, a tree for each centre and the
witness. Nothing is started or reloaded here, and no file outside ``--out`` is touched; ``apply``, in a file of its own,
has Patroni take settings that it keeps in etcd.

Invariant: passwords are read from their files and written into Patroni's YAML alone, with mode 0600.
"""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from chukan.errors import Problem
from chukan.ops.output import Json, say
from chukan.replication import backup, consequences, render
from chukan.replication.site import Site, backup_hosts
from chukan.replication.site_file import parse, read
from chukan.replication.site_rules import check

app = App(name="site", help="Render, check, explain and apply the site of two centres.")
app.command("chukan.ops.site_apply:apply", name="apply")

_BACKUP_KEY_MIN = 32

File = Annotated[Path, Parameter(name=["--site", "-s"])]


@app.command(name="check")
def check_command(*, site: File = Path("site.toml"), as_json: Json = False) -> int:
    """Say everything that is wrong with a site file; status 1 when something is.

    Args:
        site: The site file.
        as_json: Print JSON.
    """
    try:
        text = site.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected="a readable UTF-8 file") from None
    problems = check(parse(text, site.absolute().parent))
    if as_json:
        say([problem.as_dict() for problem in problems], "", as_json=True)
    elif not problems:
        say([], "This site is good. chukan site explain says what each loss would do.", as_json=False)
    else:
        say([], _listed(problems), as_json=False)
    return int(bool(problems))


def _listed(problems: list[Problem]) -> Table:
    table = Table("pointer", "problem", "expected", box=None, pad_edge=False)
    for problem in problems:
        kind = problem.kind
        expected = problem.expected or (f"≤ {problem.limit}" if problem.limit is not None else "")
        table.add_row(problem.pointer, f"{kind.title_ja}\n{kind.title_en}", expected)
    return table


@app.command
def explain(*, site: File = Path("site.toml"), as_json: Json = False) -> None:
    """Say what the loss of each centre, of the witness, of the link and of a server would do.

    Args:
        site: The site file.
        as_json: Print JSON.
    """
    found = consequences.explain(read(site))
    if as_json:
        say([each._asdict() for each in found], "", as_json=True)
        return
    console = Console(highlight=False)
    told = ""
    for each in found:
        if each.about != told:
            told = each.about
            console.print(f"\n[bold]{each.about_ja}[/] / [bold]{each.about}[/]")
        console.print(f"・{each.ja}", markup=False)
        console.print(f"  {each.en}", markup=False, style="dim")


@app.command(name="render")
def render_command(*, out: Path, site: File = Path("site.toml"), as_json: Json = False) -> None:
    """Write what every server of the site is started with into a new folder, one tree for each centre and the witness.

    Args:
        out: Folder to create.
        site: The site file.
        as_json: Print JSON.
    """
    described = read(site)
    if out.exists():
        raise Problem("file_exists", expected=str(out))
    written = write(described, {name: out / name for name in (*described.centres, described.witness.name)})
    said = "\n".join(str(path) for path in written)
    say([str(path) for path in written], said, as_json=as_json)


def write(site: Site, folders: dict[str, Path]) -> list[Path]:
    """Write everything that is rendered, ``folders`` by centre and witness; return the files.

    Raises:
        Problem: settings_unreadable when a password's file cannot be read; file_unwritable.
    """
    written: list[Path] = []
    for cell, node in site.nodes():
        here = site.where(node.host)
        text = render.patroni(site, node.name, secrets(site, cell, here))
        written.append(_put(folders[here] / f"patroni-{node.name}.yml", text))
    for member in site.etcd.members:
        text = "\n".join(render.etcd(site, member.name)) + "\n"
        written.append(_put(folders[site.where(member.host)] / f"{member.name}.args", text))
    for exchange in site.exchanges:
        text = render.exchange(site, exchange.name)
        written.append(_put(folders[site.where(exchange.host)] / f"{exchange.name}.toml", text))
    return [*written, *_write_backup(site, folders)]


def _write_backup(site: Site, folders: dict[str, Path]) -> list[Path]:
    """Write pgBackRest's configurations. Raises ``Problem`` settings_unreadable, setting_invalid, file_unwritable."""
    if site.backup is None:
        return []
    written: list[Path] = []
    for cell, node in site.nodes():
        here = site.where(node.host)
        key = _backup_key(site, cell, here) if site.backup.hosts[here] == node.host else None
        for path, text in backup.node_files(site, node, key).items():
            written.append(_put(folders[here] / path.name, text))
    for cell in site.cells:
        for centre in site.centres:
            text = backup.repository(site, cell, centre, _backup_key(site, cell, centre))
            written.append(_put(folders[centre] / backup.repository_file(site, cell, centre).name, text))
    for host in backup_hosts(site):
        name = backup.server_file(site, host).name
        written.append(_put(folders[site.where(host)] / name, backup.server(site, host)))
    return written


def _backup_key(site: Site, cell: str, centre: str) -> str:
    path = backup.key_file(site, cell, centre)
    key = _password(path)
    if len(key) < _BACKUP_KEY_MIN or len(key.split()) != 1:
        expected = f"{_BACKUP_KEY_MIN} characters or more without a space in {path}"
        raise Problem("setting_invalid", pointer="/backup", expected=expected)
    return key


def secrets(site: Site, cell: str, centre: str) -> render.Secrets:
    """Read the passwords of a cell's own users as they lie in a centre. Raises ``Problem`` settings_unreadable."""
    names = [f"{cell}-{short}" for short in ("superuser", "replication", "rewind")]
    return render.Secrets(*(_password(site.password(name, centre)) for name in (*names, render.REST_PASSWORD)))


def _password(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise Problem("settings_unreadable", expected=f"a readable password file {path}") from None


def _put(path: Path, text: str) -> Path:
    """Write a file with mode 0600 beside and rename it, so that nobody reads half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.new")
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        aside.rename(path)
    except OSError:
        raise Problem("file_unwritable", expected=str(path)) from None
    return path
