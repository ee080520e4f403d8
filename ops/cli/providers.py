"""`ish providers`: ask every configured AI model one small question and say what is wrong with those that fail."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import httpx
import typer
from rich.text import Text

from contracts.errors import CommandError, ErrorCode, Transient
from contracts.settings import read_settings, secret_from_environment, stop
from ops.cli.terminal import print_table, print_text, write_json
from ops.stack.layout import Layout
from workers.ai.configuration import ConfigurationError, Target, load
from workers.ai.providers.call import Question, ask
from workers.ai.providers.client import open_client

app = typer.Typer(help="AI providers: do they answer?", no_args_is_help=True)

_PROMPT = "Answer with the one word: ok"
_MAX_TOKENS = 8
_AT_ONCE = 4
"""Questions in flight at one provider that names no limit of its own."""

_HINTS = {
    ErrorCode.PROVIDER_AUTHENTICATION: "check the key ({key}) and the account's plan and credit",
    ErrorCode.MODEL_NOT_FOUND: "correct the model's name or base_url ({base_url}), or drop the model",
    ErrorCode.PROVIDER_UNAVAILABLE: "is {base_url} right, and reachable from here? If so, try again later",
    ErrorCode.PROVIDER_TIMEOUT: "try again, or allow it more time with --timeout",
    ErrorCode.PROVIDER_RATE_LIMITED: "the key works, but a limit is reached: try again {later}",
    ErrorCode.PROVIDER_MALFORMED: "check dialect ({dialect}) and base_url ({base_url})",
    ErrorCode.PROVIDER_INCOMPLETE: "try again; if it cannot stream, set `stream = false`",
    ErrorCode.PROVIDER_REJECTED: "check dialect ({dialect}), base_url ({base_url}) and the model's name",
}


@dataclass(frozen=True, slots=True)
class Check:
    """What came of one question."""

    target: str
    """`provider/model`."""
    ok: bool
    first_token_seconds: float | None = None
    seconds: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    code: str | None = None
    """Of the error."""
    message: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    hint: str | None = None
    """What to do about it."""


@app.command()
def check(
    *,
    file: Annotated[
        Path | None, typer.Option(help="The providers file; without it ISH_PROVIDERS_FILE, or the local stack's.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds for each question.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Ask each model one small question, which costs a few tokens; exits with 1 unless all of them answer."""
    path = file or _default_file()
    try:
        configuration = load(path, secret_from_environment=secret_from_environment)
    except ConfigurationError as error:
        stop(str(error), code=1)
    checks = asyncio.run(run(configuration.targets, timeout_seconds=timeout))
    if as_json:
        write_json([asdict(one) for one in checks])
    else:
        _print(checks)
    raise typer.Exit(0 if all(one.ok for one in checks) else 1)


async def run(targets: Sequence[Target], *, timeout_seconds: float) -> list[Check]:
    """Ask all of them at once, as far as each provider's own limit allows.

    Args:
        targets: The models.
        timeout_seconds: For each question.
    """
    room = {target.provider_name: target.provider.max_in_flight or _AT_ONCE for target in targets}
    gates = {name: asyncio.Semaphore(limit) for name, limit in room.items()}
    async with open_client() as client, asyncio.TaskGroup() as group:

        async def gated(target: Target) -> Check:
            async with gates[target.provider_name]:
                return await _check(client, target, timeout_seconds=timeout_seconds)

        tasks = [group.create_task(gated(target)) for target in targets]
    return [task.result() for task in tasks]


async def _check(client: httpx.AsyncBaseTransport, target: Target, *, timeout_seconds: float) -> Check:
    question = Question(
        messages=[{"role": "user", "content": _PROMPT}],
        options={"max_tokens": _MAX_TOKENS},
        idempotency_key=f"check:{uuid4()}",
        timeout_seconds=timeout_seconds,
    )
    try:
        answer = await ask(client, target, question)
    except CommandError as error:
        return Check(
            target.name,
            ok=False,
            code=error.code.value,
            message=error.message,
            details=error.details,
            hint=_hint(error, target),
        )
    return Check(
        target.name,
        ok=True,
        first_token_seconds=answer.first_token_seconds,
        seconds=answer.seconds,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
    )


def _hint(error: CommandError, target: Target) -> str | None:
    provider = target.provider
    wait = error.retry_after_seconds if isinstance(error, Transient) else None
    facts: defaultdict[str, str] = defaultdict(
        str,
        key=provider.api_key_file or provider.api_key_env or "none is configured",
        base_url=provider.base_url,
        dialect=provider.dialect,
        later="later" if wait is None else f"in {wait:.0f} s",
    )
    hint = _HINTS.get(error.code)
    return None if hint is None else hint.format_map(facts)


def _print(checks: Sequence[Check]) -> None:
    rows = [
        (
            one.target,
            Text("ok", "green") if one.ok else Text(one.code or "failed", "red"),
            _shown(one.first_token_seconds),
            _shown(one.seconds),
        )
        for one in checks
    ]
    print_table(("model", "result", "first token", "whole answer"), rows, spare=("first token",))
    for one in checks:
        if not one.ok:
            print_text(f"{one.target}: {one.message}" + (f"\n  {one.hint}" if one.hint else ""))


def _shown(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


def _default_file() -> Path:
    settings = read_settings()
    if settings.providers_file:
        return Path(settings.providers_file)
    of_the_stack = Layout.of(settings).state_dir / "providers.toml"
    if not of_the_stack.exists():
        stop("no providers file is named: use --file, set ISH_PROVIDERS_FILE, or start the local stack", code=1)
    return of_the_stack
