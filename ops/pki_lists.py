"""``chukan pki root-crl|join``: revocation lists for PostgreSQL and etcd (``revocation_joining`` tells why).

This module only talks to people; it prints no key.
"""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.ops import revocation_joining as joining
from chukan.ops.certificates import Authority, read_certificates
from chukan.ops.pki_life import AsJson, Copies


def root_crl(
    *, directory: Path, days: int = joining.ROOT_LIST_DAYS, copy: Copies = (), as_json: AsJson = False
) -> None:
    """Have the root sign its own revocation list (``root-crl.pem``), once a year: PostgreSQL demands one.

    Args:
        directory: Folder of the authority, with ``root/`` brought back into it for this.
        days: When the next list is due.
        copy: Further files to write the list into.
        as_json: Print JSON.
    """
    if not 1 <= days <= joining.ROOT_LIST_DAYS_MAX:
        raise Problem("certificate_name_invalid", limit=joining.ROOT_LIST_DAYS_MAX, expected="--days from 1 to it")
    file = joining.write_root_list(Authority(directory, SystemClock()), days=days, copies=copy)
    text = f"list of the root: {file}\nCarry {directory / 'root'} away again."
    _say({"list": str(file), "copies": [str(path) for path in copy]}, text, as_json=as_json)


def join(
    *lists: Path,
    trusted: Path,
    into: Annotated[Path, Parameter(name="--into")],
    as_json: AsJson = False,
) -> None:
    """Verify the lists of a site's authorities; join them for PostgreSQL (``joined.pem``) and etcd (``joined.crl``).

    Args:
        lists: Of each authority the list of its root and that of its issuing authority.
        trusted: The trusted roots (``sites.pem``); each must be there with both lists.
        into: Folder of the lists (``pki/lists`` of the place).
        as_json: Print JSON.
    """
    made = joining.join(lists, read_certificates(trusted), into, SystemClock())
    told = {"pem": str(made.pem), "der": str(made.der), "due": made.due.isoformat(), "revoked": made.revoked}
    text = f"{made.revoked} revoked, first list due {made.due:%Y-%m-%d %H:%M} UTC\n{made.pem}\n{made.der}"
    _say(told, f"{text}\nNow have every PostgreSQL here reload; etcd reads it by itself.", as_json=as_json)


def _say(told: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        Console().print_json(json.dumps(told))
    else:
        Console().print(text, soft_wrap=True)
