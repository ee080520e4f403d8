"""The Perplexity app as routes: each makes an `android.execute` command that runs one flow of that app on a phone.

Accepted, waited for and read like every command; the flows themselves are the workers'.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson
from pydantic import Field, ValidationError
from starlette.types import Scope

from contracts.android.fields import MAX_TIMEOUT_SECONDS, Target, Text
from contracts.commands import refusal

PREFIX = "/api/perplexity"
_FLOW_SECONDS = 180.0


class UseApp(Target):
    """Which phone, and for how long; all of it may be left out."""

    timeout_seconds: float = Field(
        default=_FLOW_SECONDS, gt=0, le=MAX_TIMEOUT_SECONDS, description="How long all of it may take."
    )


class SearchInApp(UseApp):
    """What to search for."""

    query: Text = Field(pattern=r"\S", description="Typed into the app, as one line.", examples=["quorum queues"])


class AskApp(UseApp):
    """What to ask."""

    question: Text = Field(
        pattern=r"\S", description="Typed into the app, as one line.", examples=["What is a quorum queue?"]
    )


@dataclass(frozen=True, slots=True)
class FlowRoute:
    """One path, and the flow that it runs."""

    name: str
    """Of the flow, and the path's last part."""
    model: type[UseApp]
    title: str
    about: str
    example: dict[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = ("POST",)

    @property
    def path(self) -> str:
        """Where it is."""
        return f"{PREFIX}/{self.name}"

    def payload(self, scope: Scope, body: bytes) -> bytes:
        """The payload of the command that a request asks for.

        Args:
            scope: The request; without a body its query is read.
            body: JSON; empty is as good as `{}`.

        Raises:
            Permanent: The body is not JSON.
            InvalidPayload: It does not fit; each fault is named by field and rule.
        """
        try:
            if scope["method"] == "GET":
                given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
                asked = self.model.model_validate({name: value for name, value in given if name != "wait"})
            else:
                asked = self.model.model_validate_json(body.strip() or b"{}")
        except ValidationError as error:
            raise refusal(error, body) from None
        fields = asked.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        inputs = {name: fields.pop(name) for name in sorted(set(self.model.model_fields) - set(UseApp.model_fields))}
        return orjson.dumps({"action": "flow", "name": f"perplexity.{self.name}", "inputs": inputs, **fields})


ROUTES = (
    FlowRoute("open", UseApp, "Open Perplexity", "Brings the Perplexity app to the front.", {"tag": "perplexity"}),
    FlowRoute(
        "search",
        SearchInApp,
        "Search in Perplexity",
        "Asks in a new thread and leaves the answer on the phone's screen; `/text` and `/screenshot` read it.",
        {"query": "quorum queues"},
    ),
    FlowRoute(
        "ask",
        AskApp,
        "Ask Perplexity",
        "Asks in a new thread, waits until the answer is complete, and returns its text and its sources.",
        {"question": "What is a quorum queue?"},
    ),
    FlowRoute(
        "screenshot",
        UseApp,
        "Picture Perplexity",
        "Brings the app to the front and takes a picture of it, which is an artifact.",
        {"device": "R58M12ABCDE"},
        methods=("GET", "POST"),
    ),
    FlowRoute(
        "text",
        UseApp,
        "Read Perplexity",
        "Brings the app to the front and reads every text that it shows.",
        {"device": "R58M12ABCDE"},
        methods=("GET", "POST"),
    ),
)
