from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.errors import CommandError, ErrorCode, Permanent, Transient
from workers.ai.providers import DIALECTS
from workers.ai.providers.errors import judge, retry_after_seconds

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SECRET = "a quote of the prompt"


def judged(
    *, status: int, error: dict[str, Any] | None = None, dialect: str = "openai", **headers: str
) -> CommandError:
    body = None if error is None else {"error": {"message": SECRET, **error}}
    lower = {name.replace("_", "-"): value for name, value in headers.items()}
    table = DIALECTS[dialect].errors
    return judge(provider="p", model="m", table=table, status=status, headers=lower, body=body, now=NOW)


ZAI_TABLE: list[tuple[type[CommandError], ErrorCode, float | None, list[int]]] = [
    (Transient, ErrorCode.PROVIDER_RATE_LIMITED, 1.0, [1302, 1303]),
    (Transient, ErrorCode.PROVIDER_UNAVAILABLE, None, [1305, 1312]),
    (Transient, ErrorCode.PROVIDER_RATE_LIMITED, 3600.0, [1304, 1308, 1310]),
    (Transient, ErrorCode.PROVIDER_RATE_LIMITED, 600.0, [1313]),
    (
        Permanent,
        ErrorCode.PROVIDER_AUTHENTICATION,
        None,
        [1000, 1001, 1002, 1003, 1004, 1110, 1111, 1112, 1113, 1121, 1309, 1311],
    ),
    (Permanent, ErrorCode.PROVIDER_REJECTED, None, [1210, 1212, 1213, 1214, 1215]),
    (Permanent, ErrorCode.MODEL_NOT_FOUND, None, [1211, 1220, 1221, 1222]),
    (Permanent, ErrorCode.CONTEXT_TOO_LONG, None, [1261]),
    (Permanent, ErrorCode.CONTENT_REFUSED, None, [1301]),
    (Transient, ErrorCode.PROVIDER_UNAVAILABLE, None, [500, 1120, 1200, 1230, 1234]),
    (Transient, ErrorCode.PROVIDER_UNAVAILABLE, 5.0, [1231]),
]


@pytest.mark.parametrize("status", [200, 400, 429, 500])
@pytest.mark.parametrize(
    ("kind", "code", "wait", "zai_code"),
    [(kind, code, wait, number) for kind, code, wait, numbers in ZAI_TABLE for number in numbers],
)
def test_the_code_in_the_body_of_zai_decides_over_the_http_status(
    kind: type[CommandError], code: ErrorCode, wait: float | None, zai_code: int, status: int
) -> None:
    error = judged(status=status, error={"code": str(zai_code)}, dialect="zai")

    assert type(error) is kind
    assert error.code == code
    assert getattr(error, "retry_after_seconds", None) == wait
    assert error.details["provider_code"] == str(zai_code)


