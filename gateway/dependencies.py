"""What routes are given: the gateway's parts, and the owner of the request's API key."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.container import Parts
from gateway.http.request import headers_of


async def _parts(request: Request) -> Parts:
    # not a plain function: FastAPI would run that in a thread
    parts: Parts = request.app.state.parts
    return parts


PartsOf = Annotated[Parts, Depends(_parts)]


async def _owner(request: Request, parts: PartsOf) -> str:
    return await parts.keys.owner_of(headers_of(request.scope))


Owner = Annotated[str, Depends(_owner)]
