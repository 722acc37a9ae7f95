"""The picture of a site names everything that does not stand as it should."""

import io
from typing import Any

import msgspec
from rich.console import Console

from chukan.ops.centres.drawing import draw
from chukan.ops.centres.link_picture import GatewayPicture
from chukan.ops.centres.picture import CellPicture, ExchangePicture, NodePicture, Picture


def node(name: str, role: str, **given: Any) -> NodePicture:
    streaming = role in {"sync", "replica"}
    told: dict[str, Any] = {"centre": "east", "state": "running", "timeline": 3, "lag_bytes": 0, "streaming": streaming}
    return NodePicture(name=name, role=role, **{**told, **given})


GOOD = Picture(
    site="towns",
    topology="2+1",
    strict=False,
    cells=[
        CellPicture(
            name="east",
            home="east",
            leader="e1",
            timeline=3,
            sync=["e2", "ew1"],
            sync_wanted=2,
            nodes=[node("e1", "primary", lag_bytes=None), node("e2", "sync"), node("ew1", "sync", centre="west")],
        )
    ],
    etcd={"etcd-east": True, "etcd-west": True, "etcd-witness": True},
    exchanges=[
        ExchangePicture(
            name="exchange-east", centre="east", ready=True, answers=True, cells={"east": True}, faults=[], warnings=[]
        )
    ],
)
replace = msgspec.structs.replace


def shown(picture: Picture) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(draw(picture))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def cell(**given: Any) -> Picture:
    return replace(GOOD, cells=[replace(GOOD.cells[0], **given)])


def test_a_whole_site_has_no_complaint() -> None:
    assert GOOD.whole
    assert "Everything stands" in shown(GOOD)


def test_a_cell_without_a_leader_is_complained_of() -> None:
    assert cell(leader=None).complaints()[0] == "cell east has no leader"


def test_a_standby_that_is_not_synchronous_is_complained_of() -> None:
    picture = cell(sync=["e2"], nodes=[*GOOD.cells[0].nodes[:2], node("ew1", "replica")])
    assert picture.complaints() == ["cell east has 1 of 2 synchronous standbys"]


def test_a_silent_node_is_shown_as_silent_and_a_stuck_one_as_not_streaming() -> None:
    nodes = [*GOOD.cells[0].nodes[:1], node("e2", "silent", streaming=False), node("ew1", "sync", streaming=False)]
    complaints = cell(nodes=nodes).complaints()
    assert [complaint.split()[0] for complaint in complaints] == ["e2", "ew1"]
    assert "silent" in shown(cell(nodes=nodes))


def test_two_that_say_they_lead_are_complained_of() -> None:
    nodes = [*GOOD.cells[0].nodes[:2], node("ew1", "old primary")]
    assert cell(nodes=nodes).complaints() == ["ew1 is old primary (running)"]


def test_a_voter_and_an_exchange_that_do_not_answer_are_complained_of() -> None:
    exchange = replace(GOOD.exchanges[0], ready=False, answers=False, cells={})
    picture = replace(GOOD, etcd={**GOOD.etcd, "etcd-west": False}, exchanges=[exchange])
    assert picture.complaints() == [
        "etcd-west does not answer or sees no majority",
        "exchange-east does not answer",
    ]


def test_an_exchange_that_cannot_commit_in_a_cell_is_complained_of() -> None:
    exchange = replace(GOOD.exchanges[0], cells={"east": False})
    assert replace(GOOD, exchanges=[exchange]).complaints() == ["exchange-east cannot commit in east"]


def test_the_picture_fits_a_terminal_of_80_columns_and_says_who_leads_away_from_home() -> None:
    nodes = [node("e1", "sync"), node("e2", "sync"), node("ew1", "primary", centre="west")]
    text = shown(cell(leader="ew1", sync=["e1", "e2"], nodes=nodes))
    assert "away from home" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_names_of_a_site_are_text_and_never_markup() -> None:
    assert "[red]towns" in shown(replace(GOOD, site="[red]towns"))


def linked(**given: Any) -> Picture:
    told: dict[str, Any] = {"answers": True, "links": 10, "up": 10}
    return replace(GOOD, links=[GatewayPicture(name="gateway-east", centre="east", **{**told, **given})])


def test_gateways_are_shown_with_their_links() -> None:
    assert linked().whole
    assert "10 of 10 links up" in shown(linked())
    assert "no difference found" in shown(linked())
    assert "3 differences found" in shown(linked(drift=3))


def test_a_link_that_is_down_is_shown_and_no_complaint() -> None:
    assert linked(up=9).whole
    assert "9 of 10 links up" in shown(linked(up=9))


def test_a_silent_and_a_drained_gateway_are_complained_of() -> None:
    assert linked(answers=False).complaints() == ["gateway-east does not answer"]
    assert "silent" in shown(linked(answers=False))
    assert not linked(draining=True).whole
    assert "drained" in shown(linked(draining=True))
