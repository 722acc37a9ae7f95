"""Orders: what two officers of the agency signed is accepted, and nothing else is."""

import datetime as dt
import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from chukan import log
from chukan.errors import Problem
from chukan.ops.certificates import read_certificates, read_identity
from chukan.platform import tls
from chukan.tenants import credentials, directory, orders
from chukan.tenants.numbers import synthetic_individual_number

SAPPORO, YOKOHAMA = "9901011002000001", "9901141003000001"

Sign = Callable[..., orders.SignedOrder]


def refused(office: Any, document: orders.SignedOrder | None, **changes: Any) -> Problem:
    with pytest.raises(Problem) as raised:
        office.demand(document, **changes)
    return raised.value


def test_two_officers_of_the_agency_are_heard(office: Any, signed: Sign) -> None:
    approved = office.demand(signed())
    assert approved.officers == ("head-1", "head-2")
    assert approved.order.action == "destroy"
    assert len(approved.digest) == 32


def test_a_third_signature_does_no_harm_and_a_fifth_is_not_taken(office: Any, signed: Sign) -> None:
    document = office.sign(signed(), "head-3")
    assert office.demand(document).officers == ("head-1", "head-2", "head-3")
    with pytest.raises(Problem, match="order_invalid"):
        office.sign(document, "reviewer", "machine")


def test_the_document_survives_its_file(office: Any, signed: Sign) -> None:
    document = signed("export")
    assert orders.decode(orders.encode(document)) == document
    assert office.demand(document, action="export").order.recipient == document.order.recipient


def test_without_an_order_nothing_is_done(office: Any) -> None:
    assert refused(office, None).code == "order_required"


@pytest.mark.parametrize("names", [(), ("head-1",)])
def test_one_officer_is_not_enough(office: Any, names: tuple[str, ...]) -> None:
    problem = refused(office, office.sign(office.order(), *names))
    assert (problem.code, problem.limit) == ("order_invalid", 2)


def test_nobody_signs_twice(office: Any) -> None:
    document = office.sign(office.order(), "head-1")
    with pytest.raises(Problem, match="order_invalid"):
        office.sign(document, "head-1")
    twice = msgspec.structs.replace(document, signatures=document.signatures * 2)
    assert refused(office, twice).limit == 2


def test_two_registrations_of_one_card_are_one_officer(office: Any) -> None:
    """Two certificates over the same key: who has one of them can sign with both."""
    first = read_identity(office.card("head-1"))
    issuing = office.authority.issuing
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:chukan:client:head-2")])
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = x509.CertificateBuilder().subject_name(first.certificate.subject).issuer_name(issuing.certificate.subject)
    builder = builder.public_key(first.key.public_key()).serial_number(7)
    builder = builder.not_valid_before(office.clock.now() - dt.timedelta(days=1))
    builder = builder.not_valid_after(office.clock.now() + dt.timedelta(days=1))
    for extension in (names, usage):
        builder = builder.add_extension(extension, critical=False)
    key_id = x509.SubjectKeyIdentifier.from_public_key(issuing.key.public_key())
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False
    )
    second = builder.sign(issuing.key, first.certificate.signature_hash_algorithm)
    document = office.sign(office.order(), "head-1")
    document = orders.sign(document, [second, issuing.certificate], first.key)
    assert refused(office, document).limit == 2


@pytest.mark.requirement("CON-01")
@pytest.mark.parametrize("other", ["yokohama-1", "reviewer", "machine", "nobody"])
def test_only_registered_officers_of_the_agency_with_the_function_count(office: Any, other: str) -> None:
    problem = refused(office, office.sign(office.order(), "head-1", other))
    assert problem.expected == "officers of this agency with the function order"


def test_an_officer_who_was_removed_no_longer_counts(office: Any, signed: Sign) -> None:
    document = signed()
    office.snapshot = directory.remove_client(office.snapshot, office.clock.now(), "head-2")
    assert refused(office, document).code == "order_invalid"


def test_a_certificate_of_another_authority_does_not_count(office: Any) -> None:
    document = office.sign(office.sign(office.order(), "head-1"), "head-2", authority=office.stranger)
    assert refused(office, document).expected == "client certificates of this authority, valid now"


def test_a_certificate_that_has_ended_does_not_count(office: Any) -> None:
    office.card("head-2", days=1)
    document = office.sign(office.order(), "head-1", "head-2")
    office.clock.advance(dt.timedelta(days=2).total_seconds())
    assert refused(office, document).expected == "client certificates of this authority, valid now"


