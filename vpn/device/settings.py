"""What the agent of a device can be told (``agent.toml``); everything else follows from the grant.

Invariant: no key stands here. The file is written once, with every setting and its unit, and then belongs to the people
who run the device: nothing here writes over it.
"""

from typing import Annotated, Final, Literal

import msgspec

from chukan import toml_reading
from chukan.errors import Problem
from chukan.replication.plain_toml import to_toml
from chukan.settings import Port
from chukan.vpn.device.folder import DeviceFolder
from chukan.vpn.device.health import Rules
from chukan.vpn.enrolment import Centre

FILE: Final = "agent.toml"

_Every = Annotated[float, msgspec.Meta(ge=0.05, le=60)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]

_HEAD: Final = """\
# 回線装置エージェントの設定。変更したら chukan device agent を再起動してください。秒は *_s。
# Settings of the device's agent. Restart `chukan device agent` after a change. Seconds are *_s.

"""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the agent probes and moves; see ``health`` for what the counts mean."""

    home: Centre
    """The preferred centre (本拠)."""
    fail_back: bool = True
    icmp_every_s: _Every = 1.0
    icmp_misses: _Count = 3
    ready_every_s: _Every = 5.0
    ready_misses: _Count = 2
    cell: Annotated[str, msgspec.Meta(pattern="^([a-z][a-z0-9-]{0,31})?$")] = ""
    """The cell of the body's agencies: a centre counts as ready only while it can commit there; empty: any cell."""
    good_for: _Count = 5
    dwell_s: _Seconds = 5.0
    keep_every_s: _Every = 5.0
    """How often the interfaces are compared with what they shall be; a new tunnel is tried then too."""
    start_jitter_s: _Seconds = 2.0
    """So that many devices behind one address do not begin in the same instant."""
    handshake_s: Annotated[float, msgspec.Meta(ge=1, le=300)] = 20.0
    """How long a new key may take to shake hands before the old one is used again."""
    psk_handshake_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 450.0
    """The same where the pre-shared key alone is new: a gateway tries the other one after 130 s without a handshake."""
    at_end: Literal["leave", "remove"] = "leave"
    """Whether tunnels and routes stay when the agent ends in good order."""
    keep_connections: bool = True
    """Whether open connections stay on their way when the route is moved; it needs nftables (``pins``)."""
    listen_ports: dict[Centre, Port] = {}
    """UDP ports of the device, by centre; any free one where none is named."""
    metrics_file: str = ""
    """A file ``*.prom`` for node_exporter's textfile collector; empty: none."""

    def rules(self) -> Rules:
        """Return what the judgement needs."""
        return Rules(
            home=self.home,
            icmp_misses=self.icmp_misses,
            ready_misses=self.ready_misses,
            good_for=self.good_for,
            dwell_s=self.dwell_s,
            fail_back=self.fail_back,
        )


def read(folder: DeviceFolder) -> AgentSettings:
    """Return the settings. Raises ``Problem`` device_damaged, settings_unreadable, setting_*."""
    try:
        text = folder.read(FILE).decode()
    except UnicodeDecodeError:
        raise Problem("settings_unreadable", expected="a readable UTF-8 file") from None
    found = toml_reading.convert(toml_reading.parse(text), AgentSettings, "")
    for pointer, names in (("/home", [found.home]), ("/listen_ports", list(found.listen_ports))):
        if not set(names) <= set(folder.centres):
            raise Problem("setting_invalid", pointer=pointer, expected="a centre of the device")
    return found


def write_first(folder: DeviceFolder) -> None:
    """Write the settings where there are none yet."""
    if (folder.path / FILE).exists():
        return
    plain = msgspec.to_builtins(AgentSettings(home=folder.centres[0]))
    ports = plain.pop("listen_ports")
    folder.keep(FILE, (_HEAD + to_toml([("", plain), ("listen_ports", ports)])).encode())
