"""Which addresses a webhook may go to."""

from ipaddress import ip_address

import pytest

from workers.outbox.webhooks.addresses import ForbiddenTarget, Rules, check_url, is_public

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
        "3fff::1",
        "5f00::1",
        "fec0::1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "2001:4860:4860::8888%lo",
        "192.88.99.1",
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
        ("https://１２７.0.0.1/", "127.0.0.1 is not a public address"),  # noqa: RUF001  # full-width digits
        ("https://127。0。0。1/", "127.0.0.1 is not a public address"),
        ("https://127．0｡0．1/", "127.0.0.1 is not a public address"),  # noqa: RUF001
        ("https://①②⑦.⓪.⓪.①/", "127.0.0.1 is not a public address"),
        ("https://𝟏𝟐𝟕.𝟎.𝟎.𝟏/", "127.0.0.1 is not a public address"),  # noqa: RUF001
        ("https://１６９.254.169.254/latest", "169.254.169.254 is not a public address"),  # noqa: RUF001
        ("https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", "localhost is this machine"),
        ("https://ｌocalhost/", "localhost is this machine"),  # noqa: RUF001
        ("https://LOCALHOST./", "this machine"),
        ("https://a.localhost/", "this machine"),
        ("https://127.0.0.1./", "four numbers"),
        ("https://127.1/", "four numbers"),
        ("https://2130706433/", "four numbers"),
        ("https://0x7f000001/", "four numbers"),
        ("https://0x7f.0.0.1/", "four numbers"),
        ("https://0177.0.0.1/", "four numbers"),
        ("https://017700000001/", "four numbers"),
        ("https://127.0.0.0x1/", "four numbers"),
        ("https://127.0.0.256/", "four numbers"),
        ("https://[::ffff:127.0.0.1]/", "not a public address"),
        ("https://[::ffff:7f00:1]/", "not a public address"),
        ("https://[64:ff9b::127.0.0.1]/", "not a public address"),
        ("https://[::127.0.0.1]/", "not a public address"),
        ("https://[fe80::1%25eth0]/", "not a "),
        ("https://[2001:4860:4860::8888%25lo]/", "not a "),
        ("https://example.org@127.0.0.1/", "user or password"),
        ("https://@127.0.0.1/", "user or password"),
        ("https://example.org\\@127.0.0.1/", "not a URL"),
        ("https://127%2e0.0.1/", "not a host's name|four numbers"),
        ("https://example.org%00.a/", "not a host's name"),
        ("https:127.0.0.1/", "no host"),
        ("https:\\\\127.0.0.1/", "no host"),
        ("https://example.org/a b", "no blanks"),
        ("https://example.org/\n", "no blanks"),
        ("https://example.org/" + "a" * 2000, "at most 2000"),
    ],
)
def test_anything_else_is_refused_with_the_rule(url: str, rule: str) -> None:
    with pytest.raises(ForbiddenTarget, match=rule):
        check_url(url, STRICT)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://８.8.8.8/", "8.8.8.8"),  # noqa: RUF001
        ("https://ｅxample.org/", "example.org"),  # noqa: RUF001
        ("https://müller.example/", "xn--mller-kva.example"),
        ("https://example.org./", "example.org."),
        ("https://3com.example/a@b", "3com.example"),
    ],
)
def test_what_is_checked_is_what_is_dialled(url: str, host: str) -> None:
    assert check_url(url, STRICT).raw_host == host


def test_settings_may_allow_http_and_private_addresses_but_never_another_scheme() -> None:
    open_rules = Rules(allow_http=True, allow_private=True)

    check_url("http://127.0.0.1:8080/hook", open_rules)
    with pytest.raises(ForbiddenTarget):
        check_url("gopher://127.0.0.1/", open_rules)
    with pytest.raises(ForbiddenTarget):
        check_url("http://127.0.0.1/", Rules(allow_http=True))
