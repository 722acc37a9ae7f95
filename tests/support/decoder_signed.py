"""Decoders of what is read only after, or together with, its signature or its proof (rows of ``decoders``).

Bent bytes of such a file mostly end at the signature. Here is what lies behind it too: a row whose name ends in
``behind a signature`` signs, or commits to, whatever it is given, as a peer that was taken over would.
"""

import asyncio
import base64
import datetime as dt
import io
import os
import types
import uuid
from collections.abc import Iterator
from typing import Any, Final

import cbor2
import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from chukan.chance import SystemChance
from chukan.errors import Problem
from chukan.ops.certificates import read_certificates, read_identity
from chukan.ops.resident_check import check_answer
from chukan.platform import envelope, peer, sealed
from chukan.platform.exchange import views
from chukan.platform.exchange.acquisition_asks import AcquisitionAsks
from chukan.platform.http import network, problems, statistics
from chukan.platform.http.calls import Call
from chukan.platform.http.params import StatisticsParams
from chukan.platform.peer import NetworkTrouble
from chukan.platform.wire.agency import AnswerContent
from chukan.platform.wire.evidence import CheckpointView
from chukan.platform.wire.network import Ack, AnswerDelivery, Notice, PermitReply, SignedPermit
from chukan.platform.wire.network_asks import AcquisitionNotice
from chukan.platform.wire.resident import MapEntry, PersonRecords, ResidentLeaf, ResidentRecords
from chukan.tenants import (
    checkpoint,
    directory,
    evidence_check,
    evidence_file,
    label_map,
    link_plan,
    merkle,
    orders,
    records,
    restored,
)
from chukan.tenants.directory import key_id
from chukan.tenants.evidence_report import Rules
from chukan.tenants.officer_passkeys import PasskeyRefusedError, Passkeys
from chukan.tenants.sealing import AgencyKeys, KeySet
from chukan.tests.support.decoder_files import authority_of_tests
from chukan.tests.support.decoder_forms import AGENCY, CLOCK, KEY, NOW, SEAL, Decoder
from chukan.tests.support.soft_authenticator import Authenticator, b64
from chukan.vpn import enrolment

LINK: Final = "131016-1"
SALT: Final = bytes(32)
LABEL: Final = bytes(range(32))
ORIGIN: Final = "chukan.example/log/1"


def _json(kind: Any, raw: bytes) -> Any:
    return problems.decode(msgspec.json.Decoder(kind), raw)


# ---------------------------------------------------------------- links


def _enrolment() -> Iterator[Decoder]:
    public, platform = KEY.public_key().public_bytes_raw(), KEY.public_key()
    seal = SEAL.public_key().public_bytes_raw()
    asked = enrolment.Request(
        link=LINK, keys={"east": bytes([9]) + bytes(31)}, signing_key=public, sealing_key=seal,
        platform_key=key_id(platform), certificate_request=None, made_at=NOW,
    )  # fmt: skip
    turned = enrolment.Rotation(link=LINK, centre="east", key=seal, made_at=NOW)
    part = enrolment.GrantedCentre(
        address="10.255.0.1", endpoint="198.51.100.1:51820", gateway_key=seal, device_key=seal,
        psk=bytes(enrolment.SEALED_BYTES),
    )  # fmt: skip
    granted = enrolment.Grant(
        link=LINK, signing_key=public, addresses=[link_plan.inner_v4(LINK), link_plan.inner_v6(LINK)],
        centres={"east": part}, service_port=8443, health_port=8445, made_at=NOW,
        valid_until=NOW + dt.timedelta(days=9),
    )  # fmt: skip

    def request(raw: bytes) -> object:
        return enrolment.verify_request(enrolment.read_request(raw), public, NOW)

    def rotation(raw: bytes) -> object:
        return enrolment.verify_rotation(enrolment.read_rotation(raw), public, NOW)

    def signed_request(raw: bytes) -> object:
        return request(enrolment.sign_request(_json(enrolment.Request, raw), invitation=KEY, device=KEY))

    def signed_rotation(raw: bytes) -> object:
        return rotation(enrolment.sign_rotation(_json(enrolment.Rotation, raw), KEY))

    def signed_grant(raw: bytes) -> object:
        file = enrolment.sign_grant(_json(enrolment.Grant, raw), KEY)
        return enrolment.verify_grant(file, platform, NOW)

    sent = enrolment.sign_request(asked, invitation=KEY, device=KEY)
    yield Decoder("verified enrolment request", request, (sent,))
    yield Decoder("verified rotation", rotation, (enrolment.sign_rotation(turned, KEY),))
    file = enrolment.sign_grant(granted, KEY)
    yield Decoder("verified grant", lambda raw: enrolment.verify_grant(raw, platform, NOW), (file,))
    yield Decoder("enrolment request behind a signature", signed_request, (msgspec.json.encode(asked),))
    yield Decoder("rotation behind a signature", signed_rotation, (msgspec.json.encode(turned),))
    yield Decoder("grant behind a signature", signed_grant, (msgspec.json.encode(granted),))


