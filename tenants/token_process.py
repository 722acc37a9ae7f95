"""The process beside a key store that speaks PKCS#11: one token (HSM), one session, one request at a time.

A PKCS#11 module is a library of the HSM's maker. It is loaded here and nowhere else, because it may hang, may crash and
may need to be initialised anew to see a token that was away, and a process can be ended where a thread cannot. Requests
and replies are frames (u32 length, MessagePack) on standard input and output; the end of standard input ends it.

Invariant: the PIN is read from its file here, is tried once in the life of the process, and stands in no argument,
reply, log or exception text; a master key is made in the token, sensitive and never extractable, or not used.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec
import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, PKCS11Error, TokenFlag
from pkcs11.exceptions import EncryptedDataInvalid, EncryptedDataLenRange, PinIncorrect, PinInvalid, PinLenRange
from pkcs11.exceptions import PinLocked as PinLockedError
from pkcs11.mechanisms import GCMParams

from chukan import core_dumps

if TYPE_CHECKING:
    from typing import BinaryIO

FRAME: Final = struct.Struct(">I")
FRAME_BYTES_MAX: Final = 1024 * 1024
_PIN_BYTES_MAX: Final = 256
_MASTERS_MAX: Final = 100_000
_BATCH: Final = 500
_KEY_BITS: Final = 256
_PROBE_BITS: Final = 64


class Opening(msgspec.Struct, frozen=True, array_like=True):
    """The first frame: which token."""

    module: str
    token: str
    pin_file: str


class Request(msgspec.Struct, frozen=True, array_like=True):
    """``act``: probe, count, wrap, unwrap, destroy. ``parts``: (nonce, aad, secret or sealed) each."""

    act: str
    label: str = ""
    parts: list[tuple[bytes, bytes, bytes]] = []


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """``failure`` is one of the words of ``key_token.REASONS``, or empty."""

    failure: str = ""
    parts: list[bytes] = []
    count: int = 0


class Failure(Exception):  # noqa: N818 - a word on its way into a reply
    """Why a request cannot be met: one of the words."""


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the next frame, None at the end."""
    head = stream.read(FRAME.size)
    if len(head) < FRAME.size:
        return None
    (size,) = FRAME.unpack(head)
    if size > FRAME_BYTES_MAX:
        return None
    content = stream.read(size)
    return content if len(content) == size else None


