"""The one settings tree: every `ISH_*` variable, its default, its rule, and the secrets that are refused.

Any setting `ISH_X` may instead be given as `ISH_X_FILE`, a path whose content is the value: URLs with passwords then
stay out of the process's environment. Nothing else in the product reads the environment.
"""

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from contracts.addresses import ADB_PORT, read_addresses
from contracts.faults import rule_of
from contracts.plain_text import plain
from contracts.service_urls import FORMS, check, check_authority, completed

_PREFIX = "ISH_"

REFUSED_SECRETS = frozenset(
    {"ish-chat-secure-key-2024", "secure_password_2024", "secure_redis_password_2024", "admin123"}
)
"""Printed in reports of the system before this one, so known to strangers; a start with one of them is refused."""


class _FromFiles(PydanticBaseSettingsSource):
    """Reads `ISH_X_FILE`: the stripped content of that file is the value of `ISH_X`."""

    @override
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        del field
        path = os.environ.get(f"{_PREFIX}{field_name.upper()}_FILE")  # noqa: TID251  # this module owns the environment
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except OSError as error:
            sentence = f"{_PREFIX}{field_name.upper()}_FILE: cannot read {path}: {error.strerror}"
            raise ValueError(sentence) from error

    @override
    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """Every setting of every process. Times are in seconds, sizes in bytes; what a process does not use it ignores."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True)

    # where things are
    amqp_url: str = Field(
        default="", description="RabbitMQ, as this process's own user: amqp://user:password@host:port/%2F"
    )
    postgres_url: str = Field(default="", description="PostgreSQL, as this process's own role.")
    redis_url: str = Field(default="", description="Redis; empty means none: only caches and shared limits are lost.")
    rabbitmq_management_url: str = Field(default="", description="RabbitMQ's management API, for operators' commands.")
    gateway_url: str = Field(default="", description="Where the CLI finds the gateway.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the services' certificates; see ops/docs/tls.md.",
    )
    gateway_host: str = Field(default="127.0.0.1", description="Address the gateway listens on.")
    gateway_port: int = Field(default=8000, ge=1, le=65535, description="Port the gateway listens on.")
    gateway_connections: int = Field(
        default=4000, ge=16, le=60000, description="HTTP connections held at once; also bounded by file descriptors."
    )
    gateway_connections_per_address: int = Field(
        default=2000, ge=1, le=60000, description="Of these, from one address; a proxy in front is one."
    )
    gateway_request_seconds: float = Field(
        default=10,
        gt=0,
        le=300,
        description="Time for a request's header; its body may take twice that, and 1 s per KiB.",
    )
    api_key: str = Field(default="", description="Key the CLI sends as X-API-Key.")
    adb_servers: str = Field(
        default="", description="adb servers, host:port, comma-separated (`127.0.0.1:5037,10.0.0.2:5037`)."
    )
    providers_file: str = Field(default="", description="TOML file of AI providers, models and aliases.")
    metrics_host: str = Field(default="127.0.0.1", description="Address a worker serves /metrics on.")
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Port for /metrics; 0 takes a free one.")

    # the local stack
    state_dir: Path = Field(default=Path(".ish"), description="Folder of the local stack: data, secrets, logs.")
    cache_dir: Path | None = Field(default=None, description="Where downloaded service binaries are kept.")
    port_offset: int = Field(default=0, ge=0, le=40000, description="Added to every default port of the local stack.")

    # promises and limits
    command_deadline_seconds: float = Field(
        default=3600, gt=0, le=7 * 86400, description="Deadline of a command that names none."
    )
    max_attempts: int = Field(
        default=8, ge=1, le=100, description="Runs of a command before a transient error is final."
    )
    lease_seconds: float = Field(
        default=6, ge=1, le=300, description="A worker silent for this long has lost its commands."
    )
    heartbeat_seconds: float = Field(default=1.5, ge=0.1, le=60, description="How often a worker says that it lives.")
    stop_grace_seconds: float = Field(
        default=15, ge=0, le=600, description="Time a stopping worker has to finish what it holds."
    )
    publish_timeout_seconds: float = Field(default=1.5, gt=0, le=60, description="Wait for a broker's confirm.")
    watchdog_seconds: float = Field(
        default=30, ge=1, le=3600, description="A worker without a live consumer for this long exits."
    )
    batch_size: int = Field(default=200, ge=1, le=1000, description="Commands in one transaction, at the most.")
    relay_prefetch: int = Field(default=400, ge=1, le=2000, description="Relay deliveries held by one worker.")
    ai_prefetch: int = Field(default=50, ge=1, le=2000, description="AI calls in flight in one worker.")
    ai_batch_prefetch: int = Field(
        default=10, ge=1, le=2000, description="AI calls of priority `batch` in flight in one worker."
    )
    ai_calls_per_command: int = Field(
        default=3, ge=1, le=20, description="Calls of providers that one command may cost."
    )
    ai_retry_budget: float = Field(
        default=0.1, ge=0, le=1, description="Extra calls, as a share of first ones, that are made at once."
    )
    android_prefetch: int = Field(default=20, ge=1, le=500, description="Android commands in flight in one worker.")
    postgres_pool_size: int = Field(default=3, ge=2, le=100, description="Connections of one process to PostgreSQL.")
    body_limit_bytes: int = Field(
        default=1024 * 1024, ge=1024, le=16 * 1024 * 1024, description="Largest request body, and largest command."
    )
    queue_max_length: int = Field(
        default=2_000_000, ge=1000, description="Commands a work queue holds before publishes are refused."
    )
    result_cache_seconds: int = Field(
        default=3600, ge=0, description="How long Redis keeps a finished command's result."
    )
    key_cache_seconds: float = Field(
        default=4, gt=0, le=5, description="Age at which a cached API key is checked again."
    )
    key_grace_seconds: float = Field(
        default=300, ge=0, description="How long known keys are honoured while PostgreSQL is away."
    )
    outbox_after_seconds: float = Field(default=5, gt=0, description="Age of an unconfirmed reply that is sent again.")
    outbox_give_up_seconds: float = Field(
        default=86400, gt=0, description="Age of a reply that is given up as undeliverable."
    )
    artifact_retention_days: int = Field(
        default=30, ge=1, le=36500, description="Days that artifacts (screenshots, recordings, uploads) are kept."
    )
    artifact_limit_bytes: int = Field(
        default=32 * 1024 * 1024,
        ge=1024,
        le=256 * 1024 * 1024,
        description="Largest picture, recording or file that is taken from a phone.",
    )
    upload_limit_bytes: int = Field(
        default=1024**3, ge=1024, le=64 * 1024**3, description="Largest artifact that may be uploaded."
    )
    upload_expiry_seconds: float = Field(
        default=86400, ge=60, description="Time without a new byte after which an unfinished upload is removed."
    )
    retention_days: int = Field(
        default=90,
        ge=1,
        le=36500,
        description="Days that finished commands are kept, with their keys, attempts, ended deliveries and dead letters.",
    )
    message_retention_days: int = Field(
        default=365, ge=1, le=36500, description="Days that messages are kept, and conversations without any."
    )
    audit_retention_days: int = Field(default=730, ge=1, le=36500, description="Days that the audit log is kept.")
    key_retention_days: int = Field(
        default=90, ge=1, le=36500, description="Days that API keys are kept after they were revoked or ran out."
    )
    target_retention_days: int = Field(
        default=90, ge=1, le=36500, description="Days that delivery targets are kept after they were removed."
    )
    device_retention_days: int = Field(
        default=90, ge=8, le=36500, description="Days that a phone is kept on record after it was last seen."
    )
    delivery_allow_http: bool = Field(default=False, description="Allow http:// delivery targets.")
    delivery_allow_private: bool = Field(
        default=False, description="Allow delivery targets on private or loopback addresses."
    )
    delivery_give_up_seconds: float = Field(default=86400, gt=0, description="Age of a delivery that is given up.")

    # what is logged, and how
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is logged."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="json, text, or text only in a terminal."
    )

    # faults for tests
    kill_point: str = Field(
        default="",
        pattern=r"^$|^(before_claim|after_claim|after_effect|after_commit|after_ack|after_reply)(@\d+)?$",
        description="Test aid: the worker kills itself with SIGKILL the Nth time that it passes this point.",
    )
    kill_mark: str = Field(default="", description="Test aid: file that receives one line right before the kill.")

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then files, then the environment."""
        del dotenv_settings, file_secret_settings
        return init_settings, _FromFiles(settings_cls), env_settings

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_printed_secrets(cls, value: Any) -> Any:
        if isinstance(value, str):
            refuse_printed_secret(value)
        return value

    @field_validator(*FORMS, mode="after")
    @classmethod
    def _refuse_no_address(cls, value: str, info: ValidationInfo) -> str:
        check(info.field_name or "", value)
        return value

    @model_validator(mode="after")
    def _complete_addresses(self) -> Self:
        if self.ca_file is not None and not self.ca_file.is_file():
            raise ValueError(f"ISH_CA_FILE: there is no file {self.ca_file}")
        if self.ca_file is not None:
            check_authority(self.ca_file)
        for name in FORMS:
            self.__dict__[name] = completed(getattr(self, name), ca_file=self.ca_file)
        return self

    @field_validator("adb_servers", mode="after")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        read_addresses(value, default_port=ADB_PORT)
        return value

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            sentence = "ISH_HEARTBEAT_SECONDS must be at most half of ISH_LEASE_SECONDS"
            raise ValueError(sentence)
        return self

    def require(self, *names: str) -> None:
        """Stop the process, in one line, unless these settings are given.

        Args:
            names: Fields that this process cannot do without.
        """
        for name in names:
            if not getattr(self, name):
                stop(f"{_PREFIX}{name.upper()} is not set: {type(self).model_fields[name].description}")


