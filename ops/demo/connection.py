"""``var/demo/connection.json``: everything that a client needs to drive the running demo, in one file.

Addresses, the trusted certificate, certificate and key of each agency's system and officers, numbers of a few
residents, and who may ask whom for what. It names the files of keys and never holds a key; it is replaced whole, so
that a reader never sees half of it.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from chukan.ops.certificates import Issued
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import Running
from chukan.ops.demo.population import Population
from chukan.ops.demo.questions import Planned
from chukan.ops.sandbox.people import addressee_number

EXAMPLES_MAX: Final = 10


class ExchangeAddress(msgspec.Struct, frozen=True):
    """Where an exchange listens; through links the address that moves between them comes first, as ``service``."""

    name: str
    agency_url: str
    health_url: str


class OfficerFiles(msgspec.Struct, frozen=True):
    """An officer's id and the paths of certificate and key."""

    id: str
    certificate: str
    key: str


class AgencyFiles(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agency, its home cell, its system's certificate and key, its officers, numbers of residents that it knows."""

    name: str
    cell: str
    certificate: str
    key: str
    officers: list[OfficerFiles]
    examples: list[str]
    namespace: str = ""
    """The network namespace from which its systems reach the platform, where there are links."""


class AffairExample(msgspec.Struct, frozen=True):
    """Who may ask whom for which kind under which procedure, and about whom this will be answered.

    ``examples`` are numbers at the inquirer; ``provider_examples`` numbers at the provider of people of whom it has
    lodged a copy of this kind, none where the provider stands outside the platform.
    """

    affair: str
    procedure: str
    kind: str
    inquirer: str
    provider: str
    examples: list[str]
    provider_examples: list[str]


class Connection(msgspec.Struct, frozen=True):
    """The whole file."""

    ca: str
    exchanges: list[ExchangeAddress]
    network_admin_url: str
    counterparts_admin_url: str
    agencies: dict[str, AgencyFiles]
    affairs: list[AffairExample]


def describe(
    *,
    trusted: Path,
    exchanges: list[ExchangeAddress],
    network_admin_url: str,
    counterparts_admin_url: str,
    certificates: Mapping[str, Issued],
    population: Population,
    planned: Iterable[Planned],
    namespace: Callable[[str], str] = lambda _: "",
) -> Connection:
    """Return the contents; ``certificates`` are by the ids of systems and officers, ``namespace`` by an agency."""
    agencies = {
        agency.code: _agency(agency.code, certificates, population, namespace(agency.code))
        for agency in cast.agencies()
    }
    affairs = _affairs(planned, population)
    return Connection(str(trusted), exchanges, network_admin_url, counterparts_admin_url, agencies, affairs)


def publish(running: Running, planned: Iterable[Planned]) -> None:
    """Write the file of what runs."""
    addresses, credentials = running.addresses, running.credentials
    described = describe(
        trusted=credentials.authority.trusted,
        exchanges=[ExchangeAddress(*told) for told in addresses.published()],
        network_admin_url=addresses.network_admin_url,
        counterparts_admin_url=addresses.counterparts_admin_url,
        certificates=credentials.clients,
        population=running.population,
        planned=planned,
        namespace=addresses.namespace,
    )
    write(described, running.place.connection)


def _agency(code: str, certificates: Mapping[str, Issued], population: Population, namespace: str) -> AgencyFiles:
    system = certificates[cast.system_of(code)]
    officers = [
        OfficerFiles(officer.id, str(certificates[officer.id].certificate), str(certificates[officer.id].key))
        for officer in cast.officers_of(code)
    ]
    examples = [addressee_number(person, code) for person in population.coded(code)[:EXAMPLES_MAX]]
    entry = cast.entry(code)
    return AgencyFiles(
        entry.name, entry.home_centre or "", str(system.certificate), str(system.key), officers, examples, namespace
    )


def _affairs(planned: Iterable[Planned], population: Population) -> list[AffairExample]:
    found: dict[tuple[str, ...], AffairExample] = {}
    for query in planned:
        line = query.line
        if query.aim != "answered":
            continue
        key = (line.affair, line.procedure, line.kind, query.inquirer, line.provider)
        if key not in found:
            found[key] = AffairExample(
                *key, examples=[], provider_examples=_lodged(population, line.provider, line.kind)
            )
        example = found[key]
        if line.addressee not in example.examples and len(example.examples) < EXAMPLES_MAX:
            example.examples.append(line.addressee)
    return [found[key] for key in sorted(found)]


def _lodged(population: Population, provider: str, kind: str) -> list[str]:
    if cast.home(provider) is None:
        return []
    people = (person for who, person in population.roll(provider) if population.lodges(provider, kind, who, person))
    return [addressee_number(person, provider) for person in islice(people, EXAMPLES_MAX)]


def write(connection: Connection, path: Path) -> None:
    """Replace the file at once, readable by this user only."""
    content = msgspec.json.format(msgspec.json.encode(connection), indent=2)
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content + b"\n")
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
