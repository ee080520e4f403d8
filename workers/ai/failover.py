"""Asks providers until one gives a whole answer: which one, how often, and what a failure leads to.

route ─► enter (limits, breakers) ─► call ─► answer
  ▲            │ no room               │ error
  │            ▼                       ├─ about the request: too long -> a model with more room; else the end
  │        Deferred                    └─ about the model, key or provider: the next candidate, if there is one,
  └────────────────────────────────────── a call left and, for what may pass, the retry budget; else the broker
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from contracts.ai.chat import MAX_TIMEOUT_SECONDS, AiSend
from contracts.errors import CommandError, Deferred, ErrorCode, Expired, Permanent, Transient
from workers.ai.answers.call_record import Answer, Asked
from workers.ai.answers.streaming import TokenWriter
from workers.ai.configuration import Configuration, Target
from workers.ai.dialogue import Dialogue
from workers.ai.limits import Failed, Fleet, Pass, RetryBudget, Served, Unknown, Unused, Wait
from workers.ai.providers.call import Completion, Question, ask
from workers.ai.providers.errors import Scope
from workers.ai.routing.router import Router
from workers.handler import Command, Usage

_OPTIONS = frozenset({"temperature", "top_p", "max_tokens", "stop", "seed", "response_format"})
_LOCAL_WAIT_SECONDS = 2.0
_LAST_CHANCE_SECONDS = 1.0
"""A command put off beyond its deadline comes back so long before it, since room may be found earlier."""

_WHY = {
    "in_flight": (ErrorCode.NO_CAPACITY, "as many calls are under way as its limit allows"),
    "requests_per_minute": (ErrorCode.NO_CAPACITY, "its requests of this minute are used up"),
    "tokens_per_minute": (ErrorCode.NO_CAPACITY, "its tokens of this minute are used up"),
    "open": (ErrorCode.PROVIDER_UNAVAILABLE, "it fails, and is tried again from time to time"),
    "cooldown": (ErrorCode.PROVIDER_RATE_LIMITED, "it asked to be left alone until later"),
    "recovering": (ErrorCode.PROVIDER_UNAVAILABLE, "it has just recovered and is loaded little by little"),
}

_OUTAGE = frozenset(
    {
        ErrorCode.PROVIDER_UNAVAILABLE,
        ErrorCode.PROVIDER_TIMEOUT,
        ErrorCode.PROVIDER_MALFORMED,
        ErrorCode.PROVIDER_INCOMPLETE,
    }
)

_OUTAGE_REASONS = frozenset({"open", "recovering"})


@dataclass(frozen=True, slots=True)
class Asking:
    """What it takes to ask; one for each process."""

    configuration: Callable[[], Configuration]
    """As it is now."""
    client: httpx.AsyncBaseTransport
    router: Router
    fleet: Fleet
    budget: RetryBudget
    calls_per_command: int

    async def answer(self, command: Command[AiSend], dialogue: Dialogue, writer: TokenWriter | None) -> Asked:
        """Ask until there is a whole answer.

        Args:
            command: What is asked.
            dialogue: What the model is shown.
            writer: Gets the text while it is made; None when nobody wants it.

        Raises:
            CommandError: With `spent` set to what was used.
        """
        run = _Run(self, command, dialogue, writer)
        try:
            return await run.answer()
        except CommandError as error:
            error.spent = run.usage()
            raise


@dataclass(slots=True)
class _Run:
    """One run of a command: the calls it makes."""

    asking: Asking
    command: Command[AiSend]
    dialogue: Dialogue
    writer: TokenWriter | None
    tried: set[str] = field(default_factory=set)
    calls: list[dict[str, Any]] = field(default_factory=list)
    counted: int = 0
    """Calls that count towards the command's limit: not those that a provider turned away for its rate."""
    failures: list[CommandError] = field(default_factory=list)
    route: dict[str, Any] | None = None
    larger: tuple[Target, ...] | None = None
    """After an answer that the dialogue is too long: the models with more room."""
    limit: int = 0

    async def answer(self) -> Asked:
        while True:
            targets = self._candidates()
            entered = await self._enter(targets)
            try:
                completion = await self._call(entered)
            except CommandError as error:
                await self._after(error, entered.target, others=len(targets) - 1)
                continue
            cost = entered.target.model.cost_usd(tokens_in=completion.tokens_in, tokens_out=completion.tokens_out)
            return Asked(Answer.of(completion, entered.target), self.calls, self.route, cost)

    def usage(self) -> Usage:
        """What the run used, should it fail."""
        return Usage(
            target=self.calls[-1]["target"] if self.calls else None,
            calls=self.counted,
            details={"route": self.route, "calls": self.calls},
        )

    def _candidates(self) -> Sequence[Target]:
        configuration, payload = self.asking.configuration(), self.command.payload
        if self.larger is not None:
            return self.larger
        route = self.asking.router.route(
            configuration,
            model=payload.model,
            provider=payload.provider,
            capabilities=payload.capabilities,
            tokens_in=self.dialogue.tokens_in,
            tokens_out=self.dialogue.answer_tokens,
            exclude=self.tried,
        )
        self.route = route.explain()
        alias = configuration.aliases.get(route.alias) if route.alias is not None else None
        self.limit = (alias.max_calls if alias is not None else None) or self.asking.calls_per_command
        return [candidate.target for candidate in route.candidates]

    async def _enter(self, targets: Sequence[Target]) -> Pass:
        entered = await self._room(targets, wait_seconds=min(_LOCAL_WAIT_SECONDS, self._seconds_left()))
        if not isinstance(entered, Wait):
            return entered
        if entered.dead:
            raise self._dead(entered)
        raise self._deferred(entered)

    def _dead(self, wait: Wait) -> CommandError:
        """Nobody can be asked until a person acts, and a command cannot wait for that."""
        if self.failures:
            return self._most_hopeful()
        return Permanent(
            ErrorCode.PROVIDER_AUTHENTICATION,
            f"{wait.target} refused its API key or does not know the model a short while ago: check the providers file "
            "(`ish providers check`)",
            details={"target": wait.target, "reason": wait.reason},
        )

    async def _room(self, targets: Sequence[Target], *, wait_seconds: float) -> Pass | Wait:
        return await self.asking.fleet.enter(
            targets,
            tokens=self.dialogue.tokens_in + self.dialogue.answer_tokens,
            command_id=f"{self.command.publisher}:{self.command.id}",
            batch=self.command.priority == "batch",
            wait_seconds=wait_seconds,
        )

    def _deferred(self, wait: Wait) -> Deferred:
        code, why = _WHY[wait.reason]
        left = self._seconds_left()
        seconds = wait.seconds if wait.seconds < left else max(left - _LAST_CHANCE_SECONDS, left / 2)
        return Deferred(
            code,
            f"{wait.target} has no room for this call: {why}",
            retry_after_seconds=seconds,
            details={"target": wait.target, "reason": wait.reason},
        )

    async def _call(self, entered: Pass) -> Completion:
        target = entered.target
        if not self.calls and not self.command.calls:
            self.asking.budget.first()
        timing = self.asking.router.begin(target)
        call: dict[str, Any] = {"target": target.name, "started_at": datetime.now(UTC).isoformat()}
        if entered.probe:
            call["probe"] = True
        begun_at = time.monotonic()
        completion: Completion | None = None
        try:
            completion = await self._ask(target, timing.piece)
        except CommandError as error:
            self.counted += error.code is not ErrorCode.PROVIDER_RATE_LIMITED
            call |= {"outcome": error.code.value, "message": error.message}
            await entered.leave(Failed(error))
            raise
        else:
            self.counted += 1
            call |= {
                "outcome": "ok",
                "first_token_seconds": _rounded(completion.first_token_seconds),
                "tokens_in": completion.tokens_in,
                "tokens_out": completion.tokens_out,
            }
            tokens = None
            if completion.tokens_in is not None and completion.tokens_out is not None:
                tokens = completion.tokens_in + completion.tokens_out
            await entered.leave(Served(tokens, completion.seconds))
            return completion
        finally:
            timing.end(completion.tokens_out if completion is not None else None, ok=completion is not None)
            await entered.leave(Unknown())  # says nothing when something was said; else the run was cancelled
            self.calls.append({**call, "seconds": _rounded(time.monotonic() - begun_at)})

    async def _ask(self, target: Target, piece: Callable[[], None]) -> Completion:
        command, writer = self.command, self.writer
        question = Question(
            messages=self.dialogue.messages(target.model.context_tokens),
            options=command.payload.model_dump(include=set(_OPTIONS), exclude_none=True),
            # two publishers may use the same id: neither may be given the other's answer
            idempotency_key=f"{quote(command.publisher, safe='')}:{command.id}",
            timeout_seconds=min(command.payload.timeout_seconds or MAX_TIMEOUT_SECONDS, self._seconds_left()),
        )
        if writer is not None:
            writer.begin(uuid4().hex[:12])

        def on_text(text: str) -> None:
            piece()
            if writer is not None:
                writer.write(text)

        return await ask(self.asking.client, target, question, on_text=on_text)

    async def _after(self, error: CommandError, target: Target, *, others: int) -> None:
        """Return when another candidate is to be asked now; raise what the run ends with otherwise."""
        self.tried.add(target.name)
        self.failures.append(error)
        if error.code is ErrorCode.CONTEXT_TOO_LONG:
            self._turn_to_larger(error, target)
            return
        if error.details.get("scope") == Scope.REQUEST and not isinstance(error, Transient):
            raise error
        if isinstance(error, Transient) and datetime.now(UTC) >= self.command.deadline_at:
            raise _too_late() from error
        if self.command.calls + self.counted >= self.limit:
            raise await self._spent(error, target)
        if self.larger is not None:
            self.larger = tuple(one for one in self.larger if one.name not in self.tried)
        if others and (not isinstance(error, Transient) or self.asking.budget.extra()):
            return
        raise self._most_hopeful()

    def _most_hopeful(self) -> CommandError:
        """Of several candidates' errors the one that passes first: what may pass at one of them is not the end."""
        passing = [error for error in self.failures if isinstance(error, Transient)]
        return min(passing, key=lambda one: one.retry_after_seconds or 0) if passing else self.failures[-1]

    def _turn_to_larger(self, error: CommandError, target: Target) -> None:
        payload = self.command.payload
        self.larger = self.asking.router.larger(
            self.asking.configuration(),
            target,
            needed_tokens=self.dialogue.tokens_in + self.dialogue.answer_tokens,
            alias=self.route["alias"] if self.route is not None else None,
            provider=payload.provider,
            capabilities=payload.capabilities,
            exclude=self.tried,
        )
        if not self.larger or self.command.calls + self.counted >= self.limit:
            raise error

    async def _spent(self, error: CommandError, target: Target) -> CommandError:
        """What a command ends with that has had all its calls; in an outage it waits for the end of that instead."""
        if not isinstance(error, Transient) or error.code is ErrorCode.PROVIDER_RATE_LIMITED:
            return error
        if error.code in _OUTAGE and (outage := await self._outage(target)) is not None:
            return self._deferred(outage)
        made = self.command.calls + self.counted
        return Permanent(
            ErrorCode.ATTEMPTS_EXHAUSTED,
            f"{made} calls of providers brought no answer, which is the limit; the last error was {error.code.value}: "
            f"{error.message}",
            details={**error.details, "last_error": error.code.value, "calls": made},
        )

    async def _outage(self, target: Target) -> Wait | None:
        """The wait for the end of an outage; None when calls are let out, so that the fault is this command's alone."""
        entered = await self._room([target], wait_seconds=0)
        if isinstance(entered, Wait):
            return entered if entered.reason in _OUTAGE_REASONS else None
        await entered.leave(Unused())
        return None

    def _seconds_left(self) -> float:
        left = (self.command.deadline_at - datetime.now(UTC)).total_seconds()
        if left <= 0:
            raise _too_late()
        return left


def _too_late() -> Expired:
    return Expired(ErrorCode.DEADLINE_PASSED, "the deadline passed before an answer was complete")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
