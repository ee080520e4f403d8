"""`GET /v1/models`: the aliases and models that AI workers are configured for, as they have recorded them."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Response

from gateway.container import Parts
from gateway.dependencies import Owner, PartsOf
from gateway.http.problems import Problem, ProblemType, storage_away
from gateway.services.database import DatabaseAway

router = APIRouter(tags=["openai"])

_READ_SECONDS = 2.0

# Workers write every row again each minute: what they do not write any more is configured no longer. While none of them
# runs, what was there last is shown, for commands are accepted and wait for them.
_LISTED = """
select name, kind, provider, context_tokens, capabilities, policy, models from ai_models
where seen_at > (select max(seen_at) from ai_models) - interval '3 min'
order by kind, name
"""


@router.get("/v1/models", response_class=Response)
async def list_models(parts: PartsOf, owner: Owner) -> Response:
    """What `model` of a request may be: aliases, then models as `provider/model`."""
    del owner  # models belong to the installation; a key is all it takes to see them
    return _json({"object": "list", "data": [_shown(row) for row in await _rows(parts)]})


@router.get("/v1/models/{model:path}", response_class=Response)
async def read_model(parts: PartsOf, owner: Owner, model: Annotated[str, Path(max_length=256)]) -> Response:
    """One of them; a model may also be named without its provider."""
    del owner
    rows = await _rows(parts)
    found = [row for row in rows if row["name"] == model] or [
        row for row in rows if row["kind"] == "model" and row["name"].partition("/")[2] == model
    ]
    if not found:
        raise Problem(
            ProblemType.NOT_FOUND,
            f"The model {model[:64]!r} does not exist.",
            errors=[{"field": "model", "rule": "must exist"}],
            members={"code": "model_not_found"},
        )
    return _json(_shown(found[0]))


async def _rows(parts: Parts) -> list[Any]:
    try:
        return await parts.database.fetch(_LISTED, timeout_seconds=_READ_SECONDS)
    except DatabaseAway:
        raise storage_away() from None


def _shown(row: Any) -> dict[str, Any]:
    more = {"policy": row["policy"], "models": row["models"]} if row["kind"] == "alias" else {}
    return {
        "id": row["name"],
        "object": "model",
        "created": 0,  # nobody knows; the form wants a number
        "owned_by": row["provider"] or "ish-chat",
        "context_tokens": row["context_tokens"],
        "capabilities": row["capabilities"],
        **more,
    }


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
