"""Coverage-guided fuzzing of one decoder after another: ``python -m chukan.tests.support.fuzzing --help``.

The harness is one for every row of ``decoders``: a decoder returns, or raises what its row says; anything else, an end
that does not come and memory without bound are findings. Atheris sees which branches of our modules, and of the
libraries in Python that read for us, an input goes through, and keeps what finds new ones.

Each decoder runs in a process of its own, forked when everything is imported once with counters in it: libFuzzer ends
its process, and no decoder's state helps the next one. Nothing here writes but into the folder that it is given.
"""

import argparse
import base64
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

CORPUS: Final = Path(__file__).resolve().parent.parent / "decoders" / "corpus.json"
"""Inputs that found branches which the seeds of the table do not: by decoder, base64; made, never taken from life."""
COUNTED: Final = ("chukan", "tomllib", "http_sfv", "http_message_signatures", "webauthn", "cbor2", "csv", "json")
LENGTH_MAX: Final = 4096
HANG_S: Final = 20
MEMORY_MB: Final = 2048


PLANTED: Final = "planted"
"""Name of a decoder that is none: it has a fault that nobody meets by chance."""


class PlantedError(Exception):
    """The planted fault."""


class Finding(NamedTuple):
    """A decoder that did what its row does not say, the bytes, and the end of what was said of it."""

    decoder: str
    content: bytes
    said: str


def kept() -> dict[str, list[bytes]]:
    """Return the corpus of the repository, by decoder."""
    found: dict[str, list[str]] = json.loads(CORPUS.read_text("ascii"))
    return {name: [base64.b64decode(each) for each in inputs] for name, inputs in found.items()}


def slug(name: str) -> str:
    """Return a decoder's name as a folder's."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def imported() -> tuple[Any, dict[str, Any]]:
    """Return Atheris, and every decoder, imported with counters."""
    import atheris  # noqa: PLC0415 - optional, and only where its wheels are

    with atheris.instrument_imports(include=list(COUNTED), enable_loader_override=False):
        from chukan.tests.support.decoder_forms import Decoder  # noqa: PLC0415 - counted at their import
        from chukan.tests.support.decoders import all_decoders  # noqa: PLC0415
    return atheris, all_decoders() | {PLANTED: Decoder(PLANTED, atheris.instrument_func(planted), (b"",))}


def planted(content: bytes) -> None:
    """Have a fault behind four bytes, one after another: one chance in 4,294,967,296, or four short steps."""
    if content[:1] == b"F" and content[1:2] == b"U" and content[2:3] == b"Z" and content[3:4] == b"Z":
        raise PlantedError


def fuzz(names: Sequence[str], folder: Path, *, runs: int, seconds: int) -> Iterator[Finding]:
    """Fuzz these decoders (all, where none is named), each for at most this many inputs and seconds."""
    atheris, decoders = imported()
    known = kept()
    for name in names or sorted(decoders.keys() - {PLANTED}):
        corpus, findings = folder / "corpus" / slug(name), folder / "findings" / slug(name)
        for each in (corpus, findings):
            each.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate([*decoders[name].seeds, *known.get(name, [])]):
            (corpus / f"given-{number}").write_bytes(content)
        said = findings / "said.txt"
        arguments = [
            "fuzzing", str(corpus), f"-runs={runs}", f"-max_total_time={seconds}", f"-max_len={LENGTH_MAX}",
            f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={findings}/", "-seed=20261123",
        ]  # fmt: skip
        child = os.fork()
        if child == 0:
            _run(atheris, decoders[name], arguments, said)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = [path.read_bytes() for path in sorted(findings.iterdir()) if path != said]
        if status or found:
            tail = said.read_text("utf-8", "replace")[-3_000:]
            yield from (Finding(name, content, tail) for content in found or [b""])


def _run(atheris: Any, decoder: Any, arguments: list[str], said: Path) -> None:
    """Become the fuzzer of one decoder; its process never comes back."""
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)

        def one(content: bytes) -> None:
            try:
                with contextlib.suppress(*decoder.allowed):
                    decoder.call(content)
            except BaseException:
                (said.parent / "raised").write_bytes(content)
                raise

        atheris.Setup(arguments, one)
        atheris.Fuzz()
    finally:
        os._exit(99)


def main(arguments: Sequence[str]) -> int:
    """Fuzz, and write each finding as a line of JSON; 1 where there is one."""
    parser = argparse.ArgumentParser(description="Fuzz the decoders of tests/support/decoders with Atheris.")
    parser.add_argument("folder", type=Path, help="an empty folder for corpora and findings")
    parser.add_argument("decoders", nargs="*", help="names; none means all")
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=10)
    given = parser.parse_args(arguments)
    count = 0
    for finding in fuzz(given.decoders, given.folder, runs=given.runs, seconds=given.seconds):
        count += 1
        told = {"decoder": finding.decoder, "content": base64.b64encode(finding.content).decode(), "said": finding.said}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
