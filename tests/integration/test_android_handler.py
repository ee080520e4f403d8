import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from contracts.android.command import AndroidExecute
from contracts.errors import CommandError, Deferred, ErrorCode, Expired, Indeterminate, Permanent, Transient
from ops.simulators.phone.lab import until_state
from tests.integration.one_phone import PATIENCE_SECONDS, OnePhone, one_phone
from workers.android.adb.server import AdbServer
from workers.android.handler import RunOnPhone, build
from workers.android.monitor.devices import Transport
from workers.handler import Command, Outcome, StoredArtifact

TAP = {"action": "tap", "x": 1, "y": 2}


@dataclass
class Held:
    """A phone that is held for the test's time, and what it was told of each command."""

    phone: OnePhone
    serial: str = "SIM1"
    fence: str | None = None
    told: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def opened(self, *, patience_seconds: float) -> AsyncIterator[tuple[Transport, str | None]]:
        assert patience_seconds > 0
        yield self.phone.transport, self.fence

    def answered(self) -> None:
        self.told.append("answered")

    def unanswered(self) -> None:
        self.told.append("unanswered")

    def refused(self) -> None:
        self.told.append("refused")


@pytest.fixture
async def held(server: AdbServer, tmp_path: Path) -> AsyncIterator[Held]:
    async with one_phone(server, tmp_path) as phone:
        yield Held(phone)


@pytest.fixture
def artifacts() -> dict[tuple[str, str], bytes]:
    return {}


@pytest.fixture
def run_on(artifacts: dict[tuple[str, str], bytes]) -> RunOnPhone:
    async def read(owner: str, sha256: str) -> StoredArtifact | None:
        content = artifacts.get((owner, sha256))
        return None if content is None else StoredArtifact.of(content)

    return build(artifacts=read, artifact_limit_bytes=32 * 1024 * 1024)


def command(*, within_seconds: float = PATIENCE_SECONDS, attempt: int = 1, **fields: Any) -> Command[AndroidExecute]:
    now = datetime.now(UTC)
    return Command(
        publisher="demo",
        id=uuid4(),
        kind="android.execute",
        owner="owner",
        payload=AndroidExecute.model_validate(fields),
        attempt=attempt,
        accepted_at=now,
        deadline_at=now + timedelta(seconds=within_seconds),
    )


async def failure_of(run_on: RunOnPhone, held: Held, **fields: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await run_on(held, command(**fields))
    return caught.value


async def test_an_outcome_names_the_phone_and_the_action_and_has_the_artifacts(run_on: RunOnPhone, held: Held) -> None:
    outcome: Outcome = await run_on(held, command(action="screenshot"))

    assert outcome.output["device"] == outcome.usage.target == "SIM1"
    assert outcome.output["action"] == "screenshot"
    assert outcome.output["duration_ms"] > 0
    assert [artifact.sha256 for artifact in outcome.artifacts] == [outcome.output["artifact"]["sha256"]]
    assert held.told == ["answered"]


async def test_a_command_line_answers_as_its_action_does(run_on: RunOnPhone, held: Held) -> None:
    output = (await run_on(held, command(command="shell getprop ro.product.model"))).output

    assert (output["action"], output["value"]) == ("getprop", "ISH Simulated Phone")


async def test_a_passed_deadline_sends_nothing(run_on: RunOnPhone, held: Held) -> None:
    failure = await failure_of(run_on, held, **TAP, within_seconds=-1)

    assert isinstance(failure, Expired)
    assert held.phone.effects() == []


async def test_a_command_is_over_at_its_deadline(run_on: RunOnPhone, held: Held) -> None:
    held.phone.device.control.change(answer="hang")

    failure = await failure_of(run_on, held, **TAP, within_seconds=1, timeout_seconds=300)

    assert isinstance(failure, Indeterminate)
    assert failure.details == {"cause": "timeout", "device": "SIM1"}
    assert held.told == ["unanswered"]


async def test_a_phone_that_is_gone_before_anything_was_sent_is_waited_for(
    run_on: RunOnPhone, held: Held, server: AdbServer
) -> None:
    held.phone.device.control.change(present=False)
    await until_state(server, held.phone.transport.serial, "offline")

    failure = await failure_of(run_on, held, **TAP)

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.DEVICE_OFFLINE
    assert failure.details["device"] == "SIM1"
    assert held.told == ["unanswered"]


async def test_a_phone_that_knows_another_holder_is_left_alone_at_no_cost(run_on: RunOnPhone, held: Held) -> None:
    held.fence = "17"

    failure = await failure_of(run_on, held, **TAP)

    assert isinstance(failure, Deferred)
    assert failure.code is ErrorCode.DEVICE_BUSY
    assert held.phone.effects() == []
    assert held.told == ["refused"]


async def test_what_the_phone_itself_refuses_fails_at_once(run_on: RunOnPhone, held: Held) -> None:
    failure = await failure_of(run_on, held, action="start_app", package="com.none.such")

    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.NONZERO_EXIT
    assert failure.details["device"] == "SIM1"
    assert held.told == ["answered"]


async def test_only_the_owners_artifacts_are_put_on_a_phone(
    run_on: RunOnPhone, held: Held, artifacts: dict[tuple[str, str], bytes]
) -> None:
    mine, others = (hashlib.sha256(content).hexdigest() for content in (b"mine", b"others"))
    artifacts |= {("owner", mine): b"mine", ("stranger", others): b"others"}

    await run_on(held, command(action="push", path="/sdcard/mine", artifact=mine))
    failure = await failure_of(run_on, held, action="push", path="/sdcard/others", artifact=others)

    assert isinstance(failure, Permanent)
    assert [effect["path"] for effect in held.phone.effects("push")] == ["/sdcard/mine"]
