"""The OpenAPI document: generated, complete, consistent in itself, and true of what is served."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from chukan.errors import REGISTRY
from chukan.platform.http import openapi
from chukan.platform.http.routes import ROUTES

DOCUMENT = msgspec.json.decode(openapi.render(ROUTES))


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from _walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from _walk(child)


def _operations() -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation
        for path in DOCUMENT["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    }


def test_it_is_openapi_3_1_with_mutual_tls() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    assert DOCUMENT["components"]["securitySchemes"]["mutualTLS"]["type"] == "mutualTLS"
    assert DOCUMENT["security"] == [{"mutualTLS": []}]


def test_every_route_is_there_under_its_path_and_method() -> None:
    assert _operations().keys() == {route.name for route in ROUTES}
    for route in ROUTES:
        assert DOCUMENT["paths"][route.template][route.method.lower()]["operationId"] == route.name


def test_every_reference_resolves() -> None:
    references = {node["$ref"] for node in _walk(DOCUMENT) if "$ref" in node}
    assert references
    for reference in references:
        name = reference.removeprefix("#/components/schemas/")
        assert name in DOCUMENT["components"]["schemas"]


def test_names_in_paths_are_declared_as_parameters() -> None:
    for path, item in DOCUMENT["paths"].items():
        declared = [each["name"] for each in item["parameters"]]
        assert declared == re.findall(r"{(\w+)}", path)
        assert all(each["in"] == "path" and each["required"] for each in item["parameters"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_an_operation_says_what_the_engine_demands(route: Any) -> None:
    operation = _operations()[route.name]
    headers = {each["name"]: each for each in operation["parameters"] if each["in"] == "header"}
    assert headers.get("Idempotency-Key", {}).get("required", False) == route.key
    assert ("Prefer" in headers) == route.prefer_wait
    queries = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
    assert queries == set(route.params.__struct_encode_fields__ if route.params else ())
    assert ("requestBody" in operation) == bool(route.body or route.streams)
    produced = route.produces[0] if route.produces else "application/json"
    for status in route.statuses:
        assert operation["responses"][str(status)]["content"][produced]["schema"]
    for function in route.right.functions:
        assert function in operation["description"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_problems_are_documented_by_code_and_status(route: Any) -> None:
    responses = _operations()[route.name]["responses"]
    documented: set[str] = set()
    for status, response in responses.items():
        if "application/problem+json" not in response["content"]:
            continue
        codes = response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"]["enum"]
        assert all(REGISTRY[code].status == int(status) for code in codes)
        documented.update(codes)
        assert ("Retry-After" in response["headers"]) == (status in {"429", "503"})
    assert {"unregistered_system", "wrong_agency", "function_not_granted", "busy", "internal"} <= documented
    assert set(route.problems) <= documented


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body], ids=lambda route: route.name)
def test_examples_are_what_the_decoder_takes(route: Any) -> None:
    examples = _operations()[route.name]["requestBody"]["content"]["application/json"]["examples"]
    assert examples
    for example in examples.values():
        msgspec.json.decode(msgspec.json.encode(example["value"]), type=route.body)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.shows], ids=lambda route: route.name)
def test_replies_that_are_shown_are_such_replies(route: Any) -> None:
    content = _operations()[route.name]["responses"][str(route.statuses[0])]["content"]["application/json"]
    for example in content["examples"].values():
        assert msgspec.to_builtins(msgspec.convert(example["value"], route.reply)) == example["value"]


def test_a_linkage_code_is_in_no_message_of_this_side() -> None:
    names = {name for schema in DOCUMENT["components"]["schemas"].values() for name in schema.get("properties", {})}
    assert names.isdisjoint({"linkage_code", "individual_number", "resident_code", "my_number"})
    # The one "code" of this side is a problem's own.
    assert [name for name, schema in DOCUMENT["components"]["schemas"].items() if "code" in schema["properties"]] == [
        "ProblemBody"
    ]


async def test_it_is_served_with_the_index(served: Any) -> None:
    async with served.client() as client:
        async with client.get(f"https://localhost:{served.port}/openapi.json") as answer:
            assert await answer.json() == DOCUMENT
        async with client.get(f"https://localhost:{served.port}/") as answer:
            index = await answer.json()
    assert index["links"]["openapi"] == "/openapi.json"
    assert index["links"]["postQueries"] == "POST /v1/agencies/{agency}/queries"
