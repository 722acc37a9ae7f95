"""Passkeys of officers (パスキー, W3C Web Authentication Level 3): what an authenticator is asked for, and its answers.

Always with user verification (the authenticator's own PIN or fingerprint), always for this installation's domain and
origins, each challenge for one use. What is verified is the library's (``webauthn``); attestation is not asked for.

Invariant: an answer counts only for the challenge that this officer was given last, for the registered key, and with a
signature counter that has not gone back. Whatever is wrong is one refusal, which says nothing about which part it was.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from pyasn1.error import PyAsn1Error
from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from chukan.errors import Problem
from chukan.tenants.officer_accounts import Account, Passkey

CHALLENGE_BYTES: Final = 32
TIMEOUT_S: Final = 120
_MILLISECONDS: Final = 1000
_ANSWER_BYTES_MAX: Final = 32 * 1024
_REFUSALS: Final = (
    WebAuthnException,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    struct.error,
    UnsupportedAlgorithm,
    InvalidSignature,
    PyAsn1Error,
)
"""What the library raises for answers that are none: it takes what it parses for what it should be."""


class PasskeyRefusedError(Exception):
    """An authenticator's answer does not prove what it should. The text says nothing."""


@dataclass(frozen=True, slots=True)
class Passkeys:
    """The relying party: ``domain`` is its id, ``origins`` where officers' browsers show it (https://…)."""

    domain: str
    origins: tuple[str, ...]

    @property
    def offered(self) -> bool:
        """Whether this installation takes passkeys at all."""
        return bool(self.domain and self.origins)

    def ask(self, challenge: bytes, known: list[Passkey]) -> dict[str, Any]:
        """Return the options of ``navigator.credentials.get``. Raises ``Problem`` not_in_service."""
        self._require()
        options = generate_authentication_options(
            rp_id=self.domain,
            challenge=challenge,
            timeout=TIMEOUT_S * _MILLISECONDS,
            allow_credentials=[PublicKeyCredentialDescriptor(id=key.id) for key in known],
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return _json(options_to_json(options))

    def invite(self, challenge: bytes, account: Account, agency: str) -> dict[str, Any]:
        """Return the options of ``navigator.credentials.create``. Raises ``Problem`` not_in_service."""
        self._require()
        options = generate_registration_options(
            rp_id=self.domain,
            rp_name="Chukan",
            # No name, and the same at each registration, so that an authenticator replaces instead of adding.
            user_id=hashlib.sha256(f"{agency}/{account.officer}".encode()).digest(),
            user_name=account.officer,
            challenge=challenge,
            timeout=TIMEOUT_S * _MILLISECONDS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
            ),
        )
        return _json(options_to_json(options))

    def register(self, answer: dict[str, Any], challenge: bytes) -> Passkey:
        """Return the passkey that an authenticator made. Raises ``PasskeyRefusedError``."""
        self._bound(answer)
        try:
            made = verify_registration_response(
                credential=answer,
                expected_challenge=challenge,
                expected_rp_id=self.domain,
                expected_origin=list(self.origins),
                require_user_verification=True,
            )
        except _REFUSALS:
            raise PasskeyRefusedError from None
        return Passkey(id=made.credential_id, public=made.credential_public_key, count=made.sign_count)

    def verify(self, answer: dict[str, Any], challenge: bytes, known: list[Passkey]) -> Passkey:
        """Return the passkey that signed, with its new counter. Raises ``PasskeyRefusedError``."""
        self._bound(answer)
        try:
            wanted = base64url_to_bytes(str(answer.get("rawId", "")))
            key = next((key for key in known if key.id == wanted), None)
            if key is None:
                raise PasskeyRefusedError
            seen = verify_authentication_response(
                credential=answer,
                expected_challenge=challenge,
                expected_rp_id=self.domain,
                expected_origin=list(self.origins),
                credential_public_key=key.public,
                credential_current_sign_count=key.count,
                require_user_verification=True,
            )
        except _REFUSALS:
            raise PasskeyRefusedError from None
        return msgspec.structs.replace(key, count=seen.new_sign_count)

    def _require(self) -> None:
        if not self.offered:
            raise Problem("not_in_service")

    def _bound(self, answer: dict[str, Any]) -> None:
        if not self.offered or len(msgspec.json.encode(answer)) > _ANSWER_BYTES_MAX:
            raise PasskeyRefusedError


def _json(text: str) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any])
