"""VICI's far end may be slow, dead, confused or talkative: calls end in time, and say nothing of what was sent."""

import socket
import struct
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from vici.protocol import Message, Packet

from chukan.errors import Problem
from chukan.vpn.ipsec.model import Gateway, PutSecret, Wanted, ike_secret
from chukan.vpn.ipsec.vici import Vici

PSK = b"\x05" * 32
WANTED = Wanted(
    link="131016-1",
    centre="east",
    auth="psk",
    secret=PSK,
    local=frozenset({"10.255.0.1/32"}),
    remote=frozenset({"10.76.203.65/32"}),
)
CALL_S = 0.3
Answer = Callable[[socket.socket], None]


class FarEnd:
    """Somebody behind a socket who lets ``answer`` talk to whoever comes."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                self._answer(connection)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)


@pytest.fixture
def far_end() -> Iterator[Callable[[Answer], Vici]]:
    with tempfile.TemporaryDirectory() as folder:
        ends: list[FarEnd] = []

        def make(answer: Answer) -> Vici:
            path = Path(folder) / "vici"
            ends.append(FarEnd(path, answer))
            return Vici(path, Gateway(centre="east"), call_s=CALL_S, batch_s=2 * CALL_S)

        yield make
        for end in ends:
            end.close()


def read(connection: socket.socket) -> bytes:
    (length,) = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL))
    return connection.recv(length, socket.MSG_WAITALL)


def send(connection: socket.socket, kind: int, **said: str) -> None:
    packet = struct.pack("!B", kind) + Message.serialize(said)
    connection.sendall(struct.pack("!I", len(packet)) + packet)


def silence(connection: socket.socket) -> None:
    with suppress(OSError):
        while connection.recv(4096):
            pass


def one_byte(connection: socket.socket) -> None:
    connection.sendall(b"\0")
    silence(connection)


def drop(connection: socket.socket) -> None:
    read(connection)


def nonsense(connection: socket.socket) -> None:
    read(connection)
    connection.sendall(b"\0\0\0\x05\x01\xff\xff\xff\xff")
    silence(connection)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"\xff\xff\xff\xff" + b"x" * 1000)
    silence(connection)


@pytest.mark.parametrize("answer", [silence, one_byte, drop, endless])
async def test_a_far_end_that_does_not_answer_is_away_in_time(
    far_end: Callable[[Answer], Vici], answer: Answer
) -> None:
    vici = far_end(answer)
    started = time.monotonic()
    with pytest.raises(Problem) as caught:
        await vici.get()
    assert caught.value.code == "link_ipsec_away"
    assert time.monotonic() - started < CALL_S + 1


async def test_an_answer_that_is_none_is_refused(far_end: Callable[[Answer], Vici]) -> None:
    with pytest.raises(Problem) as caught:
        await far_end(nonsense).get()
    assert caught.value.code == "link_ipsec_refused"


async def test_nobody_at_the_socket_is_away() -> None:
    with pytest.raises(Problem) as caught:
        await Vici(Path("/nonexistent/vici"), Gateway(centre="east")).version()
    assert caught.value.code == "link_ipsec_away"


async def test_a_refusal_that_quotes_a_key_is_counted_and_never_told(far_end: Callable[[Answer], Vici]) -> None:
    heard: list[bytes] = []

    def refuse(connection: socket.socket) -> None:
        heard.append(read(connection))
        send(connection, Packet.CMD_RESPONSE, success="no", errmsg=f"bad: {ike_secret(PSK).decode()}")
        silence(connection)

    assert await far_end(refuse).apply([PutSecret(WANTED)]) == 1
    assert ike_secret(PSK) in heard[0], "the key was sent, so that a quotation was possible"


async def test_an_unknown_command_is_a_refusal_without_its_text(far_end: Callable[[Answer], Vici]) -> None:
    def unknown(connection: socket.socket) -> None:
        read(connection)
        send(connection, Packet.CMD_UNKNOWN)
        silence(connection)

    with pytest.raises(Problem) as caught:
        await far_end(unknown).apply([PutSecret(WANTED)])
    assert caught.value.code == "link_ipsec_refused"
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
    assert ike_secret(PSK).decode() not in told
    assert repr(PSK) not in told
