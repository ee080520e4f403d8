"""A live gateway does what its OpenAPI document says and refuses what it says it does: generated requests, bounded.

Made by schemathesis from the document, valid and invalid ones. Left out are waits, since nobody runs the commands here; what
one request cannot show (a reused Idempotency-Key, an upload whose declared length must fit its bytes); and the GETs of
Perplexity, for whose `device`, which excludes `tag`, OpenAPI has no words in a query.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ops.admin import keys
from ops.stack.session import Session
from tests.integration.gateway_process import GatewayProcess

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,positive_data_acceptance,unsupported_method,"
    "allow_header_conformance"
)
LEFT_OUT = {
    ("header", "Idempotency-Key"),
    ("header", "Prefer"),
    ("header", "Ish-Deadline-Seconds"),  # beside it schemathesis wants unknown headers to be refused
    ("query", "wait"),
}
NOT_IN_WORDS = (
    ("RecordScreen", "timeout_seconds"),  # leaves time for the recording
    ("Relay", "metadata"),  # no NUL anywhere in it
    ("AiSend", "metadata"),
)
"""Fields, of which schema, that have rules for which JSON Schema has no words."""
OF_ARTIFACTS = ("#/components/schemas/Install", "#/components/schemas/Push")
OPERATIONS_LEFT_OUT = "^(upload_artifact|append_to_upload|create_chat_completion|get_perplexity_)"


async def _look(
    services: Session, gateway: GatewayProcess, folder: Path, *, phases: str, examples: int, seconds: int
) -> None:
    """Let schemathesis look; fails with what it finds."""
    key = await keys.create_key(services.postgres_url("ish_ops"), "described")
    async with gateway.client(key) as client:
        document: dict[str, Any] = (await client.get("/openapi.json")).json()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["parameters"] = [
                one for one in operation["parameters"] if (one["in"], one["name"]) not in LEFT_OUT
            ]
    for schema, field in NOT_IN_WORDS:
        del document["components"]["schemas"][schema]["properties"][field]
    _only_known_lines(document)
    _without_artifacts(document)
    (folder / "openapi.json").write_text(json.dumps(document))
    argv = [
        *(str(Path(sys.executable).with_name("st")), "run", str(folder / "openapi.json"), "--url", gateway.url),
        *("--checks", CHECKS, "--phases", phases, "--max-examples", str(examples)),
        *("--max-time", str(seconds), "--seed", "1", "--no-shrink", "--continue-on-failure", "--warnings", "off"),
        *("--exclude-operation-id-regex", OPERATIONS_LEFT_OUT),
        *("--suppress-health-check", "all", "-H", f"X-API-Key: {key}", "--request-timeout", "30"),
    ]
    found = folder / "found.txt"
    with found.open("w") as output:
        finished = await asyncio.create_subprocess_exec(*argv, cwd=folder, stdout=output, stderr=output)
        async with asyncio.timeout(seconds * 5):
            status = await finished.wait()
    if status:
        pytest.fail(found.read_text(), pytrace=False)


def _without_artifacts(document: object) -> None:
    """Which artifacts somebody has is no matter of a schema."""
    if isinstance(document, list):
        document[:] = [one for one in document if not (isinstance(one, dict) and one.get("$ref") in OF_ARTIFACTS)]
        for one in document:
            _without_artifacts(one)
    elif isinstance(document, dict):
        for name in [name for name, one in document.items() if isinstance(one, str) and one in OF_ARTIFACTS]:
            del document[name]
        for one in document.values():
            _without_artifacts(one)


def _only_known_lines(document: object) -> None:
    """Which lines a phone understands is no matter of a schema."""
    if isinstance(document, list):
        for one in document:
            _only_known_lines(one)
    elif isinstance(document, dict):
        properties = document.get("properties")
        if isinstance(properties, dict) and "command" in properties:
            properties["command"] = {"type": "string", "enum": ["shell input tap 1 2", "shell input keyevent HOME"]}
        for one in document.values():
            _only_known_lines(one)


async def test_generated_requests_meet_nothing_undocumented(
    services: Session, gateway: GatewayProcess, tmp_path: Path
) -> None:
    await _look(services, gateway, tmp_path, phases="coverage", examples=10, seconds=45)


@pytest.mark.full
async def test_many_generated_requests_meet_nothing_undocumented(
    services: Session, gateway: GatewayProcess, tmp_path: Path
) -> None:
    await _look(services, gateway, tmp_path, phases="examples,coverage,fuzzing", examples=200, seconds=240)
