"""What PostgreSQL does with each finished WAL segment: one script a node, of plain shell, as every host has it.

The repository of the node's own centre takes the segment at once, and its word is the archiver's. For the other centre
it is copied into a queue beside the repository, from where it is pushed in the background: a centre that is lost,
frozen or cut off delays neither the archive of the one that is left, nor a server's orderly stop, nor a switchover.
What the queue holds is bounded; when it is full the other repository has a gap, until a new full backup is made there.

A new leader hands in again what it has of the timelines before its own: its predecessor may have died between the end
of a segment and its push, and a standby takes what was streamed to it for archived. pgBackRest knows an equal segment
again. The last segment of an old timeline is left out: it was never filled, and its number goes on in the next one.

Invariant: pure. Nothing but whole segments, histories and labels that PostgreSQL named is ever pushed.
"""

from pathlib import Path
from typing import Final

from chukan.replication.site import Node, Site

PROGRAM: Final = "pgbackrest"
QUEUE_MAX: Final = 512
"""Segments of 16 MiB that may wait for the other centre."""
PUSH_TIMEOUT_S: Final = 20
"""A segment takes a fraction of a second; a repository that is frozen holds an orderly stop up to six times this."""
_LOCK_S: Final = 1

_SCRIPT: Final = """\
#!/bin/sh
# Rendered from the site file. PostgreSQL calls it with the path and the name of each finished segment, Patroni with
# on_role_change ROLE CELL, and it calls itself with "ship" to empty the queue for the other centre.
umask 077
near='{near}'
far='{far}'
queue='{queue}'
status='{data}/pg_wal/archive_status'

push() {{
    config=$1 segment=$2
    shift 2
    timeout {timeout_s} {program} --config="$config" --stanza={cell} "$@" archive-push "$segment"
}}

case $1 in
ship)
    shift
    while :; do
        found=
        for each in "$queue"/0*; do
            [ -e "$each" ] || continue
            found=yes
            push "$far" "$each" "$@" || exit 1
            rm -f "$each"
        done
        [ "$found" ] || exit 0
    done
    ;;
on_role_change)
    case $2 in primary | master) ;; *) exit 0 ;; esac
    cd "$status" || exit 1
    for each in [0-9A-F]*.done; do
        name=${{each%.done}}
        [ ${{#name}} -eq 24 ] || continue
        for newest in ../????????"${{name#????????}}"; do :; done
        [ "$newest" = "../$name" ] && mv "$each" "$name.ready"
    done
    exit 0
    ;;
esac

path=$1 name=$2
shift 2
mkdir -p "$queue"
if [ "$(ls "$queue" | wc -l)" -lt {most} ]; then
    cp "$path" "$queue/.$name" && mv "$queue/.$name" "$queue/$name"
else
    [ -e "$queue.gap" ] || echo "$name" >"$queue.gap"
fi
setsid flock -w {lock_s} "$queue.lock" /bin/sh "$0" ship "$@" </dev/null >/dev/null 2>&1 &
push "$near" "$path" "$@"
"""


def script_file(site: Site, row: Node) -> Path:
    """Return where a node's script lies; pgBackRest wants to find its own name in the archive command."""
    return _config(site, row, "pgbackrest-push.sh")


def near_file(site: Site, row: Node) -> Path:
    """Return where the configuration lies that names the repository of the node's own centre alone."""
    return _config(site, row, "near.pgbackrest.conf")


def far_file(site: Site, row: Node) -> Path:
    """Return where the configuration lies that names the other centre's repository alone."""
    return _config(site, row, "far.pgbackrest.conf")


def queue(site: Site, row: Node) -> Path:
    """Return the folder of what waits for the other centre; ``<queue>.gap`` names the first one that found it full."""
    return site.directory(site.where(row.host)) / "backup" / "queue" / row.name


def _config(site: Site, row: Node, what: str) -> Path:
    return site.directory(site.where(row.host)) / "config" / f"{row.name}.{what}"


def script(site: Site, name: str) -> str:
    """Return the script of one node. Raises ``KeyError`` for a name that is no node."""
    cell, row = site.node(name)
    return _SCRIPT.format(
        near=near_file(site, row),
        far=far_file(site, row),
        queue=queue(site, row),
        data=site.directory(site.where(row.host)) / "data" / row.name,
        timeout_s=PUSH_TIMEOUT_S,
        program=PROGRAM,
        cell=cell,
        most=QUEUE_MAX,
        lock_s=_LOCK_S,
    )


def command(site: Site, row: Node) -> str:
    """Return PostgreSQL's ``archive_command``."""
    return f"/bin/sh {script_file(site, row)} %p %f"


def callback(site: Site, row: Node) -> str:
    """Return what Patroni calls when the node's role changes; it adds what happened, the role and the cell."""
    return f"/bin/sh {script_file(site, row)}"
