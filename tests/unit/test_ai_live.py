import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from workers.ai.configuration import ConfigurationError
from workers.ai.live_configuration import LiveConfiguration

LOOK_SECONDS = 0.02


def providers(*models: str, key_file: str | None = None) -> str:
    key = f'api_key_file = "{key_file}"\n' if key_file is not None else ""
    tables = "\n".join(f"[providers.p.models.{model}]" for model in models)
    return f'[providers.p]\ndialect = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n{key}{tables}\n'


def names(live: LiveConfiguration) -> list[str]:
    return [target.model_name for target in live.current.targets]


def key(live: LiveConfiguration) -> str | None:
    secret = live.current.targets[0].api_key
    return None if secret is None else secret.get_secret_value()


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not met():  # noqa: ASYNC110  # the condition is in another task's hands
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def followed(path: Path) -> AsyncIterator[LiveConfiguration]:
    live = LiveConfiguration(str(path), secret_from_environment=lambda _: None, look_seconds=LOOK_SECONDS)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(live.run())
        yield live
        task.cancel()


async def test_a_changed_file_takes_effect_and_what_was_taken_before_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(providers("one"))
    async with followed(path) as live:
        before = live.current

        path.write_text(providers("one", "two"))
        await until(lambda: names(live) == ["one", "two"])

    assert [target.model_name for target in before.targets] == ["one"]


async def test_a_file_replaced_by_another_of_equal_size_and_time_takes_effect(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(providers("one"))
    times = path.stat()
    async with followed(path) as live:
        other = tmp_path / "new.toml"
        other.write_text(providers("two"))
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
        other.rename(path)

        await until(lambda: names(live) == ["two"])


async def test_a_bad_file_changes_nothing_and_is_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(providers("one"))
    with capture_logs() as lines:
        async with followed(path) as live:
            path.write_text("[providers")
            await until(lambda: any(line["event"] == "configuration_refused" for line in lines))
            assert names(live) == ["one"]

            path.write_text(providers("three"))
            await until(lambda: names(live) == ["three"])

    assert [line["event"] for line in lines] == ["configuration_refused", "configuration_reloaded"]
    assert "is not TOML" in lines[0]["error"]


async def test_a_new_key_in_its_file_takes_effect(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    (tmp_path / "key").write_text("first-key\n")
    path.write_text(providers("one", key_file="key"))
    async with followed(path) as live:
        assert key(live) == "first-key"

        (tmp_path / "key").write_text("second-key\n")
        await until(lambda: key(live) == "second-key")


async def test_a_key_file_that_comes_after_the_file_that_names_it_is_found(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(providers("one"))
    with capture_logs() as lines:
        async with followed(path) as live:
            path.write_text(providers("one", key_file="late"))
            await until(lambda: any(line["event"] == "configuration_refused" for line in lines))

            (tmp_path / "late").write_text("late-key\n")
            await until(lambda: key(live) == "late-key")


def test_a_file_that_cannot_be_used_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        LiveConfiguration(str(tmp_path / "none.toml"), secret_from_environment=lambda _: None)


def test_without_a_file_nothing_is_configured() -> None:
    live = LiveConfiguration("", secret_from_environment=lambda _: None)

    assert live.current.targets == ()
