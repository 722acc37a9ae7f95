"""Decoders of files: what agencies send, evidence, certificates, orders, masters, links (rows of ``decoders``)."""

import base64
import datetime as dt
import functools
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from chukan import toml_reading
from chukan.errors import Problem
from chukan.ops import certificate_life as life
from chukan.ops import personnel
from chukan.ops.certificates import Authority, read_certificates
from chukan.platform import revocation
from chukan.platform.http import code_files, parts, problems, query_lines
from chukan.platform.law import calendar
from chukan.platform.law import masters as masters_of_law
from chukan.tenants import (
    checkpoint,
    credentials,
    directory,
    evidence_check,
    evidence_file,
    export_file,
    label_map,
    masters,
    merkle,
    operations,
    orders,
    records,
)
from chukan.tenants.credentials import UntrustedError
from chukan.tenants.evidence_report import Rules
from chukan.tests.support.decoder_forms import AGENCY, CLOCK, KEY, NOW, SEAL, Decoder, tellable
from chukan.vpn import enrolment
from chukan.vpn.wireguard import keys as wireguard_keys

# ---------------------------------------------------------------- files of agencies


_QUERY: Final = ",".join(
    [
        *("01", "000000000000042", " " * 15, "20261123093000123", "FUKUSHI".ljust(20), "user01".ljust(20)),
        *("1310100000000001", "1", "JM01000000121000", "JT01010000000214", "", "", "9901271004000001"),
        *("TM00000000000002", "0", "0", "", ""),
    ]
)
"""A line as an agency's system writes it."""


def _files() -> Iterator[Decoder]:
    for charset in ("utf-8", "cp932"):
        line = ",".join("9" * field.width for field in query_lines.QUERY_FIELDS).encode(charset) + b"\r\n"

        whole = _QUERY.encode(charset) + b"\r\n"

        def queries(raw: bytes, charset: str = charset) -> object:
            return tellable([str(each.line) for part in query_lines.read_parts(raw, charset, AGENCY) for each in part])

        yield Decoder(f"query file {charset}", queries, (line, line * 3, whole), ())
        for form, seed in (
            (parts.JsonLines, b'{"addressee":"A1","effective_from":"2026-06-01","items":{"TKX0020000000001":"1"}}'),
            (parts.CsvLines, b"addressee,effective_from,review,TKX0020000000001\r\nA1,2026-06-01,0,1\r\n"),
        ):

            def load(raw: bytes, form: Any = form, charset: str = charset) -> object:
                return _load_part(form(charset), form is parts.CsvLines, raw)

            yield Decoder(
                f"load part {form.__name__} {charset}", load, (seed, seed + b"\n"), (Problem, parts.PartError)
            )
    yield Decoder("code file", lambda raw: list(code_files.read_lines(raw)), (b"123456789012345\r\n" * 3,), ())
    person = b"act,officer,name,first\r\nadd,k-tanaka,a name,2026-04-01\r\n"
    for charset in ("utf-8", "cp932"):
        read = functools.partial(personnel.read, charset=charset)
        yield Decoder(f"personnel file {charset}", functools.partial(_as_file, read), (person,))


