"""IPsec links for the controller, on a model of charon: which rows become connections, and which do not."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chukan.errors import Problem
from chukan.tenants.link_plan import prefixes
from chukan.tests.support.ipsec_world import FIRST, NEXT_PSK, PSKS, SECOND, SERVICES, Authority, goal_of
from chukan.tests.support.model_charon import carried_out
from chukan.vpn.gateway.desired import Goal
from chukan.vpn.gateway.drift import drifted
from chukan.vpn.gateway.kinds import Kind, Pass, Report
from chukan.vpn.ipsec.charon import Charon, configuration
from chukan.vpn.ipsec.kind import REFRESH_S, IpsecKind, make
from chukan.vpn.ipsec.model import (
    Actual,
    Association,
    Child,
    Gateway,
    PutConnection,
    Step,
    Unload,
    ike_secret,
    mark,
)
from chukan.vpn.ipsec.settings import Ipsec, check
from chukan.vpn.ipsec.sheet import ipsec_sheet, swanctl_conf
from chukan.vpn.model import Drift

GATEWAY = Gateway(centre="east", certificate=b"a certificate")
FIRST_NAME, SECOND_NAME = (f"{link}.{mark(PSKS[link])}" for link in (FIRST, SECOND))


class Model:
    """A charon that does what it is told, but for what ``refuses`` names."""

    def __init__(self) -> None:
        self.actual = Actual(connections={}, secrets=frozenset(), associations=())
        self.refuses: set[str] = set()
        self.loads = 0

    async def get(self) -> Actual:
        return self.actual

    async def apply(self, steps: Sequence[Step]) -> int:
        return sum(not self._does(step) for step in steps)

    async def load_key(self, private_key: bytes) -> None:
        self.key = private_key

    def _does(self, step: Step) -> bool:
        if isinstance(step, PutConnection):
            self.loads += 1
            if step.wanted.name in self.refuses:
                return False
        self.actual = carried_out(self.actual, [step], GATEWAY)
        return True

    def connect(self, name: str, number: int) -> None:
        told = self.actual.connections[name]
        child = Child(stands=True, local=told.local, remote=told.remote, rx=5, tx=7)
        one = Association(
            number=number,
            name=name,
            identity=told.remote_id,
            established=True,
            age_s=9,
            endpoint="192.0.2.1:4500",
            children=(child,),
        )
        people = (*self.actual.associations, one)
        self.actual = msgspec.structs.replace(self.actual, associations=people)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def kind(model: Model) -> IpsecKind:
    charon = Charon(Ipsec(directory=Path("/nonexistent")), GATEWAY)
    charon.vici = model
    return IpsecKind(charon, GATEWAY, SERVICES)


async def one_pass(kind: Kind, goal: Goal, *, repair: bool = True, now_s: float = 10_000.0) -> Report:
    return await kind.reconcile(
        Pass(goal=goal, links=goal.links, progress={}, endpoints={}, now_s=now_s, repair=repair)
    )


def with_configs(**configs: Mapping[str, Any]) -> Goal:
    goal = goal_of()
    links = {
        link: msgspec.structs.replace(one, peer=msgspec.structs.replace(one.peer, config=configs.get(f"l{link[:6]}")))
        for link, one in goal.links.items()
    }
    return msgspec.structs.replace(goal, links=links)


async def test_what_was_given_and_is_gone_is_drift_and_what_is_new_or_ended_is_none(
    kind: IpsecKind, model: Model
) -> None:
    first = await one_pass(kind, goal_of())
    assert drifted(first.differences, first.left, {}, first.marks) == []
    assert set(model.actual.connections) == {FIRST_NAME, SECOND_NAME}
    model._does(Unload(FIRST_NAME))
    second = await one_pass(kind, goal_of())
    assert drifted(second.differences, second.left, first.marks, second.marks) == [(FIRST, "missing", True)]
    third = await one_pass(kind, goal_of({SECOND: PSKS[SECOND]}))
    assert third.differences == (Drift("rogue", FIRST),)
    assert drifted(third.differences, third.left, second.marks, third.marks) == []
    # Loaded again by hand after its end, it is nobody's.
    goal = goal_of()
    (wanted,) = kind._of(goal.links[FIRST])
    model._does(PutConnection(wanted))
    fourth = await one_pass(kind, goal_of({SECOND: PSKS[SECOND]}))
    assert drifted(fourth.differences, fourth.left, third.marks, fourth.marks) == [(None, "rogue", True)]


@pytest.mark.parametrize(
    "config",
    [
        {"auth": "none"},
        {"auth": "pubkey"},
        {"auth": "pubkey", "ca": "no certificate"},
        {"auth": "pubkey", "ca": "PEM", "id": "*.link.chukan"},
        {"auth": "pubkey", "ca": "PEM", "id": "%any"},
        {"auth": "pubkey", "ca": "PEM", "id": 5},
        {"auth": "pubkey", "ca": "PEM", "id": "C=JP, CN=x"},
        {"auth": "pubkey", "ca": "PEM", "id": "10.0.0.1"},
    ],
)
async def test_a_row_that_cannot_be_used_is_told_and_left_alone(
    kind: IpsecKind, model: Model, config: dict[str, Any]
) -> None:
    await one_pass(kind, goal_of())
    model.connect(FIRST_NAME, 1)
    if config.get("ca") == "PEM":
        config = {**config, "ca": Authority().pem}
    report = await one_pass(kind, with_configs(l131016=config))
    assert report.left == (Drift("missing", FIRST),)
    assert set(model.actual.connections) == {FIRST_NAME, SECOND_NAME}
    assert len(model.actual.associations) == 1


async def test_two_links_never_have_one_identity(kind: IpsecKind, model: Model) -> None:
    config = {"auth": "pubkey", "ca": Authority().pem, "id": "router.example"}
    report = await one_pass(kind, with_configs(l131016=config, l271004={**config, "ca": Authority().pem}))
    assert {each.link for each in report.left} == {FIRST, SECOND}
    assert not model.actual.connections
    report = await one_pass(kind, with_configs(l131016=config))
    assert report.left == ()
    assert {told.remote_id for told in model.actual.connections.values()} >= {"router.example"}


async def test_a_held_link_is_neither_made_nor_taken_away(kind: IpsecKind, model: Model) -> None:
    await one_pass(kind, goal_of())
    model.connect(FIRST_NAME, 1)
    goal = msgspec.structs.replace(goal_of({SECOND: PSKS[SECOND]}), held={FIRST: "sealed"})
    assert (await one_pass(kind, goal)).differences == ()
    assert FIRST_NAME in model.actual.connections
    assert len(model.actual.associations) == 1


async def test_one_that_charon_refuses_keeps_nobody_else_and_is_tried_again(kind: IpsecKind, model: Model) -> None:
    model.refuses = {FIRST_NAME}
    report = await one_pass(kind, goal_of())
    assert report.left == (Drift("missing", FIRST),)
    assert set(model.actual.connections) == {SECOND_NAME}
    model.refuses = set()
    assert (await one_pass(kind, goal_of())).left == ()


async def test_what_cannot_be_seen_is_loaded_again_once_an_hour(kind: IpsecKind, model: Model) -> None:
    await one_pass(kind, goal_of())
    assert (await one_pass(kind, goal_of())).steps == 0
    assert model.loads == 2
    report = await one_pass(kind, goal_of(), now_s=10_001.0 + REFRESH_S)
    assert (report.differences, model.loads) == ((), 4)


async def test_who_is_connected_was_seen_now(kind: IpsecKind, model: Model) -> None:
    await one_pass(kind, goal_of())
    model.connect(FIRST_NAME, 1)
    sightings = (await one_pass(kind, goal_of(), now_s=10_005.0)).sightings
    assert set(sightings) == {FIRST}
    seen = sightings[FIRST]
    assert (seen.endpoint, seen.handshake_at, seen.rx, seen.tx) == ("192.0.2.1:4500", 10_005.0, 5, 7)


async def test_a_link_has_rotated_when_its_next_key_is_in_use(kind: IpsecKind, model: Model) -> None:
    goal = goal_of(next_psks={FIRST: NEXT_PSK})
    await one_pass(kind, goal)
    model.connect(FIRST_NAME, 1)
    assert (await one_pass(kind, goal)).rotated == ()
    model.connect(f"{FIRST}.{mark(NEXT_PSK)}", 2)
    assert (await one_pass(kind, goal)).rotated == (FIRST,)


@pytest.mark.parametrize("links", [{FIRST}, {FIRST, SECOND}, set()])
async def test_a_cut_takes_all_that_bears_the_links_name(kind: IpsecKind, model: Model, links: Collection[str]) -> None:
    goal = goal_of(next_psks={FIRST: NEXT_PSK})
    await one_pass(kind, goal)
    for number, name in enumerate(model.actual.connections):
        model.connect(name, number)
    await kind.cut(goal, links)
    left = {SECOND_NAME, FIRST_NAME, f"{FIRST}.{mark(NEXT_PSK)}"}
    left = {name for name in left if name.rpartition(".")[0] not in links}
    assert set(model.actual.connections) == model.actual.secrets == left
    assert {one.name for one in model.actual.associations} == left


async def test_where_esp_is_the_kernels_the_links_are_led_to_its_interface(model: Model, tmp_path: Path) -> None:
    ways: list[Mapping[str, str]] = []

    async def lead(told: Mapping[str, str]) -> None:
        ways.append(told)

    kind = make(Ipsec(directory=tmp_path, esp="kernel", if_id=7), "east", SERVICES, lead=lead)
    kind._charon.vici = model
    goal = goal_of()
    await one_pass(kind, goal, repair=False)
    assert ways == []
    await one_pass(kind, goal)
    assert ways == [{prefixes(link)[0]: "ipsec0" for link in PSKS}]
    here = make(Ipsec(directory=tmp_path), "east", SERVICES, lead=lead)
    here._charon.vici = Model()
    await one_pass(here, goal)
    assert len(ways) == 1, "charon makes its own"


def test_mine_are_those_of_the_kind(kind: IpsecKind) -> None:
    peer = goal_of().links[FIRST].peer
    assert kind.mine(peer)
    assert not kind.mine(msgspec.structs.replace(peer, kind="wireguard"))


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    check(Ipsec(directory=tmp_path))
    check(Ipsec(directory=tmp_path, esp="kernel", if_id=7))
    for wrong in (
        Ipsec(directory=tmp_path, esp="kernel"),
        Ipsec(directory=tmp_path, if_id=7),
        Ipsec(directory=tmp_path, certificate_file=tmp_path),
    ):
        with pytest.raises(Problem) as caught:
            check(wrong)
        assert caught.value.code == "setting_invalid"
    nothing = Ipsec(directory=tmp_path, certificate_file=tmp_path / "none", private_key_file=tmp_path / "none")
    with pytest.raises(Problem):
        make(nothing, "east", SERVICES)


def test_a_centres_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    certificate, key = Authority().issue("east.gateway.chukan")
    (tmp_path / "gateway.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "gateway.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    named = {"certificate_file": tmp_path / "gateway.pem", "private_key_file": tmp_path / "gateway.key"}
    (tmp_path / "gateway.key").chmod(0o640)
    with pytest.raises(Problem) as caught:
        make(Ipsec(directory=tmp_path, **named), "east", SERVICES)
    assert (caught.value.code, caught.value.expected) == ("gateway_key_unusable", "mode 0600: gateway.key")
    (tmp_path / "gateway.key").chmod(0o600)
    make(Ipsec(directory=tmp_path, **named), "east", SERVICES)


def test_charon_is_told_to_write_no_log_and_to_load_what_is_needed(tmp_path: Path) -> None:
    here = configuration(Ipsec(directory=tmp_path))
    assert "kernel-libipsec" in here
    assert "filelog" not in here
    assert "default = 1" not in here
    assert "kernel-libipsec" not in configuration(Ipsec(directory=tmp_path, esp="kernel", if_id=7))
    assert "stroke" not in here


def test_the_sheet_says_what_the_gateway_is_given() -> None:
    endpoints = {"east": "198.51.100.1:51820", "west": "[2001:db8::1]:51820"}
    keys = {"east": b"\x01" * 32, "west": b"\x02" * 32}
    services = {"east": ["10.255.0.1", "10.255.255.1"], "west": ["10.255.0.2", "10.255.255.1"]}
    sheet, conf = (made(FIRST, endpoints, keys, services) for made in (ipsec_sheet, swanctl_conf))
    for said in (sheet, conf):
        assert "aes256gcm16-prfsha384-ecp384, aes256-sha384-ecp384" in said
        assert "10.76.203.65/32" in said
        assert "fd6b" not in said, "the services have no IPv6"
        for centre, key in keys.items():
            assert ike_secret(key).decode() in said
            assert f"{mark(key)}.{FIRST}.link.chukan" in said
            assert f"{centre}.gateway.chukan" in said
        assert "10.255.0.1/32, 10.255.255.1/32" in said
        assert "10.255.0.2/32, 10.255.255.1/32" in said
        assert "51820" not in said
    assert "198.51.100.1" in sheet
    assert "remote_addrs = 2001:db8::1\n" in conf
    assert len(ike_secret(keys["east"])) == 52
    with pytest.raises(KeyError):
        ipsec_sheet(FIRST, endpoints, {"east": keys["east"]}, services)
