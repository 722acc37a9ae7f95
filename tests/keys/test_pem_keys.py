"""A key file of the settings that is none, is of another sort or has a password is a problem that names it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from chukan.errors import Problem
from chukan.tenants.pem_keys import read_private_key, read_public_key

KEY = Ed25519PrivateKey.generate()
OTHER = ec.generate_private_key(ec.SECP256R1())
FORM = (Encoding.PEM, PrivateFormat.PKCS8)
PRIVATE = KEY.private_bytes(*FORM, NoEncryption())
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
LOCKED = KEY.private_bytes(*FORM, BestAvailableEncryption(b"a password of a test"))
FOREIGN = OTHER.private_bytes(*FORM, NoEncryption())
FOREIGN_PUBLIC = OTHER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_pair_is_read(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(PRIVATE)
    read = read_private_key(file)
    file.write_bytes(PUBLIC)
    assert read.public_key() == read_public_key(file) == KEY.public_key()


@pytest.mark.parametrize(
    ("read", "content"),
    [
        *((read_private_key, content) for content in (None, b"", b"x", PUBLIC, LOCKED, FOREIGN)),
        *((read_public_key, content) for content in (None, b"", b"x", PRIVATE, FOREIGN_PUBLIC)),
    ],
)
def test_what_is_no_such_key_is_refused_by_its_name(
    read: Callable[[Path], object], content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Problem) as refused:
        read(file)
    assert (refused.value.code, refused.value.expected) == ("certificate_unreadable", str(file))
