import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.simulators.provider.ledger import Ledger
from ops.simulators.provider.scripts import Scripts
from ops.simulators.provider.server import running

KEY = "key-planted-in-the-file"


@asynccontextmanager
async def providers(tmp_path: Path, *models: str) -> AsyncIterator[tuple[Path, Ledger]]:
    """A providers file, every model of which a scripted provider plays."""
    ledger = Ledger()
    async with running(port=0, scripts=Scripts(), ledger=ledger) as port:
        (tmp_path / "key").write_text(KEY)
        path = tmp_path / "providers.toml"
        path.write_text(
            f'[providers.p]\ndialect = "zai"\nbase_url = "http://127.0.0.1:{port}/zai"\napi_key_file = "key"\n'
            + "".join(f'[providers.p.models."{model}"]\n' for model in models)
            + f'[providers.claude]\ndialect = "anthropic"\nbase_url = "http://127.0.0.1:{port}"\napi_key_file = "key"\n'
            + "[providers.claude.models.good]\n"
        )
        yield path, ledger


async def checked(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ops",
        "providers",
        "check",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    async with asyncio.timeout(120):
        output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def test_models_that_answer_are_shown_with_their_times(tmp_path: Path) -> None:
    async with providers(tmp_path, "good") as (path, ledger):
        status, output, _ = await checked("--file", str(path))

    lines = output.splitlines()
    assert status == 0
    assert [line.split()[:2] for line in lines[1:]] == [["p/good", "ok"], ["claude/good", "ok"]]
    assert all(line.rstrip().endswith(" s") for line in lines[1:])
    assert ledger.counts()["by_path"] == {"/zai/chat/completions": 1, "/v1/messages": 1}


async def test_a_model_that_fails_is_shown_with_what_to_do_about_it(tmp_path: Path) -> None:
    async with providers(tmp_path, "good", "fault-dead_key") as (path, _):
        status, output, _ = await checked("--file", str(path))

    assert status == 1
    assert "p/fault-dead_key" in output
    assert "provider_authentication" in output
    assert "check the key (key)" in output
    assert KEY not in output


async def test_programs_get_the_same_as_json(tmp_path: Path) -> None:
    async with providers(tmp_path, "good", "fault-429") as (path, _):
        status, output, _ = await checked("--json", environment={"ISH_PROVIDERS_FILE": str(path)})

    by_target: dict[str, dict[str, Any]] = {one["target"]: one for one in json.loads(output)}
    assert status == 1
    assert by_target["p/good"]["ok"] is True
    assert by_target["p/good"]["tokens_out"] > 0
    assert by_target["p/fault-429"]["code"] == "provider_rate_limited"
    assert by_target["p/fault-429"]["details"]["scope"] == "key"


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "cannot be read"), ("[providers]", "must not be empty")], ids=["missing", "empty"]
)
async def test_a_file_that_cannot_be_used_ends_with_one_line(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    path = tmp_path / "providers.toml"
    if content is not None:
        path.write_text(content)

    status, output, errors = await checked("--file", str(path))

    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert sentence in errors


async def test_without_a_file_and_a_stack_it_says_how_to_name_one(tmp_path: Path) -> None:
    status, _, errors = await checked(environment={"ISH_STATE_DIR": str(tmp_path / "none"), "ISH_PROVIDERS_FILE": ""})

    assert status == 1
    assert "set ISH_PROVIDERS_FILE" in errors