# ---------------------------------------------------------------- officers


def _passkeys() -> Iterator[Decoder]:
    device = Authenticator("chukan.example", "https://console.chukan.example")
    keys, challenge = Passkeys(device.domain, (device.origin,)), bytes(32)
    created = device.create({"challenge": b64(challenge)})
    known = keys.register(created, challenge)
    got = device.get({"challenge": b64(challenge)})
    refusals = (Problem, PasskeyRefusedError)

    def register(raw: bytes) -> object:
        return keys.register(_json(dict[str, Any], raw), challenge)

    def attested(raw: bytes) -> object:
        return keys.register(created | {"response": created["response"] | {"attestationObject": b64(raw)}}, challenge)

    def authenticated(raw: bytes) -> object:
        data = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": raw})
        return attested(data)

    def verify(raw: bytes) -> object:
        return keys.verify(_json(dict[str, Any], raw), challenge, [known])

    attestation = base64.urlsafe_b64decode(created["response"]["attestationObject"] + "==")
    data = cbor2.loads(attestation)["authData"]
    yield Decoder("new passkey", register, (msgspec.json.encode(created),), refusals)
    yield Decoder("attestation of a passkey", attested, (attestation,), refusals)
    yield Decoder("authenticator data", authenticated, (data,), refusals)
    yield Decoder("answer of a passkey", verify, (msgspec.json.encode(got),), refusals)


def _orders() -> Iterator[Decoder]:
    authority, _ = authority_of_tests()
    roots = read_certificates(authority.trusted)
    made = directory.add_agency(directory.first(NOW, 1), NOW, code=AGENCY, body="131016", name="an agency", cell="east")
    document = orders.prepare(
        order=uuid.UUID(int=7), action="destroy", agency=AGENCY, reason="a reason", at=NOW, life=dt.timedelta(days=1)
    )
    for name in ("head-1", "head-2"):
        row = directory.ClientRow(
            id=name, body="131016", kind="officer", name=name, agencies=[AGENCY], functions=["order"]
        )
        made = directory.add_client(made, NOW, row)
        card = authority.issue_client(name)
        document = orders.sign(document, read_certificates(card.certificate), read_identity(card).key)
    common = directory.Directory(made)

    def judged(raw: bytes) -> object:
        found, row = orders.decode(raw), common.agency(AGENCY)
        return orders.verify(found, action="destroy", agency=row, directory=common, trusted=roots, at=NOW)

    yield Decoder("judged order", judged, (msgspec.json.encode(document),))


# ---------------------------------------------------------------- the network


