"""What every ``chukan client`` command does: be somebody, call an exchange, show what came of it."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from cyclopts import Parameter
from rich.console import Console

from chukan.errors import Problem
from chukan.ops import client_view as view
from chukan.ops.sandbox.clients import AgencyClient, ClientError, Connection
from chukan.ops.sandbox.connection_file import read_connection

DEMO_CONNECTION: Final = Path("var/demo/connection.json")
T = TypeVar("T")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """Whom to be and where to call."""

    agency: str
    """Agency to act for (16-digit code)."""
    officer: str | None = None
    """Act as this officer of the agency instead of its system; needs a connection file."""
    connection: Path | None = None
    """connection.json, as the demo writes it."""
    url: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Base URL of an exchange, e.g. https://host:8443; several times for several exchanges."""
    ca: Path | None = None
    """Root certificate to trust (PEM), with --url."""
    certificate: Path | None = None
    """Client certificate (PEM), with --url."""
    key: Path | None = None
    """Its key (PEM), with --url."""
    session: Path | None = None
    """File with an officer's session, as `chukan officer login` wrote it; the officer's rights count then."""
    retry: float = 10.0
    """Seconds for which a call may be repeated when an exchange is away or busy."""
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
    """Print the reply's document."""

    def connect(self) -> Connection:
        """Return the connection. Raises ``Problem`` setting_missing, settings_unreadable, unknown_agency."""
        session = None if self.session is None else _read_session(self.session)
        if not self.url:
            connection = read_connection(self.connection or DEMO_CONNECTION)
            return replace(connection.connect(self.agency, self.officer, retry_s=self.retry), session=session)
        if self.ca is None or self.certificate is None or self.key is None:
            raise Problem("setting_missing", expected="--ca, --certificate and --key together with --url")
        return Connection(
            agency=self.agency,
            urls=list(self.url),
            ca=self.ca,
            certificate=self.certificate,
            key=self.key,
            retry_s=self.retry,
            session=session,
        )

    def without_session(self) -> "Target":
        """Return the same for a call that begins a session."""
        return replace(self, session=None)


def _read_session(path: Path) -> str:
    """Return a session from its file. Raises ``Problem`` session_required."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise Problem("session_required") from None


def lines_of(parts: Sequence[Path], media_type: str) -> int:
    """Return how many copies the parts of a load hold; a part in CSV begins with a header."""
    headers = len(parts) if media_type.startswith("text/csv") else 0
    return sum(count_lines(part) for part in parts) - headers


def run(target: Target, work: Callable[[AgencyClient], Awaitable[T]], show: Callable[[Console, T], None]) -> T:
    """Do something as a client and show what came of it."""

    async def whole() -> T:
        async with AgencyClient(target.connect()) as client:
            return await work(client)

    try:
        found = asyncio.run(whole())
    except ClientError as error:
        raise error.as_problem() from None
    if target.as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        show(view.terminal(), found)
    return found


def run_each(target: Target, work: Callable[[AgencyClient], Awaitable[T]], show: Callable[[Console, T], None]) -> None:
    """Do something at every exchange by itself, in turn, and show what came of it.

    One that does not answer at all is passed over, with a word, while another does. Raises ``Problem``.
    """
    connection = target.connect()

    async def one(url: str) -> T:
        async with AgencyClient(replace(connection, urls=[url])) as client:
            return await work(client)

    silent: ClientError | None = None
    told = 0
    for url in connection.urls:
        try:
            found = asyncio.run(one(url))
        except ClientError as error:
            if error.problem is not None:
                raise error.as_problem() from None
            silent = error
            continue
        told += 1
        if target.as_json:
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        else:
            show(view.terminal(), found)
    if silent is not None and not told:
        raise silent.as_problem() from None
    if silent is not None:
        view.terminal().print("One exchange did not answer.")


def count_lines(path: Path) -> int:
    """Count the lines of a file in pieces; a last line without an end counts."""
    count, last = 0, b"\n"
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                count += piece.count(b"\n")
                last = piece[-1:]
    except OSError:
        raise Problem("settings_unreadable", expected="a readable file") from None
    return count + (last != b"\n")
