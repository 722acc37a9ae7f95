"""Whatever an authenticator is said to have answered: it proves what it should, or it is refused as such."""

import base64
import copy
import os
from typing import Any

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st

from chukan.tenants.officer_passkeys import PasskeyRefusedError, Passkeys
from chukan.tests.support.soft_authenticator import Authenticator, b64

DOMAIN, ORIGIN = "chukan.example", "https://console.chukan.example"
PASSKEYS = Passkeys(DOMAIN, (ORIGIN,))
CHALLENGE = os.urandom(32)
DEVICE = Authenticator(DOMAIN, ORIGIN)
CREATED = DEVICE.create({"challenge": b64(CHALLENGE)})
KEY = PASSKEYS.register(CREATED, CHALLENGE)
GOT = DEVICE.get({"challenge": b64(CHALLENGE)})

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.binary(max_size=80).map(b64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
PLACES = st.sampled_from(
    [("id",), ("rawId",), ("type",), ("response",)]
    + [("response", name) for name in ("clientDataJSON", "authenticatorData", "signature", "attestationObject")]
)


def bent(answer: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(answer)
    inner = made if len(place) == 1 else made["response"]
    inner[place[-1]] = value
    return made


def test_what_is_as_it_should_be_is_taken() -> None:
    assert PASSKEYS.verify(GOT, CHALLENGE, [KEY]).count == KEY.count + 1


@settings(max_examples=150, deadline=None)
@given(place=PLACES, value=JSON, registering=st.booleans())
def test_anything_else_is_one_refusal(place: tuple[str, ...], value: Any, registering: bool) -> None:  # noqa: FBT001
    answer = bent(CREATED if registering else GOT, place, value)
    if answer in (CREATED, GOT):
        return
    try:
        if registering:
            made = PASSKEYS.register(answer, CHALLENGE)
            assert made.public == KEY.public
        else:
            assert PASSKEYS.verify(answer, CHALLENGE, [KEY]).id == KEY.id
            assert answer["response"]["signature"] == GOT["response"]["signature"]
    except PasskeyRefusedError as refusal:
        assert str(refusal) == ""  # noqa: PT017 - one that was taken is judged above


@settings(max_examples=150, deadline=None)
@given(answer=st.dictionaries(st.sampled_from(["id", "rawId", "type", "response", "x"]), JSON, max_size=5))
def test_nonsense_is_one_refusal(answer: dict[str, Any]) -> None:
    for work in (lambda: PASSKEYS.register(answer, CHALLENGE), lambda: PASSKEYS.verify(answer, CHALLENGE, [KEY])):
        try:
            work()
        except PasskeyRefusedError:
            continue
        raise AssertionError("nonsense was taken")


FORMATS = st.sampled_from(["none", "packed", "tpm", "fido-u2f", "apple", "android-key", "android-safetynet"])
STATEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from([-7, -257, 0]),
        "sig": st.binary(max_size=8),
        "x5c": st.lists(st.binary(max_size=8), max_size=2),
        "ver": st.sampled_from(["2.0", "1", 5]),
        "certInfo": st.binary(max_size=60),
        "pubArea": st.binary(max_size=60),
        "response": st.binary(max_size=8),
    },
)


@settings(max_examples=150, deadline=None)
@given(form=FORMATS, statement=STATEMENTS, cut=st.integers(0, 80))
def test_attestation_of_any_form_is_taken_or_refused(form: str, statement: dict[str, Any], cut: int) -> None:
    attestation = CREATED["response"]["attestationObject"]
    whole = cbor2.loads(base64.urlsafe_b64decode(attestation + "=" * (-len(attestation) % 4)))["authData"]
    data = whole[: len(whole) - max(0, cut - 40)]
    content = cbor2.dumps({"fmt": form, "attStmt": statement, "authData": data})
    try:
        made = PASSKEYS.register(bent(CREATED, ("response", "attestationObject"), b64(content)), CHALLENGE)
    except PasskeyRefusedError:
        return
    assert (made.public, form, data) == (KEY.public, "none", whole)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_bent_authenticator_data_and_attestation_are_refused(content: bytes) -> None:
    for answer, name in ((GOT, "authenticatorData"), (GOT, "clientDataJSON"), (CREATED, "attestationObject")):
        try:
            if answer is GOT:
                PASSKEYS.verify(bent(answer, ("response", name), b64(content)), CHALLENGE, [KEY])
            else:
                PASSKEYS.register(bent(answer, ("response", name), b64(content)), CHALLENGE)
        except PasskeyRefusedError:
            continue
        raise AssertionError("nonsense was taken")
