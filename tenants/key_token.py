"""A key store whose master keys live in a token (HSM, PKCS#11), one centre's; what they wrap lies in its folder.

Every call to the token has a deadline. A token that does not keep it, or answers with an error, is left alone at once
(callers are refused without waiting) while a thread tries it again, so that it is back within seconds of its return and
nobody's request waits for it meanwhile. A PIN that the token refused is remembered beside the keys, by the identity of
its file, and not tried again by any process until that file changes: three tries lock many an HSM.

Invariant: master keys never leave the token, and the PIN is never in this process (``token_process`` reads it).
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from chukan import log, private_file
from chukan.chance import Chance
from chukan.settings import Environment, KeyToken
from chukan.tenants.key_folder import KeyFolder, Unwrapped, WrapError, Wrapped
from chukan.tenants.token_process import FRAME, FRAME_BYTES_MAX, Opening, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_TIMEOUT_S: Final = 5.0
CALL_TIMEOUT_S: Final = 3.0
PATIENCE_S: Final = 1.0
"""For so long a call makes new sessions in place of lost ones; with a start and a call after it, 9 s at most."""
PAUSE_S: Final = 0.1
AGAIN_S: Final = 1.0

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "module": "the PKCS#11 module does not load",
        "token_absent": "the token is not there",
        "token_twice": "several tokens bear this label",
        "pin_file": "the PIN file must be there, ours alone (0600) and of one line",
        "pin_refused": "the token refused the PIN; it is not tried again until the PIN file changes",
        "pin_last_try": "one wrong PIN more locks the token; log in by hand first",
        "pin_locked": "the PIN is locked",
        "master_absent": "the token holds no master key of this agency",
        "master_twice": "the token holds several master keys of this agency",
        "master_weak": "the master key can be taken out of the token",
        "request": "the token's process did not understand",
        "lost": "the token was lost",
        "deadline": "the token did not answer in time",
    }
)
_KEEPS_PROCESS: Final = frozenset({"master_absent", "master_twice", "master_weak", "request"})
"""What a token answers that works."""

_log = log.get("keystore")


class TokenAwayError(OSError):
    """The token cannot be used now; ``reason`` is one of the words of ``REASONS``."""

    def __init__(self, reason: str) -> None:
        super().__init__(REASONS.get(reason, REASONS["lost"]))
        self.reason = reason


class _Process:
    """A running ``token_process``; to be ended by ``kill``."""

    def __init__(self, token: KeyToken) -> None:
        """Start it and log in; ``TokenAwayError``."""
        command = [sys.executable, "-P", "-m", "chukan.tenants.token_process"]
        self._child = subprocess.Popen(  # noqa: S603 - our own module; which token goes over standard input
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        try:
            self.ask(Opening(str(token.module), token.token, str(token.pin_file)), START_TIMEOUT_S)
        except TokenAwayError:
            self.kill()
            raise

    def ask(self, question: Opening | Request, timeout_s: float | None = None) -> Reply:
        """Return the answer, within a call's time unless told otherwise; ``TokenAwayError``."""
        deadline = time.monotonic() + (CALL_TIMEOUT_S if timeout_s is None else timeout_s)
        content = msgspec.msgpack.encode(question)
        if len(content) > FRAME_BYTES_MAX:
            raise TokenAwayError("request")
        assert self._child.stdin is not None  # noqa: S101 - opened as a pipe
        try:
            # A frame of keys is far below a pipe's room, so this does not wait for a child that hangs.
            self._child.stdin.write(FRAME.pack(len(content)) + content)
            (size,) = FRAME.unpack(self._read(FRAME.size, deadline))
            if size > FRAME_BYTES_MAX:
                raise TokenAwayError("lost")
            reply = msgspec.msgpack.decode(self._read(size, deadline), type=Reply)
        except (BrokenPipeError, msgspec.MsgspecError):
            raise TokenAwayError("lost") from None
        if reply.failure and reply.failure != "refused":
            raise TokenAwayError(reply.failure)
        return reply

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._child.stdout is not None  # noqa: S101 - opened as a pipe
        descriptor = self._child.stdout.fileno()
        content = b""
        while len(content) < size:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TokenAwayError("deadline")
            found = os.read(descriptor, size - len(content))
            if not found:
                raise TokenAwayError("lost")
            content += found
        return content

    def kill(self) -> None:
        """End it, whatever it does."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(CALL_TIMEOUT_S)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


class Token:
    """One token, asked by any thread, one request at a time."""

    def __init__(self, settings: KeyToken, refused_file: Path) -> None:
        self._settings = settings
        self._refused = refused_file
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._away: str | None = None
        self._closed = threading.Event()

    def ask(self, request: Request) -> Reply:
        """Return the token's answer. Lost sessions are made anew; ``TokenAwayError`` at once while it is away."""
        if self._away is not None:
            raise TokenAwayError(self._away)
        with self._lock:
            if self._away is not None:
                raise TokenAwayError(self._away)
            try:
                return self._ask(request)
            except TokenAwayError as error:
                if error.reason in _KEEPS_PROCESS:
                    raise
                self._leave(error.reason)
                raise

    def close(self) -> None:
        """End the process."""
        self._closed.set()
        with self._lock:
            self._drop()

    def _ask(self, request: Request) -> Reply:
        begun = time.monotonic()
        while True:
            try:
                self._process = self._process or self._start()
                return self._process.ask(request)
            except TokenAwayError as error:
                # A session may be lost, and a token may be busy with another process's login: both heal by a new one.
                if error.reason != "lost" or time.monotonic() > begun + PATIENCE_S:
                    raise
                self._drop()
                self._closed.wait(PAUSE_S)

    def _start(self) -> _Process:
        identity = self._identity()
        if self._refused.exists() and self._refused.read_bytes() == identity:
            raise TokenAwayError("pin_refused")
        try:
            return _Process(self._settings)
        except TokenAwayError as error:
            if error.reason == "pin_refused":
                private_file.write(self._refused, identity)
            raise

    def _identity(self) -> bytes:
        """Return what changes when the PIN file does, and tells nothing of the PIN."""
        try:
            found = self._settings.pin_file.stat()
        except OSError:
            raise TokenAwayError("pin_file") from None
        return b"%d %d %d" % (found.st_mtime_ns, found.st_ino, found.st_dev)

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _leave(self, reason: str) -> None:
        """Let callers go on without the token, and look for it meanwhile."""
        self._drop()
        self._away = reason
        _log.error("a token is away", reason=REASONS.get(reason, reason))
        threading.Thread(target=self._look, name="token", daemon=True).start()

    def _look(self) -> None:
        """Try the token until it is back; nobody waits for this."""
        while not self._closed.wait(AGAIN_S):
            try:
                process = self._start()
            except (OSError, ValueError) as error:
                self._away = error.reason if isinstance(error, TokenAwayError) else "lost"
                continue
            with self._lock:
                if self._closed.is_set():
                    process.kill()
                    return
                self._process, self._away = process, None
            _log.warning("a token is back")
            return


