import time
from dataclasses import dataclass

import pytest
from typing_extensions import override

from contracts.errors import ErrorCode, Indeterminate, Transient
from workers.android.adb.server import AdbFailure, AdbServer, ShellOutput
from workers.android.session import Session
from workers.handler import StoredArtifact


@dataclass(frozen=True, slots=True)
class ForgetfulServer(AdbServer):
    """Gives no answer, after the line was sent or before."""

    begun: bool = True

    @override
    async def shell(self, serial: str, line: str, *, timeout_seconds: float, max_output_bytes: int = 0) -> ShellOutput:
        raise AdbFailure(ErrorCode.DEVICE_OFFLINE, "gone", begun=self.begun)


@dataclass(frozen=True, slots=True)
class Way:
    server: AdbServer
    serial: str = "SIM1"


async def no_artifact(_: str) -> StoredArtifact | None:
    return None


def session_on(server: AdbServer, *, fence: str | None = None) -> Session:
    return Session(Way(server), deadline=time.monotonic() + 60, fence=fence, artifact_limit_bytes=1, fetch=no_artifact)


@pytest.mark.parametrize(
    ("begun", "effect", "kind", "code"),
    [
        (False, True, Transient, ErrorCode.DEVICE_OFFLINE),
        (False, False, Transient, ErrorCode.DEVICE_OFFLINE),
        (True, False, Transient, ErrorCode.DEVICE_OFFLINE),
        (True, True, Indeterminate, ErrorCode.INDETERMINATE),
    ],
)
async def test_a_lost_answer_is_indeterminate_only_when_the_effect_may_have_happened_and_must_not_happen_twice(
    kind: type[Exception], code: ErrorCode, *, begun: bool, effect: bool
) -> None:
    session = session_on(ForgetfulServer("h", 1, begun))

    with pytest.raises(AdbFailure) as caught:
        await session.line("input tap 1 2", effect=effect)

    failure = session.lost(caught.value)
    assert type(failure) is kind
    assert failure.code is code
    assert failure.details == {"cause": "device_offline"}


@pytest.mark.parametrize("fence", ["", "1;2", "a", "\uff11"])
def test_a_fence_is_digits(fence: str) -> None:
    with pytest.raises(ValueError, match="digits"):
        session_on(ForgetfulServer("h", 1), fence=fence)


def test_an_inner_deadline_ends_with_its_block() -> None:
    session = session_on(ForgetfulServer("h", 1))

    with session.within(1):
        assert session.seconds_left <= 1
        with session.within(100):
            assert session.seconds_left <= 1
    assert session.seconds_left > 30


async def test_what_puts_in_order_may_fail() -> None:
    await session_on(ForgetfulServer("h", 1)).clean("rm -f x")
