"""The OpenAPI 3.1 document, generated from the message types and the route table (DESIGN §6).

Nothing here is written down a second time: schemas come from the structs that decode requests, paths, rights, headers
and problems from the rows that the engine serves. The document is made once, at start.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from chukan.errors import REGISTRY
from chukan.platform.http import headers, parts, problems
from chukan.platform.http.auth import Right
from chukan.platform.http.calls import Example, Route
from chukan.platform.wire.agency import ProblemBody
from chukan.replication.durability import Durability
from chukan.tenants.directory import OFFICER_FUNCTIONS
from chukan.tenants.loads import PARTS_MAX

VERSION: Final = "1.0.0"
_REF: Final = "#/components/schemas/{name}"
_NAME: Final = re.compile(r"{(\w+)}")
_JSON: Final = "application/json"
_PROBLEM: Final = problems.CONTENT_TYPE.partition(";")[0]

COMMON: Final = (
    "malformed_request",
    "unauthenticated",
    "unregistered_system",
    "outside_links",
    "wrong_address",
    "wrong_agency",
    "agency_closed",
    "function_not_granted",
    "session_required",
    "session_ended",
    "rate_limited",
    "busy",
    "common_data_stale",
    "unavailable",
    "no_primary",
    "deadline_exceeded",
    "internal",
)
"""Problems that every call may answer with."""
WITH_BODY: Final = (
    "malformed_json",
    "too_deep",
    "invalid_field",
    "unknown_field",
    "too_large",
    "too_many_lines",
    "truncated_body",
    "body_timeout",
    "unsupported_media_type",
    "unsupported_encoding",
)
WITH_PARAMS: Final = ("invalid_field", "unknown_field")
WITH_KEY: Final = ("idempotency_key_missing", "idempotency_key_too_old", "invalid_field")

_RESPONSE_HEADERS: Final[Mapping[str, Any]] = {
    headers.REQUEST_ID: {"schema": {"type": "string", "format": "uuid"}, "description": "Id of this request."}
}
_DURABILITY: Final[Mapping[str, Any]] = {
    "schema": {
        "type": "string",
        "pattern": f"^({'|'.join(level.value for level in Durability)})(; leader=[^; ]+; timeline=[0-9]+)?$",
    },
    "description": "Where what was acknowledged is on disk, asked of the leader after the commit.",
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document as plain data."""
    kinds = _kinds(routes)
    schemas = msgspec.json.schema_components(kinds, ref_template=_REF)[1]
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {"parameters": _path_parameters(route)})[route.method.lower()] = _operation(
            route
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Chukan agency API",
            "version": VERSION,
            "summary": "自治体中間サーバー・プラットフォームの機関側インターフェース",
            "description": (
                "TLS 1.3 with a client certificate (SAN URI `urn:chukan:client:<id>`). Lists of 1 to 1,000 lines are "
                "answered line by line. Problems are RFC 9457 documents with a stable `code`; they never hold a value "
                "that was sent. Identifiers of persons travel in bodies only. Retry with the same Idempotency-Key. An "
                "officer who has signed in sends the session in `Chukan-Session`; then the officer's rights are asked."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"mutualTLS": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "mutualTLS": {"type": "mutualTLS", "description": "A certificate of a registered system or officer."}
            },
        },
    }


def render(routes: Sequence[Route]) -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(document(routes))


def index(routes: Sequence[Route]) -> bytes:
    """Return the short document at ``/``: what this is and where to go on."""
    links = {"openapi": "/openapi.json"} | {route.name: f"{route.method} {route.template}" for route in routes}
    return msgspec.json.encode({"name": "chukan", "api": VERSION, "links": links})


def _kinds(routes: Iterable[Route]) -> list[Any]:
    kinds: list[Any] = [ProblemBody, parts.JsonLine]
    for route in routes:
        kinds += [kind for kind in (route.body, route.reply) if kind is not None and kind not in kinds]
    return kinds


def _ref(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": _right_text(route.right),
        "tags": [route.path.split("/")[1]],
        "parameters": [*_header_parameters(route), *_query_parameters(route)],
        "responses": _responses(route),
    }
    if route.body is not None:
        content: dict[str, Any] = {"schema": _ref(route.body)}
        if route.examples:
            content["examples"] = _examples(route.examples)
        operation["requestBody"] = {"required": True, "content": {_JSON: content}}
    elif route.streams:
        operation["requestBody"] = {"required": True, "content": _stream_content(route)}
    return operation


def _examples(examples: Sequence[Example]) -> dict[str, Any]:
    return {
        f"example{number}": {"summary": example.summary, "value": msgspec.to_builtins(example.value)}
        for number, example in enumerate(examples, start=1)
    }


def _right_text(right: Right) -> str:
    officer = " An officer's own credential is needed." if OFFICER_FUNCTIONS.issuperset(right.functions) else ""
    return f"Function: {' or '.join(right.functions)}.{officer}"


