"""Which addresses a webhook may go to."""

from ipaddress import ip_address

import pytest

from workers.outbox.addresses import ForbiddenTarget, Rules, check_url, is_public

STRICT = Rules()


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",  # noqa: S104  # refused, not bound
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
    ],
)
def test_other_addresses_are_not(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("url", ["https://example.org/hook", "https://example.org:8443/a?b=c", "https://8.8.8.8/"])
def test_https_to_a_public_place_is_allowed(url: str) -> None:
    check_url(url, STRICT)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://example.org/", "https://"),
        ("ftp://example.org/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("example.org/hook", "https://"),
        ("https:///hook", "no host"),
        ("https://user:pw@example.org/", "user or password"),
        ("https://example.org:99999/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://127.0.0.1/", "not a public address"),
        ("https://[::1]/", "not a public address"),
        ("https://169.254.169.254/latest/meta-data", "not a public address"),
        ("https://example.org/a b", "no blanks"),
        ("https://example.org/\n", "no blanks"),
        ("https://example.org/" + "a" * 2000, "at most 2000"),
    ],
)
def test_anything_else_is_refused_with_the_rule(url: str, rule: str) -> None:
    with pytest.raises(ForbiddenTarget, match=rule):
        check_url(url, STRICT)


def test_settings_may_allow_http_and_private_addresses_but_never_another_scheme() -> None:
    open_rules = Rules(allow_http=True, allow_private=True)

    check_url("http://127.0.0.1:8080/hook", open_rules)
    with pytest.raises(ForbiddenTarget):
        check_url("gopher://127.0.0.1/", open_rules)
    with pytest.raises(ForbiddenTarget):
        check_url("http://127.0.0.1/", Rules(allow_http=True))