def _load_part(form: Any, quoted: bool, raw: bytes) -> object:  # noqa: FBT001
    splitter = parts.Splitter(quoted=quoted)
    lines = [*splitter.feed(raw[: len(raw) // 2]), *splitter.feed(raw[len(raw) // 2 :]), *splitter.finish()]
    return [form.read(record, number) for number, record in lines]


def _as_file(read: Callable[[Path], object], raw: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(raw)
        return read(path)


# ---------------------------------------------------------------- evidence


def _evidence() -> Iterator[Decoder]:
    errors = (checkpoint.CheckpointError,)
    leaf = bytes(105)
    said = checkpoint.Checkpoint("chukan.example/log/1", 1, merkle.leaf_hash(leaf))
    note = checkpoint.sign(said, KEY).encode()
    vkey = checkpoint.Key.of(said.origin, checkpoint.LOG, KEY)
    lines: list[evidence_file.Line] = [
        evidence_file.Header(origin=said.origin, of="log", records=True),
        evidence_file.CheckpointLine(note.decode()),
        evidence_file.TileLine(n=0, hashes=merkle.leaf_hash(leaf)),
        evidence_file.LeafLine(position=1, data=leaf, hash=merkle.leaf_hash(leaf), salt=bytes(32), record=b"{}"),
    ]
    proofs = [
        evidence_file.Header(origin=said.origin, of="proofs", records=True),
        lines[1],
        evidence_file.ProofLine(position=1, data=leaf, path=[]),
    ]
    files = (b"".join(evidence_file.encode(lines)), b"".join(evidence_file.encode(proofs)))
    rules = Rules([vkey], need_cosigned=False)

    def checked(raw: bytes) -> object:
        return evidence_check.check(evidence_file.decode(io.BytesIO(raw)), rules)

    def restores(raw: bytes) -> object:
        return evidence_check.find_restores(evidence_file.decode(io.BytesIO(raw)))

    yield Decoder("signed note", checkpoint.parse_note, (note,), errors)
    yield Decoder(
        "checkpoint", lambda raw: checkpoint.parse_checkpoint(raw.decode("latin-1")), (said.text().encode(),), errors
    )
    yield Decoder(
        "verified note",
        lambda raw: checkpoint.verify(checkpoint.parse_note(raw), [vkey], origin=said.origin),
        (note,),
        errors,
    )
    yield Decoder(
        "verifier key", lambda raw: checkpoint.Key.parse(raw.decode("latin-1")), (vkey.text().encode(),), errors
    )
    yield Decoder("evidence file", checked, files, (evidence_file.EvidenceFileError,))
    yield Decoder("restores in evidence", restores, files, (evidence_file.EvidenceFileError,))
    yield Decoder(
        "map line",
        lambda raw: label_map.root_in([raw.decode("latin-1")]),
        (label_map.line_of(leaf[:32]).encode(),),
        errors,
    )
    kept = operations.decode_operation
    yield Decoder("record", records._decode, (b"{}",), (records.RecordError, msgspec.MsgspecError, UnicodeDecodeError))
    yield Decoder("operation", kept, (b"{}",), (msgspec.MsgspecError, UnicodeDecodeError))
    page = label_map.LabelMap()

    def mapped(raw: bytes) -> object:
        return label_map.verify(bytes(32), bytes(32), problems.decode(msgspec.json.Decoder(label_map.MapProof), raw))

    page.put({label_map.key_of(bytes(32)): label_map.value_of(1, bytes(32))})
    proof = msgspec.json.encode(page.prove(label_map.key_of(bytes(32))))
    yield Decoder("proof in a map", mapped, (proof,))
    yield Decoder(
        "page of a map", lambda raw: label_map.LabelMap({"": raw}), (bytes(200), b"\x01" * 200), (label_map.MapError,)
    )


# ---------------------------------------------------------------- certificates, orders, masters


@functools.cache
def authority_of_tests() -> tuple[Authority, tempfile.TemporaryDirectory[str]]:
    """Return an authority of certificates, and the folder that holds it as long as it is held."""
    folder = tempfile.TemporaryDirectory()
    return Authority.create(Path(folder.name) / "pki", "Example", CLOCK), folder


def _certificates() -> Iterator[Decoder]:
    authority, _ = authority_of_tests()
    roots = read_certificates(authority.trusted)
    life.write_list(authority)
    crl = (authority.folder / life.REVOCATION_FILE).read_bytes()
    chain = read_certificates(authority.issue_client("tax").certificate)
    der = [each.public_bytes(Encoding.DER) for each in chain]

    def named(raw: bytes) -> object:
        return credentials.name_of(credentials.read_chain([raw])[0])

    def verified(raw: bytes) -> object:
        return credentials.verify_chain(credentials.read_chain([raw, *der[1:]]), roots, NOW)

    def order(raw: bytes) -> object:
        found = orders.decode(raw)
        return orders.signed_bytes(found.order)

    yield Decoder("revocation list", lambda raw: revocation.parse(raw, roots, NOW), (crl,))
    yield Decoder("shown certificate", revocation.identity_of, tuple(der), (ValueError,))
    yield Decoder("certificate's name", named, tuple(der), (UntrustedError,))
    yield Decoder("certificate's chain", verified, tuple(der), (UntrustedError,))
    yield Decoder("order", order, (_order(der),))
    signature = b'{"act":"propose","at":"2026-11-23T03:00:00Z","certificates":["%s"],"signature":"AAAAAAAAAAAA"}' % (
        base64.b64encode(der[0])
    )
    yield Decoder("signature of a person", masters.read_signature, (signature,))
    yield Decoder(
        "checked signature of a person",
        lambda raw: masters.check_signature(raw, "propose", bytes(32), roots),
        (signature,),
    )
    yield Decoder("master", masters.unpack, (_master(), b"x\x9c\x03\x00\x00\x00\x00\x01"))
    register = (
        b"name,roles,first,last\noperator.a,masters security,2027-01-01,\noperator.b,observe,2027-01-01,2027-02-28\n"
    )
    yield Decoder(
        "operators' register",
        lambda raw: masters_of_law.operators({"operators.csv": raw.decode("latin-1")}, None),
        (register,),
    )
    name = masters.name_in_force(3, bytes(32)).encode()
    yield Decoder("name of a master", lambda raw: masters.named(raw.decode("latin-1")), (name,))
    snapshot = directory.sign(directory.first(NOW, 1), KEY)
    yield Decoder(
        "common data",
        lambda raw: directory.verify(
            directory.SignedSnapshot(raw, KEY.sign(directory._SIGNED_PREFIX + raw), snapshot.key), KEY.public_key()
        ),
        (snapshot.body,),
    )


def _order(der: Sequence[bytes]) -> bytes:
    members = {
        "id": "0199d8d4-0000-7000-8000-000000000001",
        "action": "export",
        "agency": AGENCY,
        "reason": "a reason",
        "issued_at": NOW,
        "expires_at": NOW + dt.timedelta(days=1),
        "recipient": SEAL.public_key().public_bytes_raw(),
    }
    signed = {"certificates": list(der), "signature": bytes(70)}
    return msgspec.json.encode({"format": "chukan-order-1", "order": members, "signatures": [signed]})


def _master() -> bytes:
    return masters.pack(
        masters.Content(
            version=1, base=0, environment="production", note="a note", effective_at=NOW, files={"lists.toml": "x"}
        )
    )


# ---------------------------------------------------------------- links, tables, exports


_OPERATORS: Final = "".join(
    f"operator.{name},masters security,2026-04-01,{last}\n"
    for name, last in (("sato", ""), ("tanaka", ""), ("ito", "2026-05-31"))
)
"""Rows of an operators' register that two people can change."""


def _others() -> Iterator[Decoder]:
    empty = b'{"content":{},"signatures":{}}'
    public = KEY.public_key()
    yield Decoder("enrolment request", enrolment.read_request, (empty,))
    yield Decoder("enrolment rotation", enrolment.read_rotation, (empty,))
    yield Decoder("grant", lambda raw: enrolment.verify_grant(raw, public, NOW), (empty,))
    yield Decoder("certificate request", lambda raw: enrolment.requested_names(raw.decode("latin-1")), (_csr(),))
    yield Decoder(
        "endpoint", lambda raw: enrolment.is_endpoint(raw.decode("latin-1")), (b"[fd00::1]:51820", b"1.2.3.4:5"), ()
    )
    yield Decoder("wireguard key", wireguard_keys.from_base64, (base64.b64encode(bytes(range(32))),), (ValueError,))
    table = (
        b'[[function]]\nname = "online"\noutside = "refuse"\nhours = [{days = ["mon"], open = 08:00, close = 20:00}]\n'
    )
    yield Decoder("calendar", _calendar, (table,), (ValueError,))
    yield Decoder("table file", lambda raw: toml_reading.parse(raw.decode("utf-8", "replace")), (table,))
    read = functools.partial(_export, SEAL)
    for name, text in masters_of_law.complete({}, None).items():
        seeds = (text.encode(), *((text + _OPERATORS).encode() for _ in range(name == "operators.csv")))
        yield Decoder(f"master file {name}", functools.partial(_master_file, name), seeds)
    yield Decoder("export", functools.partial(_as_file, read), (export_file._MAGIC + bytes(8) + b"{}",))


def _export(private: X25519PrivateKey, path: Path) -> object:
    return list(export_file.read_export(path, private))


def _master_file(name: str, raw: bytes) -> object:
    return masters_of_law.complete({name: raw.decode("utf-8", "replace")}, None)


class _Text:
    """A source of the law's files with one text."""

    def __init__(self, content: str) -> None:
        self.content = content

    def text(self, name: str) -> str:
        return self.content


def _calendar(raw: bytes) -> object:
    return calendar.read_calendar(_Text(raw.decode("utf-8", "replace")))  # type: ignore[arg-type] # text() alone is asked


def _csr() -> bytes:
    key = ec.derive_private_key(7, ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:chukan:client:a")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def file_decoders() -> Iterator[Decoder]:
    """Yield every decoder of files."""
    for source in (_files, _evidence, _certificates, _others):
        yield from source()