class TokenKeyStore(KeyFolder):
    """Keys in a folder, wrapped (AES-256-GCM) by master keys that a token keeps. ``close`` ends the token's process."""

    kind = "token"

    def __init__(
        self, directory: Path, token: KeyToken, chance: Chance, environment: Environment = "production"
    ) -> None:
        super().__init__(directory, chance, environment)
        self._token = Token(token, directory / "pin-refused")

    def close(self) -> None:
        """Let go of the token."""
        self._token.close()

    def probe(self) -> None:
        """Ask the token for next to nothing; ``TokenAwayError`` when it cannot be used now."""
        self._token.ask(Request("probe"))

    def masters(self) -> int:
        """Return how many secret keys the token holds; ``TokenAwayError``."""
        return self._token.ask(Request("count")).count

    def _prepare_masters(self) -> None:
        self._token.ask(Request("count"))

    def _wrap(self, agency: int, keys: Sequence[Unwrapped]) -> list[bytes]:
        return self._ask("wrap", agency, [(key.nonce, key.aad, key.secret) for key in keys])

    def _unwrap(self, agency: int, keys: Sequence[Wrapped]) -> list[bytes]:
        return self._ask("unwrap", agency, [(key.nonce, key.aad, key.sealed) for key in keys])

    def _destroy_master(self, agency: int) -> None:
        self._ask("destroy", agency, [])

    def _ask(self, act: str, agency: int, parts: list[tuple[bytes, bytes, bytes]]) -> list[bytes]:
        # The environment is in the label too: a sandbox may share a token with nobody's loss.
        reply = self._token.ask(Request(act, f"chukan {self._environment} {agency:05d}", parts))
        if reply.failure or len(reply.parts) != len(parts):
            raise WrapError
        return reply.parts
