"""IPsec links are kept as they shall be, on real charons: drift, removal, rotation, restarts; others go on."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from vici.exception import CommandException

from chukan.errors import Problem
from chukan.tests.support.ipsec_world import (
    FIRST,
    GATE,
    NEXT_PSK,
    PSKS,
    QUICK_S,
    SECOND,
    SERVICES,
    Authority,
    World,
    connect_both,
    goal_of,
    kept,
    running,
    says_back,
    session,
    wanted_of,
)
from chukan.vpn.ipsec import messages
from chukan.vpn.ipsec.charon import SILENT_MAX, Charon
from chukan.vpn.ipsec.kind import make
from chukan.vpn.ipsec.model import Gateway, expected
from chukan.vpn.ipsec.vici import Vici
from chukan.vpn.model import Drift


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running() as world:
        yield world


@pytest.fixture
def up(world: World) -> World:
    return connect_both(world)


def test_charon_has_exactly_the_desired_connections(up: World) -> None:
    wanted = {one.name: expected(one, Gateway(centre="east", address=GATE)) for one in map(wanted_of, PSKS)}
    session = up.session()
    actual = messages.actual(session.list_conns(), session.get_shared(), session.list_sas())
    assert actual.connections == wanted
    assert actual.secrets == frozenset(wanted)
    for each in session.list_sas():
        ((_, one),) = each.items()
        assert (one["encr-alg"], one["encr-keysize"], one["dh-group"]) == (b"AES_GCM_16", b"256", b"ECP_384")
        assert one["prf-alg"] == b"PRF_HMAC_SHA2_384"


def test_drift_is_repaired_and_the_other_link_keeps_its_connection(up: World) -> None:
    session = up.session()
    before = up.number(FIRST)
    with up.first.call() as connection:
        assert says_back(connection)
        second = wanted_of(SECOND)
        sent = messages.connection(second, Gateway(centre="east", address=GATE))

        # A connection by hand that takes in the first link's address.
        thief = {**sent, "children": {"x": {**sent["children"]["service"], "remote_ts": [f"{up.first.address}/32"]}}}
        session.load_conn({"by-hand": thief})
        assert kept(up).differences == (Drift("stolen", FIRST),)

        # One that is missing, and a secret.
        session.unload_conn({"name": second.name})
        session.unload_shared({"id": second.name})
        assert kept(up).differences == (Drift("missing", SECOND),)

        # One with wider selectors, by which the device gets more than is its own.
        session.load_conn(
            {
                second.name: {
                    **sent,
                    "children": {"service": {**sent["children"]["service"], "remote_ts": ["10.64.0.0/10"]}},
                }
            }
        )
        up.second.disconnect()
        up.second.configure(PSKS[SECOND], **{f"{up.second.address}/32": f"{up.first.address}/32"})
        up.second.connect()
        report = kept(up)
        assert report.differences == (Drift("allowed", SECOND), Drift("stolen", SECOND))
        assert report.left == ()
        assert set(report.sightings) == {FIRST}

        assert says_back(connection)
    assert up.number(FIRST) == before
    test_charon_has_exactly_the_desired_connections(up)


def test_report_only_touches_nothing(up: World) -> None:
    session = up.session()
    (name,) = [name for each in session.list_conns() for name in each if name.startswith(SECOND)]
    session.unload_conn({"name": name})
    report = kept(up, repair=False)
    assert (report.steps, report.differences, report.left) == (
        0,
        (Drift("missing", SECOND),),
        (Drift("missing", SECOND),),
    )
    assert not [name for each in session.list_conns() for name in each if name.startswith(SECOND)]


@pytest.mark.parametrize("by", ["cut", "reconcile"])
def test_a_removal_cuts_a_live_connection_within_a_second(up: World, by: str) -> None:
    remaining = goal_of({SECOND: PSKS[SECOND]})
    with up.first.call() as connection, up.second.call() as other:
        assert says_back(connection)
        assert says_back(other)
        started = time.monotonic()
        if by == "cut":
            asyncio.run(up.kind.cut(remaining, {FIRST}))
        else:
            kept(up, remaining)
        took = time.monotonic() - started
        connection.settimeout(0.5)
        with pytest.raises(OSError):  # noqa: PT011 - a timeout, or no way any more
            says_back(connection)
        assert says_back(other)
    assert took < 1
    assert FIRST not in str(asyncio.run(up.kind._vici.get()).connections)
    assert FIRST not in str(asyncio.run(up.kind._vici.get()).secrets)
    up.first.refused()
    assert kept(up, remaining).differences == ()


def test_a_next_key_is_used_beside_the_first_and_then_alone(up: World) -> None:
    both = goal_of(next_psks={FIRST: NEXT_PSK})
    assert kept(up, both).rotated == ()
    with up.second.call() as other:
        up.first.disconnect()
        up.first.configure(NEXT_PSK)
        up.first.connect()
        assert kept(up, both).rotated == (FIRST,)
        before = up.number(FIRST)
        with up.first.call() as connection:
            kept(up, goal_of({**PSKS, FIRST: NEXT_PSK}))
            assert says_back(connection)
        assert up.number(FIRST) == before
        assert says_back(other)
    up.first.disconnect()
    up.first.configure(PSKS[FIRST])
    assert "IKE_AUTH response 1 [ N(AUTH_FAILED) ]" in up.first.refused()


def test_a_controller_that_comes_back_finds_everything_and_disturbs_nobody(up: World) -> None:
    with up.first.call() as connection:
        before = up.number(FIRST), up.number(SECOND)
        again = up.controller()
        assert not asyncio.run(again.ensure())
        report = kept(up, kind=again)
        assert report.differences == ()
        assert report.steps == 4, "what cannot be seen is loaded again"
        assert kept(up, kind=again).steps == 0
        assert says_back(connection)
        assert (up.number(FIRST), up.number(SECOND)) == before


def test_a_charon_that_only_does_not_answer_is_left_alone_at_first(up: World) -> None:
    charon = Charon(up.settings, Gateway(centre="east"), netns=up.netns)
    charon.vici = Vici(charon.socket, Gateway(centre="east"), call_s=0.2)
    pid = int((up.settings.directory / "charon.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(SILENT_MAX - 1):
            with pytest.raises(Problem) as caught:
                asyncio.run(charon.ensure())
            assert caught.value.code == "link_ipsec_away"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert not asyncio.run(charon.ensure())
    with up.first.call() as connection:
        assert says_back(connection)
    os.kill(pid, signal.SIGSTOP)
    for _ in range(SILENT_MAX - 1):
        with pytest.raises(Problem):
            asyncio.run(charon.ensure())
    assert asyncio.run(charon.ensure()), "in the end it is started anew"


def test_a_charon_that_was_killed_is_started_again_and_given_everything(up: World) -> None:
    async def killed() -> None:
        death = asyncio.create_task(up.kind.died())
        await asyncio.sleep(0)
        async with asyncio.timeout(QUICK_S):
            assert await Charon(up.settings, Gateway(centre="east"))._end(9)
            await death

    asyncio.run(killed())
    with pytest.raises(Problem) as caught:
        kept(up)
    assert caught.value.code == "link_ipsec_away"
    assert asyncio.run(up.kind.ensure())
    assert {each.kind for each in kept(up).differences} == {"missing"}
    up.first.disconnect()
    up.first.connect()
    with up.first.call() as connection:
        assert says_back(connection)


def test_a_device_with_a_certificate_is_known_by_its_name_in_it(up: World) -> None:
    ours, theirs = Authority(), Authority()
    gateway, gateway_key = ours.issue("east.gateway.chukan")
    folder = up.settings.directory
    (folder / "gateway.pem").write_bytes(gateway.public_bytes(Encoding.PEM))
    (folder / "gateway.key").write_bytes(gateway_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "gateway.key").chmod(0o600)
    settings = msgspec.structs.replace(
        up.settings, certificate_file=folder / "gateway.pem", private_key_file=folder / "gateway.key"
    )
    kind = make(settings, "east", SERVICES, netns=up.netns)
    assert not asyncio.run(kind.ensure())
    goal = goal_of({FIRST: PSKS[FIRST]}, config={"auth": "pubkey", "ca": theirs.pem})
    assert kept(up, goal, kind=kind).left == ()
    assert kept(up, goal, kind=kind).differences == ()

    def try_as(name: str, authority: Authority) -> bool:
        certificate, key = authority.issue(name)
        hand = session(up.first.charon.socket)
        hand.load_key({"type": "any", "data": key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())})
        sent = messages.connection(wanted_of(FIRST), Gateway(centre="east"))
        near = {"auth": "pubkey", "id": name, "certs": [certificate.public_bytes(Encoding.DER)]}
        far = {"auth": "pubkey", "id": "east.gateway.chukan", "cacerts": [ours.certificate.public_bytes(Encoding.DER)]}
        child = sent["children"]["service"]
        child["local_ts"], child["remote_ts"] = child["remote_ts"], child["local_ts"]
        by_name = {"remote_addrs": [GATE], "local_addrs": ["%any"], "local": near, "remote": far}
        up.first.disconnect()
        hand.load_conn({"east": {**sent, **by_name}})
        try:
            list(hand.initiate({"ike": "east", "child": "service", "timeout": "3000"}))
        except CommandException:
            return False
        return True

    assert not try_as(f"{SECOND}.link.chukan", theirs)
    assert not try_as(f"{FIRST}.link.chukan", ours)
    assert try_as(f"{FIRST}.link.chukan", theirs)
    with up.first.call() as connection:
        assert says_back(connection)
    assert set(kept(up, goal, kind=kind).sightings) == {FIRST}
