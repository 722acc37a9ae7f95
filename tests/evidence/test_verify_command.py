"""``chukan records verify``: exit status and document of a log that is as it was signed, and of one that is not."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chukan.ops import cli
from chukan.tenants import checkpoint as forms
from chukan.tenants import evidence_file, merkle
from chukan.tenants.evidence_file import CheckpointLine, Header, LeafLine, TileLine

ORIGIN = "log.example/sandbox/9901131016000001"
EAST, WEST = (Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word).digest()) for word in (b"e", b"w"))


def leaf(n: int) -> bytes:
    return b"\x01" + hashlib.sha256(b"%d" % n).digest() + struct.pack(">32sQ32s", b"%d" % n, 0, bytes(32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = [leaf(n) for n in range(20)]
    hashes = [merkle.leaf_hash(each) for each in data]
    note = forms.sign(forms.Checkpoint(ORIGIN, 20, merkle.root_of(hashes)), EAST)
    note = note.signed_too([forms.cosign(note.text, "log.example/west", WEST, 1_795_000_000)])
    lines = [
        Header(origin=ORIGIN, of="log", records=False),
        CheckpointLine(note.encode().decode()),
        TileLine(n=0, hashes=b"".join(hashes[:16])),
        *(LeafLine(position=n, data=each, hash=merkle.leaf_hash(each)) for n, each in enumerate(data, 1)),
    ]
    (tmp_path / "log.jsonl").write_bytes(b"".join(evidence_file.encode(lines)))
    known = forms.Key.of(ORIGIN, forms.LOG, EAST), forms.Key.of("log.example/west", forms.COSIGNER, WEST)
    (tmp_path / "keys.txt").write_text("# both centres\n" + "".join(f"{key.text()}\n" for key in known))
    (tmp_path / "note").write_bytes(note.encode())
    return tmp_path


def run(folder: Path, *more: str) -> int:
    return cli.run(["records", "verify", str(folder / "log.jsonl"), "--keys", str(folder / "keys.txt"), *more])


def test_a_log_that_is_as_it_was_signed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--known", str(folder / "note"), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["sound"], said["origin"], said["size"], said["cosigned_size"]) == (True, ORIGIN, 20, 20)
    assert (said["leaves"], said["first_bad"], said["findings"], said["shows"]) == (20, None, [], "unaltered")
    assert run(folder) == 0
    assert "unaltered" in capsys.readouterr().out


def test_the_first_bad_leaf_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "log.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:9], *lines[10:]]))
    assert run(folder, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["sound"], said["first_bad"]["code"], said["first_bad"]["first"]) == (False, "position", 7)
    assert run(folder) == 1
    assert "NOT as it was signed" in capsys.readouterr().out


def test_keys_come_from_elsewhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other centre's key left out: nobody has cosigned. The log's own left out: nobody has signed."""
    lines = (folder / "keys.txt").read_text().splitlines(keepends=True)
    (folder / "keys.txt").write_text(lines[1])
    assert run(folder, "--json") == 1
    assert [each["code"] for each in json.loads(capsys.readouterr().out)["findings"]] == ["not_cosigned"]
    assert run(folder, "--allow-uncosigned", "--json") == 0
    capsys.readouterr()
    (folder / "keys.txt").write_text(lines[2])
    assert run(folder, "--json") == 1
    assert "no_checkpoint" in [each["code"] for each in json.loads(capsys.readouterr().out)["findings"]]


def test_what_cannot_be_read_is_a_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "keys.txt").write_text("no key\n")
    assert run(folder, "--json") == 2
    assert json.loads(capsys.readouterr().out)["code"] == "setting_invalid"
    (folder / "keys.txt").unlink()
    assert run(folder) == 2
