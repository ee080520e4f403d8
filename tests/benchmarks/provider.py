"""A scripted provider for the time of a round."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ops.stack.child import Spec, environment
from tests.benchmarks.stand import ROOT, Stand, wait_for

_FILE = '[providers.scripted]\ndialect = "openai"\nbase_url = "{address}"\n[providers.scripted.models.steady]\n'


@dataclass(frozen=True, slots=True)
class Provider:
    """Where it is."""

    address: str
    file: Path
    """The providers file that names it."""

    def counts(self) -> dict[str, Any]:
        """What it has answered so far; see `ops.simulators.provider.ledger.Ledger.counts`."""
        answer = httpx.get(f"{self.address.removesuffix('/v1')}/__calls", trust_env=False).raise_for_status()
        counts: dict[str, Any] = answer.json()
        return counts


@contextmanager
def provider(stand: Stand, *, answer_seconds: float) -> Iterator[Provider]:
    """Run a provider.

    Args:
        stand: The services.
        answer_seconds: How long each answer takes.
    """
    folder = stand.session.layout.logs_dir
    log = folder / "scripted-provider.log"
    log.unlink(missing_ok=True)

    def address() -> str:
        said = log.read_text(encoding="utf-8") if log.exists() else ""
        return said.partition("scripted provider at ")[2].partition("\n")[0]

    spec = Spec(
        name="scripted-provider",
        argv=(sys.executable, "-m", "ops.simulators.provider", "--port", "0", "--latency-seconds", str(answer_seconds)),
        environment=environment({}),
        log_file=log,
        ready=lambda: True,
        folder=ROOT,
    )
    with stand.running(spec):
        wait_for("the scripted provider says where it is", lambda: bool(address()), seconds=30)
        path = folder / "providers.toml"
        path.write_text(_FILE.format(address=address()), encoding="utf-8")
        yield Provider(address(), path)