def _pushed() -> Iterator[Decoder]:
    key = {"network": KEY.public_key()}
    signer, opener = envelope.Signer("network", KEY, CLOCK, SystemChance(CLOCK)), envelope.Opener(key, CLOCK)
    name = uuid.UUID(int=5)
    reply = PermitReply(id=name, outcome="no_code", reference="5", decided_at=NOW)
    sent = signer.reply([b"{}"], name)

    def refusal(raw: bytes) -> object:
        message = uuid.UUID(int=6)
        values = {"@status": "503", "chukan-in-reply-to": str(name), **envelope._content_fields(raw, message)}
        given: CIMultiDict[str] = CIMultiDict(signer._sign(envelope._REFUSAL, values, NOW))
        return opener.refusal(503, CIMultiDictProxy(given), raw, to=name)

    def opened(raw: bytes) -> object:
        fields: CIMultiDict[str] = CIMultiDict(sent.headers)
        fields["signature-input"] = raw.decode("latin-1")
        return opener.reply(200, CIMultiDictProxy(fields), sent.body, to=name)

    def replied(raw: bytes) -> object:
        if not raw.startswith(b"{") or not raw.endswith(b"}"):
            return None
        made = signer.reply([raw], name)
        given = opener.reply(200, CIMultiDictProxy(CIMultiDict(made.headers)), made.body, to=name)
        return peer._in_order([str(name)], given, PermitReply)

    document = msgspec.json.encode(Problem("busy").as_dict())
    yield Decoder("refusal behind a signature", refusal, (document,))
    yield Decoder("signature input", opened, (dict(sent.headers)["signature-input"].encode(),))
    yield Decoder("reply behind a signature", replied, (msgspec.json.encode(reply),), (Problem, NetworkTrouble))

    def pushed(raw: bytes) -> object:
        async def take(items: list[Notice]) -> list[Ack]:
            return [Ack(id=each.id, status="accepted") for each in items]

        if not raw.startswith(b"{") or not raw.endswith(b"}"):
            return None
        made = signer.request("POST", "/v1/notices", [raw])
        given = opener.request("POST", "/v1/notices", CIMultiDictProxy(CIMultiDict(made.headers)), made.body)
        return asyncio.run(network._acknowledge(given, Notice, take))

    yield Decoder("pushed notice", pushed, (msgspec.json.encode(_notice(name)),))
    yield Decoder("id of a pushed item", lambda raw: network._name(raw, 0), (msgspec.json.encode(reply),))


def _notice(name: uuid.UUID) -> Notice:
    permit = SignedPermit(body=b"{}", list_id=name, index=0, size=1, path=[], key="k", signature=bytes(64))
    return Notice(id=name, permit=permit)


# ---------------------------------------------------------------- content of other agencies


def _contents() -> Iterator[Decoder]:
    secrets = KeySet(1, {1: bytes(32)}, bytes(32), {1: SEAL.private_bytes_raw()})
    keys = AgencyKeys(secrets, os.urandom)
    public, permit = SEAL.public_key().public_bytes_raw(), uuid.UUID(int=8)
    signed = SignedPermit(body=b"{}", list_id=permit, index=0, size=1, path=[], key="k", signature=bytes(64))

    def content(raw: bytes) -> object:
        (sealed_answer,) = sealed.seal_batch(public, keys.answer_key_id(), [(permit, raw)], SystemChance(CLOCK))
        delivery = AnswerDelivery(
            id=permit, request=permit, inquirer=AGENCY, permit=signed, outcome="provided", answered_at=NOW,
            received_at=NOW, sealed=sealed_answer,
        )  # fmt: skip
        return views.read_content(keys, delivery, permit)

    def facts(raw: bytes) -> object:
        item = AcquisitionNotice(
            id=permit, provider=AGENCY, inquirer=AGENCY, affair="JM01000000121000", kind="TM00000000000002",
            asked_at=NOW, key=keys.answer_key_id(), sealed=sealed.seal_facts(public, AGENCY, AGENCY, raw),
        )  # fmt: skip
        context = types.SimpleNamespace(keys=lambda _: keys, chance=SystemChance(CLOCK), clock=CLOCK)
        asks: Any = types.SimpleNamespace(_context=context)
        row: Any = types.SimpleNamespace(number=1, generation=1)
        return AcquisitionAsks._row(asks, item, row)

    whole = msgspec.json.encode(AnswerContent(kind="TM00000000000002", copies=[]))
    person = b'{"name":"a name","birth_date":"1980-04-01","sex":"female","address":"a street"}'
    yield Decoder("content behind a seal", content, (whole,), ())
    yield Decoder("facts behind a seal", facts, (person,))


# ---------------------------------------------------------------- evidence


def leaf_of(record: bytes, ordinal: int = 0, previous: bytes = bytes(32), label: bytes = LABEL) -> bytes:
    """Return the leaf that commits to this record."""
    return b"\x01" + records.commit(SALT, record) + label + ordinal.to_bytes(8) + previous


def restored_leaf() -> bytes:
    """Return a leaf that says that one leaf was lost."""
    said = restored.TAG + (1).to_bytes(4) + (2).to_bytes(8)
    return bytes([restored.VERSION]) + bytes(32) + said + bytes(8 + 32)


def signed_note(leaves: list[bytes], extensions: tuple[str, ...] = ()) -> bytes:
    """Return the log's and another centre's note over these leaves."""
    root = merkle.root_of(map(merkle.leaf_hash, leaves))
    said = checkpoint.Checkpoint(ORIGIN, len(leaves), root, extensions)
    note = checkpoint.sign(said, KEY)
    return note.signed_too([checkpoint.cosign(note.text, "centre.example", KEY, 1_795_000_000)]).encode()


