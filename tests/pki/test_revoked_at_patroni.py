"""Patroni's REST API, as this project starts it, reads nothing of whoever shows a revoked certificate."""

import contextlib
import http.client
import importlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from chukan.replication import render, revoked_serials
from chukan.replication.patroni_rest import OPTION, refuse_revoked
from chukan.replication.revoked_serials import Serials
from chukan.tests.support.tls_world import World

pytestmark = pytest.mark.requirement("CON-01")

WITHIN_S = 10.0


def servers_class() -> Any:
    """Patroni's own class; who imports Patroni has its umask, which is none for the tests that come after."""
    before = os.umask(0o022)
    try:
        return importlib.import_module("patroni.api").RestApiServer
    finally:
        os.umask(before)


RestApiServer = servers_class()


@pytest.fixture(autouse=True)
def as_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do to Patroni's own class what is done before it starts."""
    for method in ("reload_config", "finish_request"):
        monkeypatch.setattr(RestApiServer, method, getattr(RestApiServer, method))
    refuse_revoked(RestApiServer)


@contextlib.contextmanager
def rest_of(town: World, **changes: Any) -> Iterator[Any]:
    """Serve the REST API of the node with the settings that are rendered; behind it stands nobody who leads."""
    rendered = yaml.safe_load(render.patroni(town.site, "e1", render.Secrets("s", "r", "w", "p")))["restapi"]
    assert rendered["verify_client"] == "required"
    assert OPTION in rendered
    certificate, key = town.issued["e1"]
    settings = {**rendered, "listen": "127.0.0.1:0", "certfile": str(certificate), "keyfile": str(key), **changes}
    settings["auth"] = "patroni:p"
    served = RestApiServer(SimpleNamespace(config={}, ha=None, postgresql=None), settings)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.shutdown()
        thread.join(WITHIN_S)
        served.server_close()


def asked(town: World, served: Any, name: str) -> bool:
    """Tell whether a peer with its certificate gets an answer, of whatever kind."""
    calls = http.client.HTTPSConnection(
        "127.0.0.1", served.server_address[1], context=town.context(name), timeout=WITHIN_S
    )
    try:
        calls.request("PUT", "/nothing-of-the-kind")
        return calls.getresponse().status > 0
    except (OSError, http.client.HTTPException):
        return False
    finally:
        calls.close()


def test_a_revoked_peer_is_refused_at_once_and_nobody_else(town: World) -> None:
    with rest_of(town) as served:
        assert [asked(town, served, name) for name in ("exchange-east", "exchange-west")] == [True, True]
        town.revoke("exchange-east")  # nothing is started anew, nothing is told to reload
        assert [asked(town, served, name) for name in ("exchange-east", "exchange-west")] == [False, True]
        # A reload of Patroni's settings keeps what is in force.
        served.reload_config({**_settings(served, town)})
        assert not asked(town, served, "exchange-east")


def _settings(served: Any, town: World) -> dict[str, Any]:
    rendered = yaml.safe_load(render.patroni(town.site, "e1", render.Secrets("s", "r", "w", "p")))["restapi"]
    certificate, key = town.issued["e1"]
    listen = {"listen": "127.0.0.1:0", "certfile": str(certificate), "keyfile": str(key), "auth": "patroni:p"}
    return {**rendered, **listen}


def test_without_the_setting_nobody_is_refused_for_it(town: World) -> None:
    town.revoke("exchange-east")
    with rest_of(town, **{OPTION: None}) as served:
        assert asked(town, served, "exchange-east")


def test_it_speaks_tls_1_3_alone(town: World) -> None:
    with rest_of(town) as served:
        older = town.context("exchange-west")
        older.minimum_version, older.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(served.server_address, timeout=WITHIN_S) as plain,
            pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"),
        ):
            older.wrap_socket(plain, server_hostname="127.0.0.1")
        assert asked(town, served, "exchange-west")


def test_told_of_a_file_it_does_not_start_without_a_good_one(town: World) -> None:
    file = town.lists / "joined.serials"
    file.write_text("chukan revoked serial numbers 1\nend 1\n")
    with pytest.raises(ValueError, match="whole file"), rest_of(town):
        pass
    file.unlink()
    with pytest.raises(FileNotFoundError), rest_of(town):
        pass


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"chukan revoked serial numbers 1\n", b"chukan revoked serial numbers 1\nzz\nend 1\n", None],
    ids=["empty", "noise", "cut off", "no number", "gone"],
)
def test_the_last_good_file_goes_on_whatever_lies_there(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "joined.serials"
    file.write_bytes(revoked_serials.write(frozenset({0xAB, 2**159})))
    serials = Serials(file)
    assert serials.refuses("00AB")
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert serials.refuses("AB")
    assert serials.refuses(f"{2**159:X}")
    assert not serials.refuses("AC")
    assert serials.refuses(None)
    file.write_bytes(revoked_serials.write(frozenset({0xAC})))
    assert (serials.refuses("AB"), serials.refuses("AC")) == (False, True)
