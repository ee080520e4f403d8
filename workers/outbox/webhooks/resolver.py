"""Resolves a webhook's host to checked addresses only.

A name is resolved once per connection, every answer is checked, and the connection goes to a checked address: a name
that resolves differently a moment later gains nothing.
"""

import asyncio
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

from workers.outbox.webhooks.addresses import ForbiddenTarget, Rules, is_public, literal_address, means_this_machine

_LOOPBACK = "127.0.0.1"


class CheckedResolver(AbstractResolver):
    """Resolves a name and gives only addresses that a webhook may go to.

    Args:
        rules: What is allowed.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve once.

        Args:
            host: A name.
            port: Passed through.
            family: AF_UNSPEC for both.

        Raises:
            ForbiddenTarget: No address of it is allowed.
            OSError: It cannot be resolved.
        """
        # RFC 6761: these names mean this machine, whether or not somebody has written that down in /etc/hosts
        name = _LOOPBACK if means_this_machine(host) else host
        found = await asyncio.get_running_loop().getaddrinfo(name, port, family=family, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for resolved_family, _, protocol, _, address in found:
            literal = literal_address(str(address[0]))
            if literal is not None and (self._rules.allow_private or is_public(literal)):
                results.append(
                    ResolveResult(
                        hostname=host,
                        host=str(address[0]),
                        port=port,
                        family=resolved_family,
                        proto=protocol,
                        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                    )
                )
        if not results:
            raise ForbiddenTarget(f"{host} has no public address")
        return results

    @override
    async def close(self) -> None:
        """Nothing is held."""