def refuse_printed_secret(value: str) -> None:
    """Refuse a value that is, or contains as a URL's password, one of the old system's printed secrets.

    Args:
        value: A setting, a key or a URL.

    Raises:
        ValueError: It is one of them; the message does not repeat it.
    """
    if any(secret in value for secret in REFUSED_SECRETS):
        sentence = "this secret was printed in public reports: generate a new one"
        raise ValueError(sentence)


def read_settings(**overrides: Any) -> Settings:
    """Read the settings, or end the process with one line that names the variable and the rule.

    Args:
        overrides: Fields given by the caller; they win over files and the environment.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        said = rule_of(first)
        stop(f"{_PREFIX}{place.upper()}: {said}" if place else said)
    except ValueError as error:
        stop(str(error))


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return read_settings()


def secret_from_environment(name: str) -> str | None:
    """A secret that the operator names by its variable (`api_key_env` of a provider).

    Args:
        name: The variable; any name, since vendors' own are customary (`ZAI_API_KEY`).
    """
    return os.environ.get(name) or None  # noqa: TID251  # this module owns the environment


def child_environment(extra: Mapping[str, str], *, drop_prefix: str = _PREFIX) -> dict[str, str]:
    """The environment for a process that the stack starts.

    Args:
        extra: Variables to set.
        drop_prefix: Inherited variables with this prefix are left out, so that a child sees only what it is given.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(drop_prefix)}  # noqa: TID251  # this module owns the environment
    return {**inherited, **extra}


def stop(sentence: str, *, code: int = 2) -> NoReturn:
    """End the process with one line on standard error.

    Args:
        sentence: What is wrong and what to do.
        code: The exit status; 2 is for settings, as shells use it for usage.
    """
    sys.stderr.write(f"ish: {plain(' '.join(sentence.splitlines()))}\n")
    raise SystemExit(code)
