"""schemathesis against a running exchange's own /openapi.json: what is served is what is documented, whatever is sent.

Its process speaks mutual TLS like any client: once as a system of an agency, once as an officer of another. The agency
of the path is the caller's own, or nearly every request would end at ``wrong_agency``.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chukan.tenants.links import LinkSteward
from chukan.tests.support.link_desk import LinkDesk
from chukan.tests.support.nation import ASKS, GIVES, TAX

from .conftest import Api, problems_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
EVENT_STREAM = "text/event-stream"
DEADLINE_S = 900.0


async def document(api: Api) -> dict[str, Any]:
    async with api.session() as session, session.get(f"https://localhost:{api.port}/openapi.json") as answer:
        assert answer.status == 200
        return await read(answer)


async def read(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await answer.read())
    return found


def operations(found: dict[str, Any]) -> dict[str, tuple[bool, bool]]:
    """By operation: whether its answer is a stream without end, and whether an officer's credential is needed."""
    return {
        operation["operationId"]: (
            any(EVENT_STREAM in response.get("content", {}) for response in operation["responses"].values()),
            "officer's own credential" in operation["description"],
        )
        for item in found["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    }


async def real_ids(api: Api) -> dict[str, str]:
    """Ids that exist, so that a call meets more than ``not_found``: a batch, a load, a review, a link."""
    world = api.world
    free, held = await world.person(ASKS, GIVES), await world.person(ASKS, GIVES, review=True)
    done = await world.answered(ASKS, await world.ask(ASKS, [world.line(free, GIVES)]))
    await world.ask(ASKS, [world.line(held, GIVES)])
    review = await world.until_some(world.west.reviews.list, world.agency(GIVES))
    body = {"kind": TAX, "layout": 202506, "mode": "difference", "expected": 1, "period": "2026"}
    load = (await api.send("POST", "/loads", body))[2]
    steward = LinkSteward(world.west.cells, "east")
    link = await LinkDesk(steward, None, None, None, None).active(GIVES[4:10])  # type: ignore[arg-type]
    return {
        "path.query": str(done.batch),
        "path.load": load["id"],
        "path.review": str(review.id),
        "path.link": link,
    }


async def fuzz(
    api: Api,
    name: str,
    wanted: list[str],
    known: dict[str, str],
    *,
    examples: int,
    seed: int,
    phases: str,
    headers: Sequence[str] = (),
) -> None:
    """Run schemathesis as a process, with these parameters and headers; fail with what it says."""
    issued = api.certificate(name)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "schemathesis.toml"
        values = "".join(f'"{parameter}" = "{value}"\n' for parameter, value in known.items())
        config.write_text(f"[parameters]\n{values}", encoding="utf-8")
        command = [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(config),
            "run", f"https://localhost:{api.port}/openapi.json",
            "--tls-verify", str(api.world.authority.trusted),
            "--request-cert", str(issued.certificate), "--request-cert-key", str(issued.key),
            "--checks", ",".join(CHECKS), "--phases", phases, "--mode", "all",
            "--max-examples", str(examples), "--seed", str(seed), "--generation-database", "none",
            "--continue-on-failure", "--workers", "1", "--no-color", "--request-timeout", "90",
        ]  # fmt: skip
        for header in headers:
            command += ["--header", header]
        for operation in wanted:
            command += ["--include-operation-id", operation]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "NO_COLOR": "1"},
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    text = said.decode("utf-8", "replace")
    assert process.returncode == 0, text[-20_000:]
    assert " passed" in text
    assert problems_of(api.world, "internal") == 0


async def both(api: Api, *, examples: int, seed: int, phases: str) -> None:
    known = operations(await document(api))
    # An answer without end cannot be waited for: what it says is shown by the tests of events.
    ending = {name: officer for name, (stream, officer) in known.items() if not stream}
    systems = [name for name, officer in ending.items() if not officer]
    officers = [name for name, officer in ending.items() if officer]
    assert len(systems) >= 20
    assert len(officers) >= 4
    ids = await real_ids(api)
    for name, agency, wanted in ((f"system-{ASKS}", ASKS, systems), ("officer-first", GIVES, officers)):
        values = {"path.agency": agency, **ids}
        await fuzz(api, name, wanted, values, examples=examples, seed=seed, phases=phases)


@pytest.mark.requirement("CON-01", "TST-03")
async def test_what_is_served_is_what_is_documented(api: Api) -> None:
    await both(api, examples=8, seed=20_261_123, phases="examples,fuzzing")


@pytest.mark.full
@pytest.mark.requirement("CON-01", "TST-03")
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_what_is_served_is_what_is_documented_with_many_examples(api: Api, seed: int) -> None:
    await both(api, examples=150, seed=seed, phases="examples,coverage,fuzzing,stateful")