def _rules() -> Rules:
    keys = [checkpoint.Key.of(ORIGIN, checkpoint.LOG, KEY)]
    return Rules([*keys, checkpoint.Key.of("centre.example", checkpoint.COSIGNER, KEY)], need_cosigned=False)


def _chains() -> Iterator[Decoder]:
    rules = _rules()
    first = leaf_of(b"{}")
    leaves = [first, leaf_of(b"{}", 1, merkle.leaf_hash(first)), restored_leaf()]
    page = label_map.LabelMap()
    page.put({label_map.key_of(LABEL): label_map.value_of(2, merkle.leaf_hash(leaves[1]))})
    root = page.root_with({})
    note = signed_note(leaves, (label_map.line_of(root),))
    lines: list[evidence_file.Line] = [
        evidence_file.Header(origin=ORIGIN, of="log", records=True),
        evidence_file.CheckpointLine(note.decode()),
        evidence_file.TileLine(n=0, hashes=b"".join(map(merkle.leaf_hash, leaves))),
    ]
    for position, data in enumerate(leaves, 1):
        own = {"salt": SALT, "record": b"{}"} if data[0] == 1 else {}
        lines.append(evidence_file.LeafLine(position=position, data=data, hash=merkle.leaf_hash(data), **own))
    chain = b"".join(evidence_file.encode(lines))

    def checked(raw: bytes) -> object:
        return evidence_check.check(evidence_file.decode(io.BytesIO(raw)), rules)

    def behind(raw: bytes) -> object:
        return checkpoint.verify(checkpoint.parse_note(signed_note([raw])), rules.keys, origin=ORIGIN)

    yield Decoder("evidence of a chain", checked, (chain,), (evidence_file.EvidenceFileError,))
    yield Decoder("cosigned note", behind, (leaves[0],), ())
    yield Decoder("restored leaf", lambda raw: restored.read_leaf(1, raw), (leaves[2],), ())
    yield Decoder(
        "record behind its leaf", lambda raw: evidence_check.is_committed(leaf_of(raw), SALT, raw), (b"{}",), ()
    )
    many = label_map.LabelMap()
    _, pages = many.put({label_map.key_of(bytes([n]) * 32): label_map.value_of(1, bytes(32)) for n in range(200)})

    def paged(raw: bytes) -> object:
        held = label_map.LabelMap({"": raw})
        return held.root_with({label_map.key_of(LABEL): label_map.value_of(1, bytes(32))})

    yield Decoder(
        "fork of a map", paged, tuple(filter(None, [pages.get("")])), (label_map.MapError, label_map.PagesMissing)
    )
    answer = _answer(note, leaves[:2], page)

    def resident(raw: bytes) -> object:
        return check_answer(_json(ResidentRecords, raw), rules)

    yield Decoder("answer about a resident", resident, (msgspec.json.encode(answer),))


def _answer(note: bytes, leaves: list[bytes], page: label_map.LabelMap) -> ResidentRecords:
    proof = page.prove(label_map.key_of(LABEL))
    found = None if proof.found is None else MapEntry(*proof.found)
    person = PersonRecords(
        asked="a number",
        label=LABEL,
        leaves=[ResidentLeaf(data, "shown", SALT, b"{}") for data in leaves],
        siblings=list(proof.siblings),
        found=found,
    )
    view = CheckpointView(note.decode(), 3, cosigned=True)
    return ResidentRecords("complete", [person], [], checkpoint=view)


# ---------------------------------------------------------------- words of a call


def _words() -> Iterator[Decoder]:
    def reference(raw: bytes) -> object:
        call: Any = types.SimpleNamespace(request=types.SimpleNamespace(match_info={"id": raw.decode("latin-1")}))
        return Call.id(call, "id")

    def period(raw: bytes) -> object:
        return statistics.period(_json(StatisticsParams, raw), CLOCK)

    yield Decoder("id in a path", reference, (b"0199d8d4-0000-7000-8000-000000000001",))
    yield Decoder("period of statistics", period, (b'{"from":"2026-01","to":"2026-12"}', b'{"fiscal_year":2026}'))


def signed_decoders() -> Iterator[Decoder]:
    """Yield every decoder of what is signed or proven."""
    for source in (_enrolment, _passkeys, _orders, _pushed, _contents, _chains, _words):
        yield from source()
