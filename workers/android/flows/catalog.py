"""Finds flows by name: reads every flow file of this folder once, and checks what a command gives a flow."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from contracts.errors import ErrorCode, Permanent
from workers.android.flows.steps import App, Flow

_ENDING = ".toml"


@cache
def apps() -> Mapping[str, App]:
    """Every app that has a flow file, by the file's name.

    Raises:
        ValidationError: A file breaks a rule; it names the place.
    """
    found = {}
    for entry in sorted(files(__package__).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(_ENDING):
            found[entry.name.removesuffix(_ENDING)] = App.model_validate(tomllib.loads(entry.read_text("utf-8")))
    return found


def find(name: str, inputs: Mapping[str, str]) -> tuple[App, Flow]:
    """The flow that a command names.

    Args:
        name: `app.flow`.
        inputs: What the command gives it.

    Raises:
        Permanent: There is none such, or its inputs are others (invalid_payload).
    """
    app_name, _, flow_name = name.partition(".")
    app = apps().get(app_name)
    flow = app.flows.get(flow_name) if app is not None else None
    if app is None or flow is None:
        known = ", ".join(f"{app_name}.{flow_name}" for app_name, app in apps().items() for flow_name in app.flows)
        raise Permanent(ErrorCode.INVALID_PAYLOAD, f"no flow is called {name}; there are: {known}")
    if set(inputs) != set(flow.inputs):
        wanted = ", ".join(flow.inputs) or "none"
        raise Permanent(ErrorCode.INVALID_PAYLOAD, f"the inputs of {name} are: {wanted}")
    if blank := [one for one in flow.inputs if not inputs[one].strip()]:
        raise Permanent(ErrorCode.INVALID_PAYLOAD, f"the input {blank[0]} of {name} is blank")
    return app, flow