def _stream_content(route: Route) -> dict[str, Any]:
    if route.stream_form:
        form = {"schema": {"type": "string", "description": route.stream_form}}
        return dict.fromkeys(route.streams, form)
    limits = f"At most {parts.LINES_MAX} lines, {parts.BYTES_MAX} bytes, {parts.RECORD_BYTES_MAX} bytes a line."
    return {
        parts.NDJSON: {
            "schema": {"type": "string", "description": f"One `JsonLine` a line; UTF-8 or CP932 by charset. {limits}"}
        },
        parts.CSV: {
            "schema": {
                "type": "string",
                "description": (
                    "RFC 4180 with a header: addressee, effective_from, review (optional), item codes, and "
                    f"`<item code>.gap` for reason codes. An empty cell is an absent item. {limits}"
                ),
            }
        },
    }


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    forms: dict[str, dict[str, Any]] = {
        "agency": {"type": "string", "pattern": "^[0-9]{16}$", "description": "機関番号"},
        "part": {"type": "integer", "minimum": 0, "exclusiveMaximum": PARTS_MAX},
        "link": {"type": "string", "pattern": "^[0-9]{6}-[1-9][0-9]?$", "description": "回線の名前"},
    }
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": forms.get(name, {"type": "string", "format": "uuid"}),
        }
        for name in _NAME.findall(route.template)
    ]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    if route.key:
        parameters.append(
            {
                "name": headers.IDEMPOTENCY_KEY,
                "in": "header",
                "required": True,
                "description": "A fresh UUIDv7 for every new request; the same one for a retry. Kept for 7 days.",
                "schema": {"type": "string", "minLength": 8, "maxLength": 64, "pattern": "^[!-~]+$"},
            }
        )
    if route.prefer_wait:
        parameters.append(
            {
                "name": headers.PREFER,
                "in": "header",
                "description": f"`wait=N` (RFC 7240): wait up to N seconds, at most {headers.WAIT_MAX_S}.",
                "schema": {"type": "string"},
                "example": "wait=10",
            }
        )
    if route.streams:
        parameters.append(
            {
                "name": "Content-Digest",
                "in": "header",
                "description": "`sha-256=:…:` (RFC 9530): the body is refused when it arrived otherwise.",
                "schema": {"type": "string"},
            }
        )
    return parameters


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.params is None:
        return []
    schema = msgspec.json.schema_components([route.params], ref_template=_REF)[1][route.params.__name__]
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": form}
        for name, form in schema["properties"].items()
    ]


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status in route.statuses:
        response: dict[str, Any] = {"description": _SUCCESS[status], "headers": dict(_RESPONSE_HEADERS)}
        if route.method != "GET" and route.produces is None:
            response["headers"][headers.DURABILITY] = _DURABILITY
        if route.reply is not None:
            response["content"] = {_JSON: {"schema": _ref(route.reply)}}
            if route.shows:
                response["content"][_JSON]["examples"] = _examples(route.shows)
        elif route.produces is not None:
            media_type, form = route.produces
            response["content"] = {media_type: {"schema": {"type": "string", "description": form}}}
        if status in {201, 202} and "{" not in route.path:
            response["headers"]["Location"] = {"schema": {"type": "string"}, "description": "Where to look."}
        if route.prefer_wait:
            response["headers"][headers.PREFERENCE_APPLIED] = {"schema": {"type": "string"}}
        responses[str(status)] = response
    for status, codes in sorted(problem_codes(route).items()):
        responses[str(status)] = _problem_response(status, codes)
    return responses


_SUCCESS: Final = {
    200: "Done; the body says what became of each line.",
    201: "Begun.",
    202: "Durable here, and not final yet.",
}


def problem_codes(route: Route) -> dict[int, list[str]]:
    """Return the codes of problems that a call may answer with, by status."""
    codes = [*COMMON, *route.problems]
    if route.body is not None or route.streams:
        codes += WITH_BODY
    if route.params is not None:
        codes += WITH_PARAMS
    if route.key:
        codes += WITH_KEY
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(REGISTRY[code].status, []).append(code)
    return by_status


def _problem_response(status: int, codes: Sequence[str]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": "; ".join(f"`{code}` {REGISTRY[code].title_ja}" for code in codes),
        "content": {
            _PROBLEM: {
                "schema": {
                    "allOf": [
                        _ref(ProblemBody),
                        {"type": "object", "properties": {"code": {"enum": list(codes)}, "status": {"const": status}}},
                    ]
                }
            }
        },
        "headers": dict(_RESPONSE_HEADERS),
    }
    if status in {429, 503}:
        response["headers"]["Retry-After"] = {"required": True, "schema": {"type": "integer", "minimum": 1}}
    return response
