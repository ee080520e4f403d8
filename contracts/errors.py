"""The error tree: what can go wrong with a command, split by what is to be done about it.

    CommandError
    |-- Transient       try again later; waits in the broker   -> retrying, then failed when attempts are used up
    |   `-- Deferred    nothing was tried: no attempt is spent -> retrying, until the deadline
    |-- Permanent       the same input fails the same way       -> failed (also a dead letter)
    |-- Expired         its deadline passed                     -> expired
    |-- Cancelled       its owner stopped it                    -> cancelled
    `-- Indeterminate   an effect may or may not have happened  -> indeterminate, never run again

Adapters (providers, adb, Postgres) translate their vendor's exceptions into these at their edge.
"""

from enum import StrEnum, unique
from typing import Any


@unique
class ErrorCode(StrEnum):
    """Every code a result, a dead letter or a problem document may carry. Additive: never renamed, never reused."""

    # what is wrong with a message
    NOT_JSON = "not_json"
    NO_MESSAGE_ID = "no_message_id"
    BAD_MESSAGE_ID = "bad_message_id"
    NO_USER_ID = "no_user_id"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_VERSION = "unknown_version"
    INVALID_PAYLOAD = "invalid_payload"
    INVALID_HEADER = "invalid_header"
    FOREIGN_REPLY_TO = "foreign_reply_to"
    ID_REUSED = "id_reused"
    WRONG_QUEUE = "wrong_queue"
    FORBIDDEN_KIND = "forbidden_kind"
    # what became of a command
    POISON = "poison"
    DELIVERY_LIMIT = "delivery_limit"
    UNROUTABLE = "unroutable"
    UNDELIVERABLE = "undeliverable"
    DEADLINE_PASSED = "deadline_passed"
    CANCELLED = "cancelled"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    UNREPRESENTABLE = "unrepresentable"
    INTERNAL = "internal"
    INDETERMINATE = "indeterminate"
    # providers
    PROVIDER_NOT_CONFIGURED = "provider_not_configured"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    PROVIDER_RATE_LIMITED = "provider_rate_limited"
    PROVIDER_TIMEOUT = "provider_timeout"
    PROVIDER_REJECTED = "provider_rejected"
    PROVIDER_AUTHENTICATION = "provider_authentication"
    PROVIDER_MALFORMED = "provider_malformed"
    PROVIDER_INCOMPLETE = "provider_incomplete"
    CONTENT_REFUSED = "content_refused"
    CONTEXT_TOO_LONG = "context_too_long"
    MODEL_NOT_FOUND = "model_not_found"
    NO_CAPACITY = "no_capacity"
    # devices
    DEVICE_NOT_CONFIGURED = "device_not_configured"
    DEVICE_NOT_FOUND = "device_not_found"
    DEVICE_OFFLINE = "device_offline"
    DEVICE_UNAUTHORIZED = "device_unauthorized"
    DEVICE_UNSUPPORTED = "device_unsupported"
    ADB_SERVER_DOWN = "adb_server_down"
    TIMEOUT = "timeout"
    NONZERO_EXIT = "nonzero_exit"
    DENIED = "denied"
    UNSUPPORTED_TEXT_INPUT = "unsupported_text_input"
    BAD_SCREENSHOT = "bad_screenshot"
    DEVICE_BUSY = "device_busy"
    ELEMENT_NOT_FOUND = "element_not_found"
    TRUNCATED = "truncated"
    FLOW_FAILED = "flow_failed"
    SECRET_GONE = "secret_gone"  # noqa: S105  # a code


class CommandError(Exception):
    """A command could not be finished as asked.

    Args:
        code: What happened, from the closed list.
        message: One sentence for a person: what is wrong and, where it can be said, what to do.
        details: JSON-ready facts for programs (a provider's status, a field's path); never prompts, keys or replies.
    """

    retryable = False

    def __init__(self, code: ErrorCode, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}
        self.spent: Any = None
        """What the failed run used all the same (a worker's `Usage`); set by the handler."""


class Transient(CommandError):
    """Worth trying again.

    Args:
        code: As in CommandError.
        message: As in CommandError.
        retry_after_seconds: The wait the other side asked for; None lets the retry policy choose.
        details: As in CommandError.
    """

    retryable = True

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(code, message, details=details)
        self.retry_after_seconds = retry_after_seconds


class Deferred(Transient):
    """Nothing was tried, because there is no capacity for it now: it waits without spending an attempt."""


class Permanent(CommandError):
    """The same input would fail the same way."""


class Expired(CommandError):
    """The command's deadline passed before it was finished."""


class Cancelled(CommandError):
    """The command's owner stopped it while it ran; `details` say what had its effect before."""


class Indeterminate(CommandError):
    """An effect that must not be repeated may have happened; a person has to look."""
