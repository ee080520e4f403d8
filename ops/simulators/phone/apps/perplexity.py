"""A stand-in for the Perplexity app: a field to ask in, and an answer that is thought about, grows, and names its sources.

    home --ask--> thinking --0.6 s--> the text grows --1.2 s--> complete, with sources
     ^                                                               |
     '---------------------- back, or "New Thread" ------------------'

It says in every answer that it is simulated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from ops.simulators.phone.apps.app import App, Moment
from ops.simulators.phone.views import WIDTH, Bounds, View, button, group, label, text_field

PACKAGE = "ai.perplexity.app.android"
THINKING_SECONDS = 0.6
GROWING_SECONDS = 1.2
_QUOTED_CHARACTERS = 160
_RIGHT = WIDTH - 40
_SOURCE_PX = 72


@dataclass(frozen=True, slots=True)
class Source:
    """One source under an answer."""

    title: str
    url: str


SOURCES = (
    Source("Reliability Guide", "https://www.rabbitmq.com/docs/reliability"),
    Source("Android Debug Bridge", "https://developer.android.com/tools/adb"),
    Source("Simulated source", "https://example.org/simulated?from=phone&n=3"),
)


def answer_to(question: str) -> str:
    """The complete answer to a question."""
    quoted = question if len(question) <= _QUOTED_CHARACTERS else question[: _QUOTED_CHARACTERS - 1] + "…"
    return (
        f"You asked: {quoted}\n"
        "This answer was written by the simulated phone, not by Perplexity [1]. "
        "It grows word by word, as a real one does, and is complete when its sources are listed [2][3]."
    )


class Perplexity(App):
    """The app that is asked through `/api/perplexity`."""

    package = PACKAGE
    activity = ".MainActivity"
    label = "Perplexity"
    version = "2.42.1"

    def __init__(self) -> None:
        self.system = False
        self._question = ""
        self._asked_at = 0.0

    @override
    def views(self, moment: Moment) -> Sequence[View]:
        return self._thread(moment) if self._question else self._home(moment)

    def _home(self, moment: Moment) -> list[View]:
        logo = View(
            kind="android.widget.ImageView", bounds=Bounds(280, 180, 440, 300), description="Perplexity", look="card"
        )
        slogan = label("Where knowledge begins", Bounds(40, 340, _RIGHT, 400), look="title")
        tabs = [
            button(name, Bounds(40 + place * 220, 1184, 240 + place * 220, 1264), event=f"tab:{name}", description=name)
            for place, name in enumerate(("Home", "Discover", "Library"))
        ]
        return [logo, slogan, self._ask_bar(moment, top=480, hint="Ask anything…"), *tabs]

    def _ask_bar(self, moment: Moment, *, top: int, hint: str) -> View:
        field = text_field(
            moment.text,
            Bounds(56, top + 8, 576, top + 72),
            hint=hint,
            focused=moment.focused,
            resource_id=self.id("ask_input"),
        )
        submit = button(
            "",
            Bounds(592, top + 8, 664, top + 72),
            event="submit",
            resource_id=self.id("submit_button"),
            description="Submit",
            enabled=bool(moment.text.strip()),
        )
        return group(Bounds(40, top, _RIGHT, top + 80), [field, submit], resource_id=self.id("ask_bar"), look="card")

    def _thread(self, moment: Moment) -> list[View]:
        elapsed = moment.now - self._asked_at
        bar = [
            button("", Bounds(24, 72, 96, 136), event="home", description="Back", resource_id=self.id("back_button")),
            button("", Bounds(624, 72, 696, 136), event="home", description="New Thread"),
        ]
        shown: list[View] = [
            label(self._question, Bounds(40, 160, _RIGHT, 280), resource_id=self.id("query_text"), look="title")
        ]
        if elapsed < THINKING_SECONDS:
            shown.append(self._thinking())
        else:
            shown.append(self._answer((elapsed - THINKING_SECONDS) / GROWING_SECONDS))
        if elapsed >= THINKING_SECONDS + GROWING_SECONDS:
            shown.append(self._sources())
        thread = group(
            Bounds(0, 152, WIDTH, 880),
            shown,
            kind="android.widget.ScrollView",
            resource_id=self.id("thread"),
            scrollable=True,
        )
        return [*bar, thread, self._ask_bar(moment, top=890, hint="Ask follow-up…")]

    def _thinking(self) -> View:
        spinner = View(kind="android.widget.ProgressBar", bounds=Bounds(40, 308, 96, 364), look="progress")
        words = label("Thinking…", Bounds(112, 308, 400, 364), look="quiet")
        return group(Bounds(40, 300, _RIGHT, 372), [spinner, words], resource_id=self.id("thinking_indicator"))

    def _answer(self, grown: float) -> View:
        words = answer_to(self._question).split(" ")
        count = max(1, min(len(words), int(len(words) * grown)))
        return label(" ".join(words[:count]), Bounds(40, 300, _RIGHT, 580), resource_id=self.id("answer_text"))

    def _sources(self) -> View:
        header = label("Sources", Bounds(40, 590, _RIGHT, 630), resource_id=self.id("sources_header"), look="quiet")
        rows = [
            group(
                Bounds(40, top, _RIGHT, top + _SOURCE_PX),
                [
                    label(source.title, Bounds(56, top + 4, 660, top + 38), resource_id=self.id("source_title")),
                    label(
                        source.url, Bounds(56, top + 38, 660, top + 70), resource_id=self.id("source_url"), look="quiet"
                    ),
                ],
                kind="android.view.ViewGroup",
                resource_id=self.id("source_item"),
                event=source.url,
                look="card",
            )
            for source, top in zip(SOURCES, range(640, 880, _SOURCE_PX + 6), strict=False)
        ]
        children = [header, *rows]
        return group(
            Bounds(40, 584, _RIGHT, 880),
            children,
            kind="androidx.recyclerview.widget.RecyclerView",
            resource_id=self.id("sources_list"),
        )

    @override
    def click(self, event: str, moment: Moment) -> str | None:
        if event == "home":
            self.reset()
        elif event.startswith("https://"):
            return event
        return None

    @override
    def submit(self, text: str, now: float) -> bool:
        if not text.strip():
            return False
        self._question, self._asked_at = text.strip(), now
        return True

    @override
    def back(self) -> bool:
        had_answer = bool(self._question)
        self.reset()
        return had_answer

    @override
    def reset(self) -> None:
        self._question = ""
