"""Notes and checkpoints in the C2SP forms: published examples, one byte form only, and every change refused."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from chukan.tenants import checkpoint as forms
from chukan.tenants.checkpoint import COSIGNER, LOG, Checkpoint, CheckpointError, Key, Note, Signature

ORIGIN = "log.example/production/9901131016000001"
EAST, WEST, THIRD = (Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word).digest()) for word in (b"e", b"w", b"t"))
ROOT = hashlib.sha256(b"root").digest()
AT = 1_795_000_000
SAID = Checkpoint(ORIGIN, 42, ROOT)
WEST_NAME = "log.example/west"
KEYS = [Key.of(ORIGIN, LOG, EAST), Key.of(WEST_NAME, COSIGNER, WEST)]

# The example of golang.org/x/mod/sumdb/note.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
# The example of C2SP tlog-cosignature (its keys are not published).
SOFA = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501 - word for word


def cosigned():
    note = forms.sign(SAID, EAST)
    return note.signed_too([forms.cosign(note.text, WEST_NAME, WEST, AT)])


def test_a_published_key_and_note_are_read_and_their_signature_verifies():
    key = Key.parse(NEUMANN)
    note = forms.parse_note(NEUMANN_NOTE.encode())
    (signature,) = note.signatures
    assert (signature.name, signature.id) == (key.name, key.id)
    assert key.text() == NEUMANN
    forms._check(key, signature.bytes, note.text.encode())
    with pytest.raises(CheckpointError):
        forms._check(key, signature.bytes, note.text.encode() + b" ")
    assert note.encode() == NEUMANN_NOTE.encode()


def test_a_published_checkpoint_with_its_cosignature_is_read():
    note = forms.parse_note(SOFA.encode())
    said = forms.parse_checkpoint(note.text)
    assert (said.origin, said.size, said.extensions) == ("example.com/behind-the-sofa", 20852163, ())
    assert int.from_bytes(note.signatures[1].bytes[:8]) == 1679315147
    assert len(note.signatures[1].bytes) == 72
    assert (note.encode(), said.text()) == (SOFA.encode(), note.text)


def test_a_cosignature_is_over_the_words_of_the_specification():
    raw = forms.cosign(SAID.text(), WEST_NAME, WEST, AT).bytes
    message = f"cosignature/v1\ntime {AT}\n{ORIGIN}\n42\n{base64.b64encode(ROOT).decode()}\n".encode()
    WEST.public_key().verify(raw[8:], message)
    assert (
        Key.of(WEST_NAME, COSIGNER, WEST).id
        == (hashlib.sha256(f"{WEST_NAME}\n\x04".encode() + WEST.public_key().public_bytes_raw()).digest()[:4])
    )


def test_what_was_signed_and_cosigned_verifies():
    found = forms.verify(forms.parse_note(cosigned().encode()), KEYS, origin=ORIGIN)
    assert found.checkpoint == SAID
    assert found.log_key == KEYS[0]
    assert [(each.key.name, each.at) for each in found.cosigned] == [(WEST_NAME, AT)]


def test_signatures_of_unknown_keys_are_passed_over():
    note = forms.sign(SAID, EAST).signed_too(
        [
            Signature(WEST_NAME, b"\0\0\0\0", b"x"),
            forms.cosign(SAID.text(), "log.example/third", THIRD, AT),
            forms.sign(SAID, THIRD).signatures[0],
        ]
    )
    assert forms.verify(note, KEYS, origin=ORIGIN).cosigned == ()


def test_nobody_else_may_sign_for_a_log():
    for key, named in ((THIRD, ORIGIN), (EAST, "log.example/another")):
        note = forms.sign(SAID._replace(origin=named), key)
        with pytest.raises(CheckpointError):
            forms.verify(note, [*KEYS, Key.of("log.example/another", LOG, EAST)], origin=ORIGIN)
    # A log key of another name, however well known, is not this log's.
    other = Key.of("log.example/another", LOG, EAST)
    line = Signature(other.name, other.id, EAST.sign(SAID.text().encode()))
    with pytest.raises(CheckpointError):
        forms.verify(Note(SAID.text(), (line,)), [other, KEYS[1]], origin=ORIGIN)


def test_a_cosignature_alone_is_no_signature_of_the_log():
    only = Note(SAID.text(), (forms.cosign(SAID.text(), WEST_NAME, WEST, AT),))
    with pytest.raises(CheckpointError):
        forms.verify(only, KEYS, origin=ORIGIN)


def test_one_key_as_log_and_cosigner_signs_different_messages():
    note = forms.sign(SAID, EAST)
    as_cosigner = Key.of("log.example/east", COSIGNER, EAST)
    for raw in (note.signatures[0].bytes, (AT).to_bytes(8) + note.signatures[0].bytes):
        moved = Note(note.text, (*note.signatures, Signature(as_cosigner.name, as_cosigner.id, raw)))
        with pytest.raises(CheckpointError):
            forms.verify(moved, [*KEYS, as_cosigner], origin=ORIGIN)
    with pytest.raises(CheckpointError):
        forms.sign(SAID._replace(origin="cosignature/v1"), EAST)


def test_every_change_of_a_byte_is_refused_or_takes_the_cosignature_away():
    raw = cosigned().encode()
    good = forms.verify(forms.parse_note(raw), KEYS, origin=ORIGIN)
    for place in range(len(raw)):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        try:
            found = forms.verify(forms.parse_note(changed), KEYS, origin=ORIGIN)
        except CheckpointError:
            continue
        # What is left is a name or an id that nobody knows: the checkpoint stands, not cosigned.
        assert found.checkpoint == good.checkpoint
        assert found.cosigned == ()


BAD_NOTES = [
    b"", b"\n", b"\n\n", b"text\n", b"text\n\n", b"text\n\nline\n", b"\xff\n\n\xe2\x80\x94 a AAAAAAA=\n",
    b"t\x00\n\n\xe2\x80\x94 a AAAAAAA=\n", b"t\r\n\n\xe2\x80\x94 a AAAAAAA=\n",
    "t\n\n— a AAAAAAA=".encode(), "t\n\n— a  AAAAAAA=\n".encode(), b"t\n\n- a AAAAAAA=\n",
    "t\n\n— a+b AAAAAAA=\n".encode(), "t\n\n— a AAAAAA==\n".encode(), "t\n\n— a AAAAAAB=\n".encode(),
    "t\n\n— a\u3000b AAAAAAA=\n".encode(), "t\n\n— a AAAAAAA=\nmore\n".encode(), "\n\n— a AAAAAAA=\n".encode(),
    ("t\n\n" + "— a AAAAAAA=\n" * 65).encode(), b"x" * 70_000,
]  # fmt: skip


@pytest.mark.parametrize("raw", BAD_NOTES, ids=range(len(BAD_NOTES)))
def test_what_is_no_note_is_refused(raw):
    with pytest.raises(CheckpointError):
        forms.parse_note(raw)


ROOT64 = base64.b64encode(ROOT).decode()
BAD_TEXTS = [
    "", "\n", "o\n", "o\n1\n", f"o\n1\n{ROOT64}", f"\n1\n{ROOT64}\n", f"o\n01\n{ROOT64}\n", f"o\n-1\n{ROOT64}\n",
    f"o\n+1\n{ROOT64}\n", f"o\n1 \n{ROOT64}\n", f"o\n{1 << 63}\n{ROOT64}\n", f"o\n１\n{ROOT64}\n", "o\n1\nAAAA\n",
    f"o\n1\n{ROOT64[:-1]}\n", f"o\n1\n{ROOT64} \n", f"o\n1\n{ROOT64}\n\n", f"o\n1\n{ROOT64}\n\nx\n",
    f"cosignature/v1\n1\n{ROOT64}\n",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_TEXTS, ids=range(len(BAD_TEXTS)))
def test_what_is_no_checkpoint_is_refused(text):
    with pytest.raises(CheckpointError):
        forms.parse_checkpoint(text)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_to_the_same_bytes_or_refused(raw):
    try:
        note = forms.parse_note(raw)
    except CheckpointError:
        return
    assert note.encode() == raw


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)


@given(
    WORDS.filter(lambda word: word != "cosignature/v1"),
    st.integers(0, (1 << 63) - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(WORDS, max_size=3),
)
def test_any_checkpoint_is_read_as_it_was_written(origin, size, root, extensions):
    said = Checkpoint(origin, size, root, tuple(extensions))
    assert forms.parse_checkpoint(said.text()) == said


@given(st.text(max_size=80) | st.just(NEUMANN).map(lambda key: key[:-2] + "V="))
def test_any_text_is_a_key_in_its_one_form_or_refused(text):
    try:
        key = Key.parse(text)
    except CheckpointError:
        return
    assert key.text() == text


def test_keys_are_read_from_lines():
    assert forms.read_keys(["# the centres", "", KEYS[0].text(), f" {KEYS[1].text()}\n"]) == KEYS
    for wrong in (NEUMANN.replace("c74f", "c74e"), NEUMANN.replace("+AR", "+BR"), "a b+00+AA==", "PeterNeumann"):
        with pytest.raises(CheckpointError):
            forms.read_keys([wrong])
