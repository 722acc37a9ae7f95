"""What the commands of ``chukan link`` share: who acts, numbers and keys as they are typed, files that come and go."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from chukan.errors import Problem
from chukan.ops.output import create_file
from chukan.vpn.enrolment import FILE_BYTES_MAX
from chukan.vpn.wireguard.keys import from_base64

By = Annotated[str, Parameter(name="--by")]
"""Name of the operator who acts."""
Yes = Annotated[bool, Parameter(name="--yes", negative="")]
SigningKey = Annotated[Path | None, Parameter(name="--directory-key")]
"""Private key (PEM, Ed25519) that signs the common data, and grants."""

_PERSON: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_CLIENT_ERRORS: Final = range(400, 500)


def person(name: str) -> str:
    """Return an operator's name; officers of bodies and gateways have names of another form."""
    if _PERSON.fullmatch(name) is None:
        raise Problem("invalid_field", pointer="/by", expected="a name of letters, digits and ._@-")
    return name


def within(number: int, most: int, option: str) -> None:
    """Refuse a number that is not from 1 to ``most``; ``Problem`` invalid_field."""
    if not 1 <= number <= most:
        raise Problem("invalid_field", pointer=f"/{option.strip('-')}", limit=most, expected=f"1 to {most}")


def public_key(text: str | None, option: str) -> bytes | None:
    """Return a public key (32 bytes) of base64, None where none is given; ``Problem`` invalid_field."""
    if text is None:
        return None
    try:
        return from_base64(text)
    except ValueError:
        raise Problem("invalid_field", pointer=f"/{option.strip('-')}", expected="32 bytes in base64") from None


def read_file(path: Path) -> bytes:
    """Return a file that came from outside. Raises ``Problem`` request_invalid, too_large."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError:
        raise Problem("request_invalid", expected=f"a readable file {path}") from None
    if len(content) > FILE_BYTES_MAX:
        raise Problem("too_large", limit=FILE_BYTES_MAX)
    return content


@contextmanager
def kept(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Keep a grant, or a sheet with keys, as a private file before it counts; take it away where the act was refused.

    Where nobody knows whether the act happened the file stays: the keys in it may be the ones in force.
    """
    if path.exists():
        raise Problem("file_exists", expected=str(path))
    made = False

    def keep(content: bytes) -> None:
        nonlocal made
        create_file(path, content, 0o600)
        made = True

    try:
        yield keep
    except Problem as problem:
        if made and problem.status in _CLIENT_ERRORS:
            path.unlink(missing_ok=True)
        raise