def test_a_used_up_quota_of_zai_waits_until_the_reset_that_its_text_names() -> None:
    text = "Usage limit reached. Your limit will reset at 2026-05-01 20:30:00"  # half an hour from now, in Beijing

    error = judged(status=429, error={"code": "1308", "message": text}, dialect="zai")

    assert isinstance(error, Transient)
    assert error.retry_after_seconds == 1800.0
    assert error.details["cooldown_seconds"] == 1800.0


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (429, {"code": "rate_limit_exceeded"}, Transient, ErrorCode.PROVIDER_RATE_LIMITED),
        (429, None, Transient, ErrorCode.PROVIDER_RATE_LIMITED),
        (429, {"code": "insufficient_quota"}, Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
        (429, {"type": "insufficient_quota", "code": None}, Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
        (429, {"code": "credit_balance_exhausted"}, Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
        (500, None, Transient, ErrorCode.PROVIDER_UNAVAILABLE),
        (502, None, Transient, ErrorCode.PROVIDER_UNAVAILABLE),
        (503, {"code": "server_is_overloaded"}, Transient, ErrorCode.PROVIDER_UNAVAILABLE),
        (504, None, Transient, ErrorCode.PROVIDER_TIMEOUT),
        (529, {"type": "overloaded_error"}, Transient, ErrorCode.PROVIDER_UNAVAILABLE),
        (599, None, Transient, ErrorCode.PROVIDER_UNAVAILABLE),
        (501, None, Permanent, ErrorCode.PROVIDER_REJECTED),
        (408, None, Transient, ErrorCode.PROVIDER_TIMEOUT),
        (401, None, Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
        (402, None, Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
        (403, None, Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
        (404, {"code": "model_not_found"}, Permanent, ErrorCode.MODEL_NOT_FOUND),
        (404, None, Permanent, ErrorCode.MODEL_NOT_FOUND),
        (400, {"code": "model_not_found"}, Permanent, ErrorCode.MODEL_NOT_FOUND),
        (400, {"code": "context_length_exceeded"}, Permanent, ErrorCode.CONTEXT_TOO_LONG),
        (400, {"code": 400, "type": "exceed_context_size_error"}, Permanent, ErrorCode.CONTEXT_TOO_LONG),
        (400, {"message": "This model's maximum context length is 8"}, Permanent, ErrorCode.CONTEXT_TOO_LONG),
        (400, {"code": "content_filter"}, Permanent, ErrorCode.CONTENT_REFUSED),
        (400, {"param": "temperature"}, Permanent, ErrorCode.PROVIDER_REJECTED),
        (422, None, Permanent, ErrorCode.PROVIDER_REJECTED),
        (301, None, Permanent, ErrorCode.PROVIDER_REJECTED),
        (200, {"code": "server_error"}, Transient, ErrorCode.PROVIDER_UNAVAILABLE),
        (200, {"code": 502}, Transient, ErrorCode.PROVIDER_UNAVAILABLE),
        (200, {"code": 401}, Permanent, ErrorCode.PROVIDER_AUTHENTICATION),
        (200, {"code": "unheard_of"}, Transient, ErrorCode.PROVIDER_MALFORMED),
    ],
)
def test_a_failure_of_an_openai_style_server_means_what_its_code_or_else_its_status_says(
    status: int, error: dict[str, Any] | None, kind: type[CommandError], code: ErrorCode
) -> None:
    verdict = judged(status=status, error=error)

    assert type(verdict) is kind
    assert verdict.code == code
    assert SECRET not in verdict.message
    assert SECRET not in str(verdict.details)


@pytest.mark.parametrize("body", [None, [], "text", {"error": "text"}, {"error": ["x"]}, {"error": {"code": {"a": 1}}}])
def test_an_error_body_of_any_shape_leaves_the_status_to_decide(body: Any) -> None:
    table = DIALECTS["zai"].errors
    verdict = judge(provider="p", model="m", table=table, status=503, headers={}, body=body, now=NOW)

    assert verdict.code == ErrorCode.PROVIDER_UNAVAILABLE


def test_details_name_what_a_person_needs_to_ask_the_provider() -> None:
    verdict = judged(status=400, error={"code": "bad", "param": "messages[0].content"}, x_request_id="req-1")

    assert verdict.details == {
        "provider": "p",
        "model": "m",
        "scope": "request",
        "begun": False,
        "status": 400,
        "provider_code": "bad",
        "parameter": "messages[0].content",
        "provider_request_id": "req-1",
    }


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("20", 20.0),
        ("0.5", 0.5),
        ("Fri, 01 May 2026 12:00:45 GMT", 45.0),
        ("Fri, 01 May 2026 11:00:00 GMT", 0.0),
        ("999999999", 7 * 86400.0),
        ("-5", None),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": value}, now=NOW) == seconds


def test_the_wait_that_the_provider_asks_for_wins_over_the_tables() -> None:
    error = judged(status=429, error={"code": "1302"}, dialect="zai", retry_after="20")

    assert isinstance(error, Transient)
    assert error.retry_after_seconds == 20.0


@pytest.mark.parametrize(
    ("status", "error", "code", "dead"),
    [
        (400, {"type": "invalid_request_error"}, ErrorCode.PROVIDER_REJECTED, None),
        (
            400,
            {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"},
            ErrorCode.CONTEXT_TOO_LONG,
            None,
        ),
        (
            400,
            {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API"},
            ErrorCode.PROVIDER_AUTHENTICATION,
            True,
        ),
        (401, {"type": "authentication_error"}, ErrorCode.PROVIDER_AUTHENTICATION, True),
        (402, {"type": "billing_error"}, ErrorCode.PROVIDER_AUTHENTICATION, True),
        (403, {"type": "permission_error"}, ErrorCode.PROVIDER_AUTHENTICATION, True),
        (404, {"type": "not_found_error"}, ErrorCode.MODEL_NOT_FOUND, None),
        (413, {"type": "request_too_large"}, ErrorCode.PROVIDER_REJECTED, None),
        (429, {"type": "rate_limit_error"}, ErrorCode.PROVIDER_RATE_LIMITED, None),
        (
            429,
            {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}},
            ErrorCode.PROVIDER_AUTHENTICATION,
            True,
        ),
        (500, {"type": "api_error"}, ErrorCode.PROVIDER_UNAVAILABLE, None),
        (504, {"type": "timeout_error"}, ErrorCode.PROVIDER_TIMEOUT, None),
        (529, {"type": "overloaded_error"}, ErrorCode.PROVIDER_UNAVAILABLE, None),
        (200, {"type": "overloaded_error"}, ErrorCode.PROVIDER_UNAVAILABLE, None),
    ],
)
def test_a_failure_of_anthropic_means_what_its_type_or_else_its_status_says(
    status: int, error: dict[str, Any], code: ErrorCode, *, dead: bool | None
) -> None:
    verdict = judged(status=status, error=error, dialect="anthropic")

    assert verdict.code == code
    assert verdict.details.get("dead") is dead


def test_a_used_up_limit_of_openai_cools_down_until_the_headers_say_it_is_filled() -> None:
    error = judged(
        status=429,
        error={"code": "rate_limit_exceeded"},
        x_ratelimit_remaining_requests="0",
        x_ratelimit_reset_requests="1m30.5s",
        x_ratelimit_remaining_tokens="100",
        x_ratelimit_reset_tokens="6h0m0s",
    )

    assert isinstance(error, Transient)
    assert error.retry_after_seconds == 90.5
    assert error.details["cooldown_seconds"] == 90.5


@pytest.mark.parametrize("reset", ["", "soon", "-1s", "1s later"])
def test_a_reset_that_cannot_be_read_leaves_the_wait_open(reset: str) -> None:
    error = judged(status=429, x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests=reset)

    assert isinstance(error, Transient)
    assert error.retry_after_seconds is None
    assert "cooldown_seconds" not in error.details


def test_a_wait_for_the_same_request_cools_nothing_else_down() -> None:
    error = judged(status=409, retry_after="3")

    assert isinstance(error, Transient)
    assert error.retry_after_seconds == 3.0
    assert "cooldown_seconds" not in error.details


def test_too_much_at_once_is_to_be_answered_with_fewer_calls_in_flight() -> None:
    error = judged(status=429, error={"code": "1302"}, dialect="zai")

    assert error.details["shrink"] is True
    assert "cooldown_seconds" not in error.details


def test_milliseconds_are_read_where_the_provider_names_them() -> None:
    assert retry_after_seconds({"retry-after-ms": "250", "retry-after": "1"}, now=NOW) == 0.25
