"""Works a flow's steps, one after the other, against anything that runs actions and shows the screen. No I/O of its own."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from contracts.android import actions as android
from contracts.android import screen_actions
from contracts.android.fields import Selector
from contracts.errors import Cancelled, CommandError, ErrorCode, Permanent
from workers.android.elements import Element, NoScreen, Screen
from workers.android.flows import steps
from workers.android.flows.collecting import Collection
from workers.android.readings import Reading
from workers.handler import Artifact

_PAUSE_SECONDS = 0.3
_SCROLL_FROM, _SCROLL_TO = 0.7, 0.35
"""Where a finger goes down and up, as a share of the screen's height."""
_SCROLL_MS = 400


class Stage(Protocol):
    """A phone, as a flow sees it."""

    async def run(self, action: android.SingleAction) -> Reading:
        """Run an action."""

    async def look(self) -> Screen:
        """What is on the screen; raises `NoScreen` when it cannot be told this time."""

    async def tap(self, element: Element) -> None:
        """Touch the middle of an element."""

    @property
    def seconds_left(self) -> float:
        """For all of the flow."""


class Engine:
    """One run of one flow.

    Args:
        name: The flow's, as commands give it; for errors.
        app: Its app.
        flow: The flow.
        inputs: What was given for each of its inputs.
        stage: The phone.
    """

    def __init__(self, name: str, app: steps.App, flow: steps.Flow, inputs: Mapping[str, str], stage: Stage) -> None:
        self._name = name
        self._app = app
        self._flow = flow
        self._inputs = inputs
        self._stage = stage
        self._output: dict[str, Any] = {"flow": name}
        self._artifacts: list[Artifact] = []
        self._elements_seen = 0
        self._unreadable = ""
        """Why the last look showed nothing, for errors; empty when it did."""

    async def run(self) -> Reading:
        """Work all steps.

        Returns:
            What was captured and what actions answered.

        Raises:
            Permanent: A step could not be done (element_not_found, flow_failed); the error names flow, step and element.
            Exception: Whatever the stage raises for a phone that does not answer.
        """
        for number, step in enumerate(self._flow.steps, start=1):
            try:
                await self._do(step)
            except Permanent as error:
                raise self._told(error, number, step) from error
            except Cancelled as error:
                error.details |= {"flow": self._name, "step": number, "does": steps.describe(step)}
                raise
        return Reading(self._output, tuple(self._artifacts))

    async def _do(self, step: steps.Step) -> None:
        match step:
            case steps.BringToFront():
                await self._bring_to_front(step)
            case steps.Tap():
                await self._tap(step)
            case steps.Type():
                # a line break would be the ENTER key, which sends what was typed so far
                text = " ".join(self._inputs[step.type].split())
                await self._stage.run(screen_actions.TypeText(action="text", text=text))
            case steps.Press():
                await self._stage.run(screen_actions.PressKey(action="key", key=step.press))
            case steps.WaitFor():
                await self._wait_for(step)
            case steps.WaitUntilStable():
                await self._wait_until_stable(step)
            case steps.Run():
                reading = await self._stage.run(step.run)
                self._output |= reading.output
                self._artifacts.extend(reading.artifacts)
            case steps.Capture():
                await self._capture(step)

    async def _bring_to_front(self, step: steps.BringToFront) -> None:
        screen = await self._look()
        if screen is not None and screen.package == self._app.package:
            return
        await self._stage.run(android.StartApp(action="start_app", package=self._app.package))
        await self._until(
            lambda screen: screen.package == self._app.package,
            step.within_seconds,
            f"{self._app.package} did not come to the front",
        )

    async def _tap(self, step: steps.Tap) -> None:
        found: list[Element] = []

        def there(screen: Screen) -> bool:
            found[:] = [one for one in screen.find_first(self._alternatives(step.tap)) if one.enabled]
            return bool(found)

        try:
            await self._until(there, step.within_seconds, f"{step.tap} did not appear")
        except Permanent:
            if step.optional:
                return
            raise
        await self._stage.tap(found[0])

    async def _wait_for(self, step: steps.WaitFor) -> None:
        wanted = self._alternatives(step.wait_for)
        sentence = f"{step.wait_for} {'did not go away' if step.gone else 'did not appear'}"
        try:
            await self._until(
                lambda screen: bool(screen.find_first(wanted)) is not step.gone, step.within_seconds, sentence
            )
        except Permanent:
            if not step.optional:
                raise

    async def _wait_until_stable(self, step: steps.WaitUntilStable) -> None:
        wanted = self._alternatives(step.wait_until_stable)
        more_comes = self._alternatives(step.unless) if step.unless is not None else ()
        last: list[str] = []
        since = time.monotonic()

        def stable(screen: Screen) -> bool:
            nonlocal last, since
            said = screen.labels(screen.find_first(wanted))
            now = time.monotonic()
            if said != last or not said or screen.find_first(more_comes):
                last, since = said, now
            return bool(said) and now - since >= step.for_seconds

        sentence = f"{step.wait_until_stable} did not come to rest"
        await self._until(stable, step.within_seconds, sentence)

    async def _capture(self, step: steps.Capture) -> None:
        collections = {name: Collection(captured.form) for name, captured in step.capture.items()}
        for turn in range(step.scrolls + 1):
            screen = await self._look_surely()
            new = [collections[name].add(self._taken(screen, captured)) for name, captured in step.capture.items()]
            if turn == step.scrolls or not any(new) or not any(one.scrollable for one in screen.elements):
                break
            await self._scroll(screen)
        self._output |= {name: collection.answer() for name, collection in collections.items()}

    def _taken(self, screen: Screen, captured: steps.Captured) -> list[Any]:
        found = screen.find_first(self._alternatives(captured.element))
        if captured.form != "records":
            return screen.labels(found)
        records = [
            {name: self._label_inside(screen, one, element) for name, element in captured.fields.items()}
            for one in found
        ]
        return [record for record in records if any(record.values())]

    def _label_inside(self, screen: Screen, outer: Element, element: str) -> str | None:
        found = screen.find_first(self._alternatives(element), within=outer)
        return next((one.label for one in found if one.label), None)

    async def _scroll(self, screen: Screen) -> None:
        width, height = screen.size
        swipe = screen_actions.Swipe(
            action="swipe",
            x1=width // 2,
            y1=int(height * _SCROLL_FROM),
            x2=width // 2,
            y2=int(height * _SCROLL_TO),
            duration_ms=_SCROLL_MS,
        )
        await self._stage.run(swipe)

    async def _until(self, holds: Callable[[Screen], bool], within_seconds: float, sentence: str) -> None:
        """Look until it holds.

        Raises:
            Permanent: It does not in time.
        """
        limit = time.monotonic() + within_seconds
        while True:
            screen = await self._look()
            if screen is not None and holds(screen):
                return
            left_seconds = min(limit - time.monotonic(), self._stage.seconds_left)
            if left_seconds <= _PAUSE_SECONDS:
                why = f"; the screen could not be read: {self._unreadable}" if self._unreadable else ""
                raise Permanent(ErrorCode.ELEMENT_NOT_FOUND, f"{sentence} within {within_seconds:g} s{why}")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _look(self) -> Screen | None:
        """None while the screen moves too much to be read."""
        try:
            screen = await self._stage.look()
        except NoScreen as error:
            self._unreadable = str(error)
            return None
        self._unreadable = ""
        self._elements_seen = len(screen.elements)
        return screen

    async def _look_surely(self) -> Screen:
        while True:
            screen = await self._look()
            if screen is not None:
                return screen
            if self._stage.seconds_left <= _PAUSE_SECONDS:
                raise Permanent(ErrorCode.FLOW_FAILED, f"the screen could not be read: {self._unreadable}")
            await asyncio.sleep(_PAUSE_SECONDS)

    def _alternatives(self, element: str) -> Sequence[Selector]:
        return self._app.elements[element]

    def _told(self, error: Permanent, number: int, step: steps.Step) -> CommandError:
        """The error with where it happened; of the screen it tells only how many elements there were."""
        where = {
            "flow": self._name,
            "step": number,
            "does": steps.describe(step),
            "elements_on_screen": self._elements_seen,
        }
        code = error.code if error.code is ErrorCode.ELEMENT_NOT_FOUND else ErrorCode.FLOW_FAILED
        if code is ErrorCode.FLOW_FAILED:
            where["cause"] = error.code.value
        element = (
            getattr(step, "tap", None) or getattr(step, "wait_for", None) or getattr(step, "wait_until_stable", None)
        )
        if element is not None:
            where["element"] = element
            where["selectors"] = [one.model_dump(mode="json") for one in self._alternatives(element)]
        sentence = f"flow {self._name}, step {number} ({steps.describe(step)}): {error.message}"
        return Permanent(code, sentence, details=where)
