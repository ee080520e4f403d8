"""The least that asking a provider can cost: plain httpx, so many calls at once, nothing recorded; a process of its own.

`python -m tests.benchmarks.bare_calls ADDRESS COUNT PLACES`; prints the seconds that it took.
"""

import asyncio
import sys
import time

import httpx
import uvloop

_PATIENCE_SECONDS = 120.0


async def ask(address: str, count: int, places: int) -> float:
    """Ask.

    Args:
        address: The provider's base URL.
        count: How many questions.
        places: Calls at once.

    Returns:
        Seconds from the first call to the last answer.
    """
    left = iter(range(count))
    limits = httpx.Limits(max_connections=places, max_keepalive_connections=places)
    async with httpx.AsyncClient(timeout=_PATIENCE_SECONDS, limits=limits, trust_env=False) as client:

        async def serve() -> None:
            for number in left:
                body = {"model": "steady", "messages": [{"role": "user", "content": f"question {number}"}]}
                answer = await client.post(f"{address}/chat/completions", json=body)
                answer.raise_for_status().json()

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(places):
                group.create_task(serve())
    return time.perf_counter() - started


if __name__ == "__main__":
    print(uvloop.run(ask(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
