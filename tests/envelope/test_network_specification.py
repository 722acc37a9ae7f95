"""The written specification and the code say the same: every field of every message, every path, every example."""

import datetime as dt
import re
import uuid
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.clock import ManualClock
from chukan.errors import REGISTRY
from chukan.platform import envelope, peer, permits
from chukan.platform.envelope import Opener, Signer
from chukan.platform.http import network as pushes
from chukan.platform.sealed import open_answer
from chukan.platform.wire import checkpoints, network_asks, registrations
from chukan.platform.wire import network as wire
from chukan.platform.wire.network import Message, SealedAnswer
from chukan.tenants.merkle import leaf_hash

pytestmark = pytest.mark.requirement("TXR-04")

TEXT = (Path(__file__).parents[2] / "docs" / "specs" / "network-protocol.md").read_text(encoding="utf-8")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MESSAGES = {
    name: kind
    for module in (wire, checkpoints, network_asks, registrations)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
}


def table_of(name: str) -> dict[str, tuple[str, str]]:
    """Return (type, required) by field from the table under the heading of a message."""
    section = re.search(rf"^### {name}\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL)
    assert section is not None, f"{name} has no section"
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ((?:yes|no)[^|]*?) \|", section[1], re.MULTILINE)
    return {field: (kind, required) for field, kind, required in rows}


def example(name: str) -> str:
    found = re.search(rf"^```\w+ example-{name}\n(.*?)\n```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def named(name: str) -> dict[str, str]:
    """Return the lines of an example by their first word or words."""
    return dict(
        re.split(r"\s{2,}|(?<=signature) |(?<=encapsulation) ", line, maxsplit=1) for line in example(name).splitlines()
    )


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_has_its_fields_in_the_specification(name: str) -> None:
    fields = {field.encode_name: field.required for field in msgspec.structs.fields(MESSAGES[name])}
    tag = MESSAGES[name].__struct_config__.tag_field
    if tag is not None:
        fields[tag] = True
    written = {field: required == "yes" for field, (_, required) in table_of(name).items()}
    assert written == fields


@pytest.mark.parametrize("name", MESSAGES)
def test_every_fixed_word_is_in_the_specification(name: str) -> None:
    for field in msgspec.inspect.type_info(MESSAGES[name]).fields:  # type: ignore[attr-defined]
        if isinstance(field.type, msgspec.inspect.LiteralType) and field.name != "outcome":
            words = set(re.findall(r"`(\w+)`", table_of(name)[field.name][0]))
            assert words == set(field.type.values)
        if field.name == "outcome":
            assert all(f"`{word}`" in TEXT for word in field.type.values)


def test_every_path_is_in_the_specification() -> None:
    listed = set(re.findall(r"\| `(/\w+/v1/[\w-]+)` \|", TEXT))
    ours = {peer.PERMIT_REQUESTS, peer.ANSWERS, peer.ACQUISITIONS, peer.ANSWER_KEYS, peer.HOLDERS}
    ours |= {peer.INVENTORIES, peer.REDELIVERIES, peer.CHECKPOINTS}
    ours |= {pushes.NOTICES, pushes.ANSWERS, pushes.CODES}
    ours |= {peer.PROVIDER_KEYS, peer.ACQUISITION_ASKS, pushes.ACQUISITION_ASKS}
    ours |= {peer.DELEGATIONS, peer.CORRECTIONS, pushes.CORRECTIONS}
    assert listed == ours | {"/registry/v1/resident-codes"}


def test_every_code_of_the_specification_is_registered_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", TEXT, re.MULTILINE)
    assert len(rows) > 20
    for code, status in rows:
        assert REGISTRY[code].status == int(status)


def test_every_component_is_in_the_specification() -> None:
    for components in (envelope._REQUEST, envelope._REPLY, envelope._REFUSAL):
        assert " ".join(f'`"{name}"`' for name in components) in TEXT
    assert f'`"{envelope.TAG}"`' in TEXT


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{peer.BODY_BYTES_MAX:,} bytes" in TEXT
    assert f"| 300 s / {envelope.MAX_AHEAD_S} s |" in TEXT
    assert f"1 to {wire.LINES_MAX:,}" in TEXT
    assert permits.DOMAIN == b"chukan-permit-list-v1\n"
    assert pushes._WORK_DEADLINE_S == 30.0
    assert pushes._IN_FLIGHT_MAX == 64


def test_the_example_of_a_request_opens_and_can_be_made() -> None:
    headers = dict(line.split(": ", 1) for line in example("headers").splitlines())
    body = example("body").encode()
    clock = ManualClock(dt.datetime(2026, 11, 23, 3, 0, tzinfo=dt.UTC))
    opened = Opener({"exchange-east": KEY.public_key()}, clock).request(
        "POST", "/network/v1/acquisitions", headers, body
    )
    assert opened.evidence.base.decode() == example("base")

    class Fixed:
        def uuid7(self) -> uuid.UUID:
            return opened.message

        def token(self, n: int) -> bytes:
            raise NotImplementedError

    again = Signer("exchange-east", KEY, clock, Fixed()).request("POST", "/network/v1/acquisitions", opened.items)
    assert (again.body, again.headers) == (body, headers)


def test_the_example_of_a_permit_list_is_what_the_code_makes() -> None:
    lines = named("permit-list")
    list_id = uuid.UUID("01a20658-9b80-7000-8000-0000000000bb")
    entries = permits.sign_list([b"a", b"b", b"c"], list_id=list_id, key_id="k", key=KEY)
    for entry in entries:
        letter = entry.body.decode()
        assert lines[f"leaf {letter}"] == leaf_hash(entry.body).hex()
        assert [lines[step] for step in re.split(r", (?=leaf|node)", lines[f"path {letter}"])] == [
            step.hex() for step in entry.path
        ]
        assert lines["signature"] == entry.signature.hex()
    assert lines["signed"] == permits.signed_bytes(list_id, 3, bytes.fromhex(lines["root"])).hex()
    KEY.public_key().verify(entries[0].signature, bytes.fromhex(lines["signed"]))


@pytest.mark.requirement("TXR-02")
def test_the_example_of_a_sealed_answer_opens() -> None:
    lines = named("sealed")
    sealed = SealedAnswer(
        key="answer-1",
        encapsulation=bytes.fromhex(lines["encapsulation"]),
        counter=0,
        ciphertext=bytes.fromhex(lines["ciphertext"]),
    )
    private = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    content = open_answer(sealed, uuid.UUID("01a20658-9b80-7000-8000-0000000000cc"), private)
    assert content.decode() == lines["content"]
