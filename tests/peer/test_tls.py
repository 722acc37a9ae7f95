"""Contexts that trust one root only, and the identity in a certificate."""

import asyncio
import ssl
from pathlib import Path
from typing import Any, Protocol

import pytest

from chukan.errors import Problem
from chukan.ops.certificates import Issued
from chukan.platform.tls import client_context, server_context, transport_urn


class Pki(Protocol):
    ca: Path
    network: Issued
    exchange: Issued


class FakeTransport(asyncio.BaseTransport):
    """A connection whose certificate has these alternative names."""

    def __init__(self, *names: tuple[str, str]) -> None:
        super().__init__({"peercert": {"subjectAltName": names}})


def test_the_identity_is_the_uri_of_ours() -> None:
    names = [("DNS", "localhost"), ("URI", "https://example.com/"), ("URI", "urn:chukan:peer:network")]
    assert transport_urn(FakeTransport(*names)) == "urn:chukan:peer:network"


@pytest.mark.parametrize(
    "names",
    [
        (),
        (("DNS", "urn:chukan:peer:network"),),
        (("URI", "urn:other:peer:network"),),
        (("URI", "urn:chukan:peer:network"), ("URI", "urn:chukan:client:kokuho")),
    ],
    ids=["none", "another field", "another scheme", "two"],
)
def test_an_identity_that_must_be_guessed_is_none(names: tuple[tuple[str, str], ...]) -> None:
    assert transport_urn(FakeTransport(*names)) is None


def test_a_closed_or_plain_connection_has_no_identity() -> None:
    assert transport_urn(None) is None
    assert transport_urn(asyncio.BaseTransport({})) is None
    assert transport_urn(asyncio.BaseTransport({"peercert": None})) is None


@pytest.mark.parametrize("make", [server_context, client_context])
def test_both_ends_demand_a_certificate_and_tls_1_3(pki: Pki, make: Any) -> None:
    context: ssl.SSLContext = make(pki.network.certificate, pki.network.key, pki.ca)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.check_hostname == (make is client_context)
    # Our root and nothing else: what the host's store trusts must not count here.
    assert context.cert_store_stats() == {"x509": 1, "crl": 0, "x509_ca": 1}


@pytest.mark.parametrize("make", [server_context, client_context])
def test_files_that_do_not_fit_are_told_without_their_content(pki: Pki, make: Any, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("-----BEGIN NOTHING-----", encoding="ascii")
    for files in (
        (tmp_path / "missing", pki.network.key, pki.ca),
        (pki.network.certificate, pki.exchange.key, pki.ca),
        (pki.network.certificate, nonsense, pki.ca),
        (nonsense, pki.network.key, pki.ca),
        (pki.network.certificate, pki.network.key, nonsense),
        (pki.network.certificate, pki.network.key, tmp_path / "missing"),
    ):
        with pytest.raises(Problem, match=r"^certificate_unreadable$"):
            make(*files)