def test_a_peers_certificate_is_no_officers(office: Any) -> None:
    peer = office.authority.issue_peer("head-2")
    document = office.sign(office.order(), "head-1")
    with pytest.raises(Problem, match="order_invalid"):
        orders.sign(document, read_certificates(peer.certificate), read_identity(peer).key)
    # The chain is good, so only the name can tell.
    with pytest.raises(credentials.UntrustedError):
        credentials.verify_chain(
            read_certificates(peer.certificate), read_certificates(office.authority.trusted), office.clock.now()
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"agency": YOKOHAMA},
        {"reason": "別の理由"},
        {"action": "export", "recipient": bytes(range(32))},
        {"expires_at": dt.datetime(2026, 11, 27, tzinfo=dt.UTC)},
        {"recipient": bytes(range(32))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_was_changed_after_signing_is_refused(office: Any, signed: Sign, changes: dict[str, Any]) -> None:
    document = signed()
    altered = msgspec.structs.replace(document, order=msgspec.structs.replace(document.order, **changes))
    action = altered.order.action
    row = office.directory.agency(altered.order.agency)
    assert refused(office, altered, action=action, agency=row).code == "order_invalid"


def test_a_signature_of_another_order_does_not_pass(office: Any, signed: Sign) -> None:
    document, other = signed(), signed(reason="別の指示")
    mixed = msgspec.structs.replace(document, signatures=[document.signatures[0], other.signatures[1]])
    assert refused(office, mixed).expected == "signatures over exactly this order"


def test_an_order_is_for_one_act_at_one_agency(office: Any, signed: Sign) -> None:
    assert refused(office, signed(), action="export").expected == "an order for this act"
    assert refused(office, signed("export")).expected == "an order for this act"
    elsewhere = office.directory.agency(YOKOHAMA)
    assert refused(office, signed(), agency=elsewhere).expected == "an order of this agency"


def test_an_order_holds_for_its_time_only(office: Any, signed: Sign) -> None:
    document = signed()
    now = office.clock.now()
    assert office.demand(document, at=now - dt.timedelta(minutes=5)).officers
    for at in (now - dt.timedelta(minutes=6), document.order.expires_at, now + dt.timedelta(days=30)):
        assert refused(office, document, at=at).expected == "an order that is valid now"


@pytest.mark.parametrize("life", [dt.timedelta(0), dt.timedelta(days=-1), dt.timedelta(days=7, seconds=1)])
def test_an_order_lives_a_week_at_most(office: Any, signed: Sign, life: dt.timedelta) -> None:
    with pytest.raises(Problem, match="order_invalid"):
        office.order(life=life)
    # Also when somebody signs what `prepare` would not make.
    order = office.order().order
    longer = msgspec.structs.replace(order, expires_at=order.issued_at + life)
    assert refused(office, orders.SignedOrder(order=longer)).limit == 7


@pytest.mark.parametrize("action", ["export", "destroy"])
def test_only_an_export_has_a_recipient(office: Any, action: orders.Action) -> None:
    recipient = None if action == "export" else bytes(range(32))
    with pytest.raises(Problem, match="order_invalid"):
        office.order(action, recipient=recipient)


def test_a_recipient_of_small_order_would_give_the_export_to_everybody(office: Any) -> None:
    with pytest.raises(Problem, match="order_invalid"):
        office.order("export", recipient=bytes(32))


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "\x1b[31mred", "two\nlines"])
def test_a_reason_is_one_line_of_plain_text(office: Any, reason: str) -> None:
    with pytest.raises(Problem, match="order_invalid"):
        office.order(reason=reason)


def test_nobodys_number_stands_in_an_order(office: Any) -> None:
    number = synthetic_individual_number(7)
    with pytest.raises(Problem, match="individual_number_present") as raised:
        office.order(reason=f"番号 {number[:4]} {number[4:8]} {number[8:]} の件")
    assert number[:4] not in json.dumps(raised.value.as_dict())


def test_a_closed_agency_may_still_order(office: Any, signed: Sign) -> None:
    document = signed()
    office.snapshot = directory.close_agency(office.snapshot, office.clock.now(), SAPPORO)
    assert office.agency.state == "closed"
    assert office.demand(document).order.agency == SAPPORO


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"order":1}', b" " * 70_000])
def test_what_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(Problem, match="order_invalid"):
        orders.decode(content)


def test_unknown_members_are_refused(signed: Sign) -> None:
    document = json.loads(orders.encode(signed()))
    document["order"]["also"] = "everything"
    with pytest.raises(Problem, match="order_invalid"):
        orders.decode(json.dumps(document).encode())


def test_signing_needs_the_key_of_the_certificate(office: Any) -> None:
    chain = read_certificates(office.card("head-1").certificate)
    with pytest.raises(Problem, match="order_invalid"):
        orders.sign(office.order(), chain, ec.generate_private_key(ec.SECP256R1()))


def test_every_try_is_logged_for_audit(office: Any, signed: Sign) -> None:
    stream = io.StringIO()
    log.configure("info", stream)
    try:
        refused(office, None)
        refused(office, office.sign(office.order(), "head-1"))
        office.demand(signed())
    finally:
        log.configure("info")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["order missing", "order refused", "order accepted", "order accepted"]
    assert [line.get("peer") for line in lines] == [None, None, "head-1", "head-2"]
    assert {line["agency"] for line in lines} == {office.agency.number}
    assert lines[1]["reason"] == "signatures of this many different officers"
    assert not any("dropped" in line for line in lines)


def test_looking_at_an_order_leaves_no_trace_of_an_act(office: Any, signed: Sign) -> None:
    stream = io.StringIO()
    log.configure("info", stream)
    try:
        members = {"action": "destroy", "agency": office.agency, "directory": office.directory}
        trusted = read_certificates(office.authority.trusted)
        orders.verify(signed(), **members, trusted=trusted, at=office.clock.now())
    finally:
        log.configure("info")
    assert stream.getvalue() == ""


def test_a_client_is_named_alike_on_connections_and_in_documents() -> None:
    assert credentials.CLIENT_URN == tls.CLIENT_URN
