"""Where everything in a lab listens, for whoever calls it: the addresses of the exchanges stand in the site."""

from collections.abc import Mapping

from chukan.ops.demo.bring_up import Addresses
from chukan.replication.site import Site


class LabAddresses(Addresses):
    """Where everything listens in the lab: exchanges at the centres, the network and its steering wheel outside."""

    site: Site

    @classmethod
    def of(cls, site: Site, ports: Mapping[str, int]) -> "LabAddresses":
        """Take the ports outside; those of the centres stand in the site."""
        made = cls(ports)
        object.__setattr__(made, "site", site)
        return made

    def agency_url(self, exchange: str) -> str:
        """Return the agency API of an exchange."""
        row = next(row for row in self.site.exchanges if row.name == exchange)
        return f"https://{self.site.address(row.host)}:{row.agency_port}"

    def health_url(self, exchange: str) -> str:
        """Return the health endpoint of an exchange."""
        row = next(row for row in self.site.exchanges if row.name == exchange)
        return f"http://{self.site.address(row.host)}:{row.health_port}"
