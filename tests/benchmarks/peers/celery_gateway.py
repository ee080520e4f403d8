"""The usual way to build it: FastAPI checks the body, Celery's `.delay()` queues it, 202 is answered."""

from datetime import datetime
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field

from tests.benchmarks.peers.celery_app import record

app = FastAPI()


class Relay(BaseModel):
    """The same body as our relay takes."""

    sender: Literal["user", "bot"]
    message: str = Field(min_length=1, max_length=10_000)
    timestamp: datetime
    metadata: dict[str, Any] = {}


@app.post("/api/relay", status_code=202)
async def relay(body: Relay) -> dict[str, str]:
    """Queue one message; run in the event loop, which was faster than FastAPI's thread pool."""
    return {"id": record.delay(body.model_dump(mode="json")).id, "status": "queued"}