class TokenSession:
    """A session with the token, logged in."""

    def __init__(self, opening: Opening) -> None:
        """Load the module, find the token and log in. ``Failure``; PKCS11Error of everything unexpected."""
        if not Path(opening.module).is_file():
            raise Failure("module")
        try:
            library = pkcs11.lib(opening.module)
        except PKCS11Error:
            raise Failure("module") from None
        self._slot, token = self._find(library, opening.token)
        if token.flags & TokenFlag.USER_PIN_LOCKED:
            raise Failure("pin_locked")
        # The last try before the token locks is a person's, not a machine's.
        if token.flags & TokenFlag.USER_PIN_FINAL_TRY:
            raise Failure("pin_last_try")
        pin = _read_pin(Path(opening.pin_file))
        try:
            self._session = token.open(rw=True, user_pin=pin)
        except (PinIncorrect, PinInvalid, PinLenRange):
            raise Failure("pin_refused") from None
        except PinLockedError:
            raise Failure("pin_locked") from None
        self._masters: dict[str, list[Any]] = {}

    @staticmethod
    def _find(library: Any, label: str) -> tuple[Any, Any]:  # noqa: ANN401 - the library's classes have no public names
        found = []
        for slot in library.get_slots():
            try:
                token = slot.get_token()
            except PKCS11Error:
                continue  # another token that is broken is no fault of ours
            if token.label == label:
                found.append((slot, token))
        if len(found) != 1:
            raise Failure("token_absent" if not found else "token_twice")
        return found[0]

    def answer(self, request: Request) -> Reply:
        """Do what is asked."""
        if request.act == "probe":
            # Cheap, and by the session that wraps: a token that lists its slots may still have lost who is logged in.
            self._slot.get_token()
            self._session.generate_random(_PROBE_BITS)
            return Reply()
        if request.act == "count":
            self._list()
            return Reply(count=sum(len(keys) for keys in self._masters.values()))
        if request.act == "wrap":
            key = self._master(request.label) or self._make(request.label)
            return Reply(parts=[self._wrap(key, *part) for part in request.parts])
        if request.act == "unwrap":
            key = self._master(request.label)
            if key is None:
                raise Failure("master_absent")
            return Reply(parts=[self._unwrap(key, *part) for part in request.parts])
        if request.act == "destroy":
            self._list()
            key = self._master(request.label)
            if key is not None:
                key.destroy()
                self._list()
                if request.label in self._masters:
                    raise Failure("lost")
            return Reply()
        raise Failure("request")

    def _master(self, label: str) -> Any:  # noqa: ANN401 - as above
        if label not in self._masters:
            self._list()
        found = self._masters.get(label, [])
        if len(found) > 1:
            raise Failure("master_twice")
        if not found:
            return None
        key = found[0]
        if not (key[Attribute.SENSITIVE] and key[Attribute.NEVER_EXTRACTABLE] and not key[Attribute.EXTRACTABLE]):
            raise Failure("master_weak")
        return key

    def _list(self) -> None:
        """Learn which master keys there are: one listing, because to search for each costs as much every time."""
        self._masters = {}
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES}
        for count, key in enumerate(self._session.get_objects(wanted, batch_size=_BATCH)):
            if count >= _MASTERS_MAX:
                raise Failure("master_twice")
            self._masters.setdefault(key[Attribute.LABEL], []).append(key)
        # A token that was taken away may seem to hold nothing: none is none only of a token that is there.
        self._slot.get_token()

    def _make(self, label: str) -> Any:  # noqa: ANN401 - as above
        self._session.generate_key(
            KeyType.AES,
            _KEY_BITS,
            label=label,
            store=True,
            capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
            template={
                Attribute.PRIVATE: True,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
                Attribute.MODIFIABLE: False,
            },
        )
        self._list()
        key = self._master(label)
        if key is None:
            raise Failure("lost")
        return key

    @staticmethod
    def _wrap(key: Any, nonce: bytes, aad: bytes, secret: bytes) -> bytes:  # noqa: ANN401 - as above
        return bytes(key.encrypt(secret, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, aad)))

    def _unwrap(self, key: Any, nonce: bytes, aad: bytes, sealed: bytes) -> bytes:  # noqa: ANN401 - as above
        try:
            return bytes(key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, aad)))
        except (EncryptedDataInvalid, EncryptedDataLenRange):
            raise Failure("refused") from None
        except PKCS11Error:
            # Some modules (SoftHSM) say only that something went wrong. If the key opens what it has just sealed, it
            # was the ciphertext.
            probe = bytes(self._session.generate_random(len(nonce) * 8)), aad, b"\0" * 32
            sealed_probe = self._wrap(key, *probe)
            params = GCMParams(probe[0], aad)
            if key.decrypt(sealed_probe, mechanism=Mechanism.AES_GCM, mechanism_param=params) != probe[2]:
                raise
            raise Failure("refused") from None


def _read_pin(path: Path) -> str:
    """Return the PIN of a file that only its owner may read; ``Failure`` pin_file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            content = file.read(_PIN_BYTES_MAX + 1)
        pin = content.decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise Failure("pin_file") from None
    private = stat.S_ISREG(about.st_mode) and not about.st_mode & 0o077 and about.st_uid in (0, os.geteuid())
    if not private or not pin or len(content) > _PIN_BYTES_MAX:
        raise Failure("pin_file")
    return pin


def _say(reply: Reply) -> None:
    content = msgspec.msgpack.encode(reply)
    sys.stdout.buffer.write(FRAME.pack(len(content)) + content)
    sys.stdout.buffer.flush()


def main() -> NoReturn:
    """Serve requests until the other end is gone; whatever is unexpected ends the process, and it is started anew."""
    # No core dump holds a PIN or a clear key.
    core_dumps.forbid()
    stream = sys.stdin.buffer
    first = read_frame(stream)
    if first is None:
        sys.exit(1)
    try:
        session = TokenSession(msgspec.msgpack.decode(first, type=Opening))
        _say(Reply())
        while (frame := read_frame(stream)) is not None:
            try:
                reply = session.answer(msgspec.msgpack.decode(frame, type=Request))
            except Failure as failure:
                reply = Reply(str(failure))
            _say(reply)
    except Failure as failure:
        _say(Reply(str(failure)))
    except PKCS11Error:
        # Its text is the maker's: nothing of it goes out.
        _say(Reply("lost"))
    # A module that is broken may hang when it is told to finish: the system closes what is open.
    os._exit(0)


if __name__ == "__main__":
    main()
