"""What the loss of each part of a site would do, in words (Japanese and English), computed from the site itself.

For the operator who asks before it happens, and for the reviewer of a changed site file. The seconds are those that
were measured with the default timers; with others they follow the timers.

Invariant: pure, and about configuration only: what stands at this moment is ``chukan status``.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from chukan.replication.site import Cell, Site, gateways, halves

_AGENT_S: Final = 5
"""Within so long a device's agent has moved its route, with its own default timers."""
_SURE_S: Final = 3
"""From the end of a leader's lease to the first write at its successor, roughly."""


class Consequence(NamedTuple):
    """One sentence in both languages, under a heading in both."""

    about: str
    about_ja: str
    en: str
    ja: str


def explain(site: Site) -> list[Consequence]:
    """Return what the loss of each centre, of the witness and of the link between the centres would do."""
    sentences = [sentence for centre in site.centres for sentence in _centre(site, centre)]
    return [*sentences, *_witness(site), *_link(site), *_node(site), *_gateways(site)]


def _title(site: Site, place: str) -> str:
    title = site.witness.title if place == site.witness.name else site.centres[place].title
    return title or place


def _centre(site: Site, lost: str) -> Iterator[Consequence]:
    about, about_ja = f"centre {lost} is lost", f"{_title(site, lost)}を失ったとき"
    votes = Counter(site.where(member.host) for member in site.etcd.members)
    total, left = votes.total(), votes.total() - votes[lost]
    yield Consequence(
        about,
        about_ja,
        f"etcd goes on: {left} of {total} members are left.",
        f"etcdは{total}台のうち{left}台が残り、動き続けます。",
    )
    for name, cell in site.cells.items():
        yield (_home_lost if cell.home == lost else _far_lost)(site, name, cell, about, about_ja)
    exchanges = [row.name for row in site.exchanges if site.where(row.host) != lost]
    yield Consequence(
        about,
        about_ja,
        f"{', '.join(exchanges)} serves all agencies and takes over the other's work when its leases end.",
        f"{'、'.join(exchanges)}がすべての機関を受け持ち、失われた側の仕事も期限が切れしだい引き継ぎます。",
    )


def _home_lost(site: Site, name: str, cell: Cell, about: str, about_ja: str) -> Consequence:
    _, far = halves(site, cell)
    wait_s = site.timers.ttl_s + _SURE_S
    heirs, heirs_ja = " or ".join(node.name for node in far), "または".join(node.name for node in far)
    if len(far) == 1:
        after = f"writes go on at {heirs} alone: on one disk only, until another member is back"
        after_ja = f"その後は{heirs_ja}だけで書き込みを続けます(他の系が戻るまで、記録は一つのディスクにしかありません)"
        if site.strict:
            after = "but takes no write until strict is lifted"
            after_ja = "ただしstrictを外すまで書き込めません"
    else:
        after = "and writes go on synchronously between the two nodes there"
        after_ja = "その後はその拠点の二台の間で同期しながら書き込みを続けます"
    return Consequence(
        about,
        about_ja,
        f"Cell {name}: nothing acknowledged is lost. {heirs} takes over unattended within about {wait_s} s (at once"
        f" when the operator confirms the loss: chukan fence), {after}.",
        f"セル{name}: 受け付けた記録は失われません。{heirs_ja}が無人で約{wait_s}秒以内に引き継ぎ"
        f"(運用者が喪失を確認したときは直ちに: chukan fence)、{after_ja}。",
    )


def _far_lost(site: Site, name: str, cell: Cell, about: str, about_ja: str) -> Consequence:
    home, _ = halves(site, cell)
    names = ", ".join(node.name for node in home)
    stall_s = site.timers.loop_wait_s + 1
    return Consequence(
        about,
        about_ja,
        f"Cell {name}: goes on at home after a stall of about {stall_s} s. Durability falls to the two disks at home"
        f" ({names}): the loss of {cell.home} too would then not be failed over.",
        f"セル{name}: 約{stall_s}秒の停滞の後、自拠点で続けます。記録は自拠点の二台({names})だけに残り、"
        f"続けて{_title(site, cell.home)}も失うと切り替わりません。",
    )


def _witness(site: Site) -> Iterator[Consequence]:
    votes = Counter(site.where(member.host) for member in site.etcd.members)
    left = votes.total() - votes[site.witness.name]
    yield Consequence(
        "the witness is lost",
        f"{_title(site, site.witness.name)}を失ったとき",
        f"Nothing is felt: {left} of {votes.total()} members of etcd are left. Losing a centre too would then leave"
        " etcd without a majority: primaries go on while all their members answer (failsafe), none can be elected.",
        f"影響はありません(etcdは{votes.total()}台のうち{left}台が残ります)。続けて拠点も失うとetcdは過半数を失い、"
        "全ノードが応答する主系だけが続行し(failsafe)、新しい主系は選ばれません。",
    )


def _link(site: Site) -> Iterator[Consequence]:
    stall_s = 5 + site.timers.loop_wait_s
    yield Consequence(
        "the link between the centres is cut",
        "拠点間の回線が切れたとき",
        f"No leader changes while both see the witness. Writes stall for about {stall_s} s, then go on with the disks"
        " at home; the far nodes may not be promoted until they have caught up.",
        f"両拠点から立会拠点が見える限り、主系は変わりません。書き込みは約{stall_s}秒停滞した後、自拠点のディスクで続き、"
        "他拠点の系は追いつくまで昇格できません。",
    )


def _node(site: Site) -> Iterator[Consequence]:
    yield Consequence(
        "a primary's PostgreSQL crashes",
        "主系のPostgreSQLが落ちたとき",
        "A synchronous standby takes over within about 5 s, that at home before those in the other centre.",
        "同期待機系が約5秒以内に引き継ぎます(自拠点の系を優先します)。",
    )
    yield Consequence(
        "a primary's whole server is lost",
        "主系のサーバーを丸ごと失ったとき",
        f"A synchronous standby takes over within about {site.timers.ttl_s + _SURE_S} s, when its lease has ended.",
        f"約{site.timers.ttl_s + _SURE_S}秒以内に、期限切れを待って同期待機系が引き継ぎます。",
    )


def _gateways(site: Site) -> Iterator[Consequence]:
    for row in gateways(site):
        centre = site.where(row.host)
        other = site.other(centre)
        about, about_ja = f"the gateway of {centre} is lost", f"{_title(site, centre)}のVPNゲートウェイを失ったとき"
        yield Consequence(
            about,
            about_ja,
            f"No cell is touched. Devices with an agent lead their bodies to {other} within about {_AGENT_S} s, and"
            f" back when {centre} has stood well for a while; those of one tunnel are taken over by {other}.",
            f"セルには影響しません。エージェントのある装置は約{_AGENT_S}秒以内に{_title(site, other)}へ切り替え、"
            f"{_title(site, centre)}がしばらく安定すると戻ります。トンネルが一本の装置は"
            f"{_title(site, other)}が引き受けます。",
        )
