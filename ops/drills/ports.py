"""What a drill may do to an installation, and what it may see of it: the ports that an installation implements.

``Stage`` breaks and mends; the lab's own is ``ops.centres.stage``. What operators do stands in ``operator_ports``.
``View`` is what is told of the roles, for the picture and for waiting only: no checker looks at it, for a drill does
not believe the platform about itself.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from chukan.ops.drills.cases import Case
from chukan.ops.drills.operator_ports import Keys, Mover, Restorer, Steering
from chukan.ops.sandbox.admin import NetworkRecord
from chukan.ops.sandbox.transport import Connection

Role = Literal["primary", "sync", "replica", "starting", "gone"]


class Node(msgspec.Struct, frozen=True):
    """One database node of a cell as it was told at an instant."""

    name: str
    cell: str
    centre: str
    role: Role
    timeline: int = 0


class View(msgspec.Struct, frozen=True):
    """Who leads, and who runs; ``etcd`` and ``exchanges`` map a name to whether it answers."""

    nodes: tuple[Node, ...]
    etcd: Mapping[str, bool] = {}
    exchanges: Mapping[str, bool] = {}

    def leader(self, cell: str) -> Node | None:
        """Return the primary of a cell: of two that both say so, the one with the higher timeline."""
        primaries = [node for node in self.nodes if node.cell == cell and node.role == "primary"]
        return max(primaries, key=lambda node: node.timeline, default=None)


class Stage(Protocol):
    """Breaks and mends. Every method returns when it is done, or raises ``Problem`` (not_possible_here among them)."""

    async def kill(self, name: str) -> None:
        """End a process with SIGKILL and keep it down."""
        ...

    async def freeze(self, name: str) -> None:
        """Stop a process where it stands; of ``postgres-<node>`` the children too."""
        ...

    async def thaw(self, name: str) -> None:
        """Let it go on."""
        ...

    async def start(self, name: str) -> None:
        """Start what was ended; returns when it answers."""
        ...

    async def stop(self, name: str) -> None:
        """End in good order."""
        ...

    async def lose_centre(self, centre: str) -> None:
        """Kill everything there and make its directory tree unreadable."""
        ...

    async def return_centre(self, centre: str) -> None:
        """Bring it back."""
        ...

    async def cut(self, a: str, b: str) -> None:
        """Cut the link between two centres."""
        ...

    async def mend(self, a: str, b: str) -> None:
        """Mend it."""
        ...

    async def isolate(self, centre: str) -> None:
        """Cut a centre off from everybody."""
        ...

    async def rejoin(self, centre: str) -> None:
        """Let it back."""
        ...

    async def lose_gateway(self, centre: str) -> None:
        """End a centre's gateway with its tunnels, and keep it down."""
        ...

    async def return_gateway(self, centre: str) -> None:
        """Start it again; returns when it serves its links."""
        ...

    async def fill_disk(self, node: str) -> None:
        """Fill the disk of a node."""
        ...

    async def free_disk(self, node: str) -> None:
        """Free it."""
        ...

    async def heal(self) -> Sequence[str]:
        """Undo everything that is undone; returns what could not be."""
        ...

    async def settled(self, timeout_s: float) -> None:
        """Wait until every cell is led, replicated as configured, and served. Raises ``TimeoutError``."""
        ...


class Installation(Protocol):
    """What a drill is made on."""

    @property
    def name(self) -> str:
        """Return the site's name."""
        ...

    @property
    def topology(self) -> str:
        """Return ``2+2`` or ``2+1``."""
        ...

    @property
    def marked(self) -> bool:
        """Tell whether its operator has marked it for drills."""
        ...

    @property
    def stage(self) -> Stage:
        """Return what breaks and mends."""
        ...

    @property
    def steering(self) -> Steering:
        """Return an operator's hand."""
        ...

    @property
    def restorer(self) -> Restorer:
        """Return who makes backups and restores them. Raises ``Problem`` not_possible_here without ``backup``."""
        ...

    @property
    def mover(self) -> Mover:
        """Return who moves agencies between cells, where it offers ``agency moves``."""
        ...

    @property
    def keys(self) -> Keys:
        """Return who rotates the keys of agencies, where it offers ``key rotation``."""
        ...

    def offers(self, need: str) -> bool:
        """Tell whether it has what some drills need, e.g. ``namespaces``."""
        ...

    def does(self, act: str, target: str) -> bool:
        """Tell whether its stage can do an act (``kill``, ``freeze``…) to a process, a kind of process or a place."""
        ...

    @property
    def routed(self) -> bool:
        """Tell whether a body's device moves its clients' route: then a client asks at one address only."""
        ...

    def home(self, cell: str) -> str:
        """Return the home centre of a cell; ``KeyError`` for none of its cells."""
        ...

    def exchanges(self) -> Mapping[str, "Exchange"]:
        """Return the exchanges by name."""
        ...

    def connection(self, agency: str, exchange: str) -> Connection:
        """Return how an agency's system reaches one exchange. Raises ``Problem`` unknown_agency."""
        ...

    def cases(self) -> Sequence[Case]:
        """Return who can ask whom about whom, with the copies that will answer."""
        ...

    async def view(self) -> View:
        """Return the roles as they are told now; raises ``Problem`` or ``TimeoutError`` when nobody tells."""
        ...

    async def network_records(self) -> Sequence[NetworkRecord]:
        """Return the network's own records. Raises ``Problem``."""
        ...


class Exchange(msgspec.Struct, frozen=True):
    """Where an exchange stands and listens; ``health_url`` is asked as a body's device would ask it."""

    name: str
    centre: str
    agency_url: str
    health_url: str
