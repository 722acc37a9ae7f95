"""A good site file, and a way to spoil it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chukan.replication.site import Site
from chukan.replication.site_file import parse

SITE = """
name = "towns"
topology = "2+2"
strict = true

[centres.east]
title = "東センター"
directory = "east"

[centres.west]
title = "西センター"
directory = "west"

[witness]
directory = "witness"

[hosts.east-1]
site = "east"
address = "192.0.2.11"

[hosts.east-2]
site = "east"
address = "192.0.2.12"

[hosts.west-1]
site = "west"
address = "192.0.2.21"

[hosts.west-2]
site = "west"
address = "192.0.2.22"

[hosts.witness-1]
site = "witness"
address = "192.0.2.31"

[etcd]
token = "towns"
members = [
  { name = "etcd-east", host = "east-1" },
  { name = "etcd-west", host = "west-1" },
  { name = "etcd-witness", host = "witness-1" },
]

[cells.east]
home = "east"
nodes = [
  { name = "e1", host = "east-1" },
  { name = "e2", host = "east-2" },
  { name = "ew1", host = "west-1", port = 10433, rest_port = 10809 },
  { name = "ew2", host = "west-2", port = 10433, rest_port = 10809 },
]

[cells.west]
home = "west"
nodes = [
  { name = "w1", host = "west-1" },
  { name = "w2", host = "west-2" },
  { name = "we1", host = "east-1", port = 10433, rest_port = 10809 },
  { name = "we2", host = "east-2", port = 10433, rest_port = 10809 },
]

[key_tokens.east]
module = "/usr/lib/vendor/libpkcs11.so"
token = "towns-east"
pin_file = "pin-east"

[key_tokens.west]
module = "/usr/lib/vendor/libpkcs11.so"
token = "towns-west"
pin_file = "pin-west"

[evidence]
name = "log.towns.example"

[revocation]
outside = ["agencies", "network"]

[[exchanges]]
name = "exchange-east"
host = "east-1"

[[exchanges]]
name = "exchange-west"
host = "west-1"

[network]
url = "https://network.example:443"
ca_file = "network/ca.pem"
verify_key_file = "network/verify.pem"

[operator]
directory = "operator"
addresses = ["192.0.2.9"]
"""


@pytest.fixture
def text() -> str:
    return SITE


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Site]:
    """Return a site of which some passages of the file were exchanged; each must be there."""

    def change(*passages: tuple[str, str]) -> Site:
        text = SITE
        for before, after in passages:
            assert before in text
            text = text.replace(before, after)
        return parse(text, tmp_path)

    return change
