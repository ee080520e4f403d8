"""Decides which addresses a webhook may go to, so that nobody makes this machine talk to its own network (SSRF).

https to public addresses only, unless the settings allow more. What is checked is what is dialled: a URL is read once, by
the parser of the HTTP client, which also turns full-width digits and other characters into those that they stand for, and
that reading goes to the client. Names are checked when they are resolved (`resolver`), and whoever is connected to is
checked again before anything is sent (`webhooks`).
Source: OWASP's SSRF prevention cheat sheet; IANA's special-purpose address registries, through `ipaddress`.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from yarl import URL

MAX_URL_CHARACTERS = 2000
_EMBEDS_IPV4 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("2002::/16"))
"""NAT64 and 6to4: the address behind them is another one."""
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_NOT_GLOBAL = (IPv4Network("192.88.99.0/24"), IPv6Network("3fff::/20"))
"""6to4 relays, and documentation, which Python 3.11 takes for global."""
_ENDS_IN_A_NUMBER = re.compile(r"(^|\.)([0-9]+|0[xX][0-9a-fA-F]*)$")
"""What resolvers read as an IPv4 address in octal, hexadecimal or fewer parts (WHATWG URL, "ends in a number")."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


class ForbiddenTarget(Exception):
    """A webhook must not go there; the sentence says why and names no more than the host."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings allow beyond https to public addresses."""

    allow_http: bool = False
    allow_private: bool = False


def check_url(url: str, rules: Rules) -> URL:
    """Refuse a URL that no webhook may go to; names are checked when they are resolved.

    Args:
        url: A target's URL.
        rules: What is allowed.

    Returns:
        The URL as it was checked, for the client to connect to.

    Raises:
        ForbiddenTarget: With the rule.
    """
    if len(url) > MAX_URL_CHARACTERS or any(character <= " " or character == "\x7f" for character in url):
        raise ForbiddenTarget(f"a URL has at most {MAX_URL_CHARACTERS} characters and no blanks")
    try:
        parts = URL(url)
        host, _ = parts.raw_host, parts.port
    except ValueError as error:  # a UnicodeError too: a name that IDNA has no form for
        raise ForbiddenTarget(f"not a URL: {error}") from error
    if parts.scheme not in (("https", "http") if rules.allow_http else ("https",)):
        raise ForbiddenTarget("the URL must begin with https://")
    if not host:
        raise ForbiddenTarget("the URL names no host")
    if "@" in parts.raw_authority or "@" in url.partition("//")[2].partition("/")[0]:
        raise ForbiddenTarget("the URL must not carry a user or password")
    _check_host(host, rules)
    return parts


def _check_host(host: str, rules: Rules) -> None:
    literal = literal_address(host)
    if literal is None:
        name = host.removesuffix(".")
        if _ENDS_IN_A_NUMBER.search(name):
            raise ForbiddenTarget(f"{host} is no name: write an address as four numbers, such as 192.0.2.1")
        if not _NAME.fullmatch(name):
            raise ForbiddenTarget(f"{host} is not a host's name")
        if means_this_machine(name) and not rules.allow_private:
            raise ForbiddenTarget(f"{host} is this machine, not a public address")
    elif not (rules.allow_private or is_public(literal)):
        raise ForbiddenTarget(f"{host} is not a public address")


def means_this_machine(name: str) -> bool:
    """Whether a name means this machine by RFC 6761, written down in /etc/hosts or not.

    Args:
        name: A host's.
    """
    name = name.removesuffix(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is reachable from the internet at large, whatever it embeds.

    Args:
        address: As resolved.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.scope_id is not None or address not in _GLOBAL_IPV6 or address.teredo is not None:
            return False
        if any(address in network for network in _EMBEDS_IPV4):
            return False
    if any(address in network for network in _NOT_GLOBAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def literal_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as a number; None for a name.

    Args:
        text: A host.
    """
    try:
        return ip_address(text)
    except ValueError:
        return None
