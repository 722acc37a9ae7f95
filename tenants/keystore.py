"""Key stores: where the agencies' keys rest, one store in each centre, never in a database or its backup (DESIGN §9).

An agency has a data key (versions), an index key and an answer key pair (versions), each wrapped by the agency's master
key of that centre. A version is written to every centre, read back, compared by digest, and only then marked as
confirmed, in every centre; until then it encrypts nothing. Losing one centre must never make a record unreadable.

``key_port`` says what a store can do; ``key_token`` is an HSM's, ``key_files`` the demo's.

Invariant: no key, nor anything made of one, is logged or put into an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from chukan import log
from chukan.chance import Chance, SystemChance
from chukan.clock import SystemClock
from chukan.errors import Problem
from chukan.settings import Environment, Settings
from chukan.tenants.key_files import FileKeyStore
from chukan.tenants.key_port import Held, KeyStore, Name
from chukan.tenants.key_token import TokenAwayError, TokenKeyStore
from chukan.tenants.sealing import KEY_BYTES, VERSIONS_MAX, AgencyKeys, KeySet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_CENTRES_MIN: Final = 2
_log = log.get("keystore")


class Unfinished(NamedTuple):
    """A retirement that was begun: data keys of versions ``below`` are used by nobody, and lie in ``centres`` still."""

    below: int
    centres: tuple[str, ...]


class KeyStores:
    """The key stores of all centres as one: makes, confirms, loads, rotates and destroys the keys of agencies.

    ``degraded`` may be set while a centre is away: then versions that were confirmed before are loaded from the stores
    that can be reached. Nothing is made or rotated meanwhile.
    """

    def __init__(
        self,
        directories: Mapping[str, Path | KeyStore],
        *,
        chance: Chance | None = None,
        degraded: bool = False,
        environment: Environment = "production",
    ) -> None:
        """Take each centre's folder, or its store of another make; ``ValueError`` unless two or more, all different."""
        folders = {os.path.realpath(place) for place in directories.values() if isinstance(place, Path)}
        others = {id(place) for place in directories.values() if not isinstance(place, Path)}
        if len(folders) + len(others) < max(_CENTRES_MIN, len(directories)):
            raise ValueError("each of two or more centres has a key store of its own")
        self._chance = chance or SystemChance(SystemClock())
        self._stores: dict[str, KeyStore] = {
            centre: FileKeyStore(place, self._chance, environment) if isinstance(place, Path) else place
            for centre, place in directories.items()
        }
        self.degraded = degraded
        self._cache: dict[int, AgencyKeys] = {}
        self._marks: dict[int, list[bytes | None]] = {}

    @classmethod
    def of(cls, settings: Settings, *, chance: Chance, degraded: bool = False) -> KeyStores:
        """Return the stores of these settings: with tokens where they name tokens. ``ValueError`` as the class does."""
        environment = settings.site.environment
        places: dict[str, Path | KeyStore] = {**settings.keystores}
        if len({os.path.realpath(place) for place in settings.keystores.values()}) < len(places):
            raise ValueError("each centre has a folder of its own")
        for centre, token in settings.key_tokens.items():
            places[centre] = TokenKeyStore(settings.keystores[centre], token, chance, environment)
        return cls(places, chance=chance, degraded=degraded, environment=environment)

    @property
    def stores(self) -> Mapping[str, KeyStore]:
        """Each centre's store by itself, for looking."""
        return self._stores

    def close(self) -> None:
        """Let go of the tokens. What was loaded stays."""
        for store in self._stores.values():
            if isinstance(store, TokenKeyStore):
                store.close()

    def prepare(self) -> None:
        """Make the stores' folders when a site is set up. Nothing else makes them: a lost disk must not look empty."""
        for store in self._stores.values():
            store.prepare()

    def check(self) -> None:
        """Refuse stores of another environment, those that can be reached; ``Problem`` other_environment."""
        for store in self._stores.values():
            with contextlib.suppress(OSError):
                store.check()

    def agencies(self) -> list[int]:
        """Return the agencies that have keys in any store that can be reached."""
        found: set[int] = set()
        for store in self._stores.values():
            with contextlib.suppress(OSError):
                found.update(store.agencies())
        return sorted(found)

    def create(self, agency: int) -> None:
        """Make an agency's first keys in all centres and confirm them; finishes what a crash left; safe to repeat.

        Raises:
            Problem: keys_unconfirmed (a store is away, not prepared, or holds something else), agency_closed (the keys
                were destroyed).
        """
        with self._held():
            self._add(agency, [Name("data", 1), Name("index", 1), Name("answer", 1)])

    def rotate(self, agency: int, purpose: Literal["data", "answer"] = "data") -> int:
        """Add a new version of a key and return its number; older versions stay for opening.

        Raises:
            Problem: keys_unconfirmed (also for an agency without keys), agency_closed.
            ValueError: the agency has as many versions as it may.
        """
        with self._held():
            held = [name.version for name in self._confirmed(agency) if name.purpose == purpose]
            version = max(held) + 1
            if version > VERSIONS_MAX:
                raise ValueError("an agency holds a bounded number of key versions")
            self._add(agency, [Name(purpose, version)])
        if (cached := self._cache.get(agency)) is not None:
            cached.renew(self._key_set(agency))
        return version

    def retire(self, agency: int, below: int) -> None:
        """Destroy an agency's data keys of versions below in all centres; only what no row needs may be named.

        What was begun is finished by a repeat; meanwhile nobody uses a version that any centre has destroyed.
        ``ValueError`` unless a newer version stays; ``Problem`` as ``rotate``.
        """
        with self._held():
            held = [name.version for name in self._confirmed(agency) if name.purpose == "data"]
            if not 0 < below <= max(held):
                raise ValueError("the newest version stays")
            for centre, store in self._stores.items():
                try:
                    store.retire(agency, below)
                except OSError as error:
                    raise _away(centre, error) from None
        if (cached := self._cache.get(agency)) is not None:
            cached.renew(self._key_set(agency))

    def unfinished(self, agency: int) -> Unfinished | None:
        """Return the retirement that an agency's stores began and did not carry out; None where there is none.

        A store that is away counts among the centres that owe it, once any other tells of a retirement.
        """
        below = self._retired(agency)
        if not below:
            return None
        owing = []
        for centre, store in sorted(self._stores.items()):
            try:
                owes = store.owes(agency, below)
            except OSError:
                owes = True
            if owes:
                owing.append(centre)
        return Unfinished(below, tuple(owing)) if owing else None

    def load(self, agency: int) -> AgencyKeys:
        """Return an agency's keys, the same object at every call.

        Raises:
            Problem: keys_unconfirmed unless every centre holds and confirmed them (see ``degraded``); agency_closed.
        """
        cached = self._cache.get(agency)
        if cached is None:
            made = AgencyKeys(self._key_set(agency), self._chance.token, lambda: self._key_set(agency))
            # Another thread may have been quicker: whoever asks has the same object.
            cached = self._cache.setdefault(agency, made)
        return cached

    def follow(self, agencies: Iterable[int]) -> int:
        """Load the agencies' keys, and again where another process has changed them; return how many could not be.

        For a background thread: a rotation takes effect everywhere without a restart, destroyed keys leave the memory,
        and no request waits for an HSM. Keys that were loaded stay as they are while a store cannot tell of them.
        """
        failed = 0
        for agency in agencies:
            marks = self._marks_of(agency)
            if agency in self._cache and self._marks.get(agency) == marks:
                continue
            try:
                if (cached := self._cache.get(agency)) is None:
                    self.load(agency)
                else:
                    cached.renew(self._key_set(agency))
            except Problem as problem:
                failed += 1
                if problem.code == "agency_closed":
                    self.forget(agency)
            else:
                self._marks[agency] = marks
        return failed

    def _marks_of(self, agency: int) -> list[bytes | None]:
        marks: list[bytes | None] = []
        for store in self._stores.values():
            try:
                marks.append(store.mark(agency))
            except OSError:
                marks.append(None)
        return marks

    def forget(self, agency: int) -> None:
        """Drop an agency's keys from memory, as when it is closed; they are read again when they are needed again."""
        cached = self._cache.pop(agency, None)
        self._marks.pop(agency, None)
        if cached is not None:
            cached.forget()

    def destroy(self, agency: int) -> None:
        """Destroy an agency's keys in all centres: its data can never be read again (crypto-erase).

        Every store that can be reached is cleared first; then, if one could not be, ``Problem`` keys_unconfirmed says
        so, and the call must be repeated when it is back.
        """
        self.forget(agency)
        missed = False
        for store in self._stores.values():
            try:
                # A rotation under way would put back, under a new master key, what is destroyed here.
                with store.hold():
                    store.destroy(agency)
            except OSError:
                missed = True
        if missed:
            raise Problem("keys_unconfirmed")

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold every store: two rotations at once would each confirm half of what they wrote."""
        with contextlib.ExitStack() as stack:
            for centre in sorted(self._stores):
                try:
                    stack.enter_context(self._stores[centre].hold())
                except OSError as error:
                    raise _away(centre, error) from None
            yield

    def _add(self, agency: int, names: Iterable[Name]) -> None:
        """Bring all stores to hold and confirm the named keys: write, read back and compare, then mark."""
        held = self._read_all(agency)
        wanted = _settled(held)
        for name in names:
            wanted.setdefault(name, Held(self._chance.token(KEY_BYTES), confirmed=False))
        self._write_all(agency, wanted)
        back = self._read_all(agency)
        proof = _digest(wanted)
        if any(_digest(keys) != proof for keys in back.values()):
            raise Problem("keys_unconfirmed")
        self._write_all(agency, {name: Held(key.secret, confirmed=True) for name, key in wanted.items()})

    def _write_all(self, agency: int, keys: Mapping[Name, Held]) -> None:
        for centre, store in self._stores.items():
            try:
                store.write(agency, keys)
            except OSError as error:
                raise _away(centre, error) from None

    def _read_all(self, agency: int) -> dict[str, dict[Name, Held]]:
        """Read every store."""
        read: dict[str, dict[Name, Held]] = {}
        for centre, store in self._stores.items():
            try:
                read[centre] = store.read(agency)
            except OSError as error:
                raise _away(centre, error) from None
        below = self._retired(agency)
        return {centre: _above(keys, below) for centre, keys in read.items()}

    def _retired(self, agency: int) -> int:
        """Return below which version any centre that can be reached has destroyed data keys."""
        found = 0
        for store in self._stores.values():
            with contextlib.suppress(OSError):
                found = max(found, store.retired(agency))
        return found

    def _confirmed(self, agency: int) -> dict[Name, bytes]:
        """Return the keys that may be used: held alike by all stores, and marked by one at least."""
        read: list[dict[Name, Held]] = []
        for centre, store in self._stores.items():
            try:
                read.append(store.read(agency))
            except OSError as error:
                if not self.degraded:
                    raise _away(centre, error) from None
        below = self._retired(agency)
        read = [_above(keys, below) for keys in read]
        usable: dict[Name, bytes] = {}
        for name in {name for keys in read for name, key in keys.items() if key.confirmed}:
            copies = [keys[name].secret for keys in read if name in keys]
            if len(set(copies)) != 1 or (len(copies) < len(self._stores) and not self.degraded):
                raise Problem("keys_unconfirmed")
            usable[name] = copies[0]
        if not usable:
            raise Problem("keys_unconfirmed")
        return usable

    def _key_set(self, agency: int) -> KeySet:
        usable = self._confirmed(agency)
        try:
            return KeySet(
                agency=agency,
                data={name.version: secret for name, secret in usable.items() if name.purpose == "data"},
                index=usable[Name("index", 1)],
                answer={name.version: secret for name, secret in usable.items() if name.purpose == "answer"},
            )
        except (KeyError, ValueError):
            raise Problem("keys_unconfirmed") from None


def _above(keys: dict[Name, Held], below: int) -> dict[Name, Held]:
    """Leave out data keys that were destroyed in some centre, and not yet in all."""
    return {name: key for name, key in keys.items() if name.purpose != "data" or name.version >= below}


def _settled(held: Mapping[str, Mapping[Name, Held]]) -> dict[Name, Held]:
    """Return the keys to go on with: those that any store marked as confirmed, which must then be alike everywhere.

    A key that nobody marked has never encrypted anything, so it is dropped, wherever a crash left it.
    """
    kept: dict[Name, Held] = {}
    for name in {name for keys in held.values() for name, key in keys.items() if key.confirmed}:
        copies = {keys[name].secret if name in keys else b"" for keys in held.values()}
        if len(copies) != 1:
            raise Problem("keys_unconfirmed")
        kept[name] = Held(copies.pop(), confirmed=True)
    return kept


def _away(centre: str, error: OSError) -> Problem:
    """Say which store could not be used, and of a token also why; an error's own text stays inside."""
    why = f": {error}" if isinstance(error, TokenAwayError) else ""
    return Problem("keys_unconfirmed", expected=f"the key store of {centre}{why}")


def _digest(keys: Mapping[Name, Held]) -> bytes:
    """Return the digest by which two centres' keys are compared; kept nowhere."""
    digest = hashlib.sha256(b"chukan keys")
    for name, held in sorted(keys.items()):
        digest.update(f"{name.purpose} {name.version} {len(held.secret)} ".encode() + held.secret)
    return digest.digest()
