"""Where everything in a lab listens, for whoever calls it: the addresses of the exchanges stand in the site.

Where the lab has links, agencies reach an exchange at its centre's service address, and first of all at the one that
their body's device moves between its tunnels; each from its body's own network namespace, for nobody else comes in.
"""

from collections.abc import Mapping
from typing import Final

from chukan.ops.centres.link_wires import LinkWires
from chukan.ops.demo import cast
from chukan.ops.demo.bring_up import EXCHANGES, Addresses
from chukan.replication.site import ExchangeHost, Site

SERVICE: Final = "service"
"""How the address that a device moves is called among the exchanges."""


class LabAddresses(Addresses):
    """Where everything listens in the lab: exchanges at the centres, the network and its steering wheel outside."""

    site: Site
    links: LinkWires | None

    @classmethod
    def of(cls, site: Site, ports: Mapping[str, int], links: LinkWires | None = None) -> "LabAddresses":
        """Take the ports outside; those of the centres stand in the site. ``links`` are the lab's, where it has any."""
        made = cls(ports)
        object.__setattr__(made, "site", site)
        object.__setattr__(made, "links", links)
        return made

    def _row(self, exchange: str) -> ExchangeHost:
        return next(row for row in self.site.exchanges if row.name == exchange)

    def agency_url(self, exchange: str) -> str:
        """Return the agency API of an exchange, as its callers may reach it."""
        row = self._row(exchange)
        if self.links is None:
            return f"https://{self.site.address(row.host)}:{row.agency_port}"
        services = self.site.services(self.site.where(row.host))
        return f"https://{services.addresses[0]}:{services.agency_port}"

    def health_url(self, exchange: str) -> str:
        """Return the health endpoint of an exchange, as its operator sees it."""
        row = self._row(exchange)
        return f"http://{self.site.address(row.host)}:{row.health_port}"

    def home_url(self, agency: str) -> str:
        """Return where an agency asks first."""
        return super().home_url(agency) if self.links is None else self._service()[1]

    def client_urls(self, agency: str) -> list[str]:
        """Return where an agency asks: through links the moving address first, then the two that stay."""
        if self.links is None:
            return super().client_urls(agency)
        near = super().home_url(agency)
        return [self.home_url(agency), near, *(url for url in map(self.agency_url, EXCHANGES) if url != near)]

    def namespace(self, agency: str) -> str:
        """Return the network namespace of an agency's body, none without links."""
        return "" if self.links is None else self.links.town(cast.entry(agency).body)

    def published(self) -> list[tuple[str, str, str]]:
        """Return name, agency API and health endpoint of whatever clients may ask."""
        return super().published() if self.links is None else [self._service(), *map(self._inside, EXCHANGES)]

    def _service(self) -> tuple[str, str, str]:
        services = self.site.services(next(iter(self.site.centres)))
        shared = services.addresses[1]
        return SERVICE, f"https://{shared}:{services.agency_port}", f"http://{shared}:{services.health_port}"

    def _inside(self, exchange: str) -> tuple[str, str, str]:
        services = self.site.services(EXCHANGES[exchange])
        return exchange, self.agency_url(exchange), f"http://{services.addresses[0]}:{services.health_port}"
