"""Calls that make something of bytes or text: where they stand in the source, and which of them rows of decoders reach.

``found_in`` reads the syntax tree of a source, never the running program; ``lines_reached`` runs every row of
``decoders`` over its own seeds and sees which lines of our modules were gone through.
"""

import ast
import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from chukan.tests.support.decoder_forms import Decoder

ROOT: Final = Path(__file__).resolve().parents[2]

_FUNCTIONS: Final = (
    "json.load", "json.loads", "tomllib.load", "tomllib.loads", "csv.reader", "csv.DictReader", "uuid.UUID",
    "msgspec.convert", "cbor2.loads", "cbor2.load", "urllib.parse.parse_qs", "urllib.parse.parse_qsl",
    "urllib.parse.urlsplit", "urllib.parse.urlparse",
)  # fmt: skip
"""Functions by their dotted name."""
_METHODS: Final = frozenset(
    {
        "decode", "decode_lines", "b64decode", "urlsafe_b64decode", "standard_b64decode", "b32decode", "b16decode",
        "a2b_base64", "unhexlify", "fromhex", "from_bytes", "fromisoformat", "strptime", "unpack", "unpack_from",
        "iter_unpack", "decompress", "from_public_bytes", "from_encoded_point", "json",
        "parse_dictionary", "parse_list",
    }
)  # fmt: skip
"""The last word of a call, whoever it is called on."""
_LOADING: Final = ("load_pem_", "load_der_")
_OWN_OUTPUT: Final = ("encode", "public_bytes", "private_bytes", "hexlify")
"""What was called just before: bytes made in the same breath are no outside bytes."""


class DecodeCall(NamedTuple):
    """One call: the source's name, the function or method that it stands in, and its lines."""

    source: str
    function: str
    lines: range

    @property
    def place(self) -> str:
        """The function with its source, as the table of reasons names it."""
        return f"{self.source}:{self.function}"


def _imported(tree: ast.Module) -> dict[str, str]:
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            known.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return known


def _dotted(node: ast.expr, known: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    return f"{_dotted(node.value, known)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def _is_opened(node: ast.expr) -> bool:
    """Tell whether this is what our own seal held: AES-GCM under an agency's key, of bytes that we ourselves wrote."""
    while isinstance(node, ast.Attribute):
        node = node.value
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr == "open" and _dotted(called.value, {}).endswith("keys")


def _is_built(node: ast.expr) -> bool:
    """Tell whether this is a value that was put together in the same breath."""
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(node, ast.Dict) or (
        isinstance(called, ast.Attribute) and called.attr in {"as_dict", "to_builtins"}
    )


def _decodes(call: ast.Call, known: dict[str, str]) -> bool:
    if any(_is_opened(argument) for argument in call.args) or _is_opened(call.func):
        return False
    if call.args and _is_built(call.args[0]):
        return False
    name = _dotted(call.func, known)
    last = call.func.attr if isinstance(call.func, ast.Attribute) else name.rpartition(".")[2]
    if name == "uuid.UUID" and not call.args:
        return any(keyword.arg == "hex" for keyword in call.keywords)
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call):
        before = call.func.value.func
        inner = before.attr if isinstance(before, ast.Attribute) else getattr(before, "id", "")
        if last == "decode" and inner.endswith(_OWN_OUTPUT):
            return False
    return name in _FUNCTIONS or last in _METHODS or last.startswith(_LOADING)


def found_in(source: str, tree: ast.Module) -> Iterator[DecodeCall]:
    """Yield every decode call of a source; those outside any function stand in ``<module>``."""
    known = _imported(tree)

    def walk(node: ast.AST, inside: str) -> Iterator[DecodeCall]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and _decodes(child, known):
                yield DecodeCall(source, inside or "<module>", range(child.lineno, (child.end_lineno or 0) + 1))
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            yield from walk(child, f"{inside}.{child.name}".lstrip(".") if named else inside)

    yield from walk(tree, "")


def lines_reached(decoders: list[Decoder], sources: set[str]) -> dict[str, set[int]]:
    """Return the lines of these sources that the decoders' own seeds go through, by source."""
    names = {str(ROOT / source): source for source in sources}
    reached: dict[str, set[int]] = defaultdict(set)

    def enter(frame: FrameType, _event: str, _given: Any) -> Callable[..., Any] | None:
        source = names.get(frame.f_code.co_filename)
        if source is None:
            return None
        lines = reached[source]
        lines.add(frame.f_lineno)

        def step(inner: FrameType, _event: str, _given: Any) -> Any:
            lines.add(inner.f_lineno)
            return step

        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        for decoder in decoders:
            for seed in decoder.seeds:
                with contextlib.suppress(*decoder.allowed):
                    decoder.call(seed)
    finally:
        sys.settrace(before)
    return reached
