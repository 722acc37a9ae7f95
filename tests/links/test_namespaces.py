"""A socket is made where it shall stand, and nobody is left standing there."""

import os
import socket
from pathlib import Path

import pytest

from chukan.errors import Problem
from chukan.ops.namespaces import enter, sockets_in, standing

HERE = "/proc/thread-self/ns/net"
INFO = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 9))


def test_a_namespace_that_is_not_there_is_a_problem_and_nobody_moves() -> None:
    before = Path(HERE).readlink()
    with pytest.raises(Problem) as told, standing(f"ckl-{os.getpid()}-none"):
        pytest.fail("this stands nowhere")
    assert told.value.code == "not_possible_here"
    with pytest.raises(Problem):
        enter(f"ckl-{os.getpid()}-none")
    assert Path(HERE).readlink() == before


def test_a_socket_in_a_namespace_that_is_gone_fails_as_a_network_does() -> None:
    with pytest.raises(OSError, match="gone"):
        sockets_in(f"ckl-{os.getpid()}-none")(INFO)
