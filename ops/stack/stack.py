"""One stack from start to stop: the order in which services, set-up, stand-ins and processes come and go."""

import asyncio
import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from contracts.settings import Settings
from ops.admin.rabbitmq_management import ManagementError
from ops.stack import accounts, environment_file, processes, setup, state
from ops.stack.addresses import Addresses, Given
from ops.stack.binaries import Finder, default_cache_dir
from ops.stack.child import Spec
from ops.stack.console import Console
from ops.stack.errors import StackError
from ops.stack.identity import Identity
from ops.stack.layout import PHONE_HOST, Layout
from ops.stack.services import Services
from ops.stack.silent import silent
from ops.stack.supervisor import Supervisor


@dataclass(slots=True)
class Stack:
    """A stack that this process supervises."""

    layout: Layout
    settings: Settings
    console: Console
    workers: Mapping[str, int]
    """Processes per pool."""
    supervisor: Supervisor = field(init=False)
    _services: Services | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        identity = Identity.own()
        record = state.StackRecord(
            pid=identity.pid, started=identity.started, phase="starting", gateway_url=self.layout.gateway_url
        )
        self.supervisor = Supervisor(self.layout, self.console.say, record, self._revived)

    def start(self) -> None:
        """Bring everything up; returns once the gateway says that it is ready and every worker consumes.

        Raises:
            StackError: Something cannot be started; what was started stays for `supervisor.stop()`.
        """
        given = Given.of(self.settings, self.layout)
        self.supervisor.save()
        with self._step("looking for RabbitMQ, PostgreSQL, Redis and adb"):
            services = Services.find(self.layout, self._finder(), without=given.services)
        self._services = services
        for sentence in silent(given):
            self._note(sentence)
        addresses = Addresses.of(self.layout, services, given)
        ours = processes.Processes(self.layout, self.settings, addresses, given.providers_file)
        specs = services.specs()
        with self._step(f"starting {', '.join(spec.name for spec in specs) or 'nothing: all services are given'}"):
            self.supervisor.spawn(specs)
            model = self._spawn_model(ours)
            self._set_up(services, addresses)
            if model and self._model_answers(model):
                ours = dataclasses.replace(ours, providers_file=processes.write_model_provider(self.layout))
        with self._step("starting the gateway and the workers"):
            self.supervisor.spawn([ours.gateway(), *ours.workers(self.workers)])
            self._start_phone(ours, services)
            self.supervisor.wait_ready()
        self.supervisor.record.phase = "ready"
        self.supervisor.record.step = ""
        self.supervisor.save()

    def _set_up(self, services: Services, addresses: Addresses) -> None:
        self.supervisor.wait_ready("postgres", "redis", "adb")  # while RabbitMQ, the slowest, boots
        setup.create_roles(addresses, own_server=services.postgres is not None)
        setup.apply_schema(addresses)
        self.supervisor.wait_ready("epmd", "rabbitmq")
        asyncio.run(self._set_up_users(services, addresses))

    async def _set_up_users(self, services: Services, addresses: Addresses) -> None:
        if services.rabbitmq is None:
            await accounts.own_users(self.layout, addresses)
        await setup.apply_topology(addresses)
        await accounts.known_publishers(addresses)
        try:
            publisher_url = await accounts.publisher(self.layout, addresses)
        except ManagementError as error:
            raise StackError(str(error)) from error
        api_key = await accounts.api_key(self.layout, addresses)
        environment_file.write(self.layout, addresses, publisher_url=publisher_url, api_key=api_key)

    def _spawn_model(self, ours: processes.Processes) -> Spec | None:
        if ours.providers_file:
            self._note(f"AI providers: {ours.providers_file}")
            return None
        try:
            spec = ours.model(self._finder().openmp())
            self.supervisor.spawn([spec])
        except StackError as error:
            self._no_model(error)
            return None
        return spec

    def _model_answers(self, model: Spec) -> bool:
        try:
            self.supervisor.wait_ready(model.name)
        except StackError as error:
            self.supervisor.forget(model.name)
            self._no_model(error)
            return False
        self._note(f"AI provider: a stand-in, the small model {processes.MODEL} on this machine; often wrong")
        return True

    def _no_model(self, error: StackError) -> None:
        self._note(f"AI provider: none, and AI commands say what to configure. The local model cannot run: {error}")

    def _start_phone(self, ours: processes.Processes, services: Services) -> None:
        if services.adb is None:
            self._note(f"phones: those of the adb servers given, {self.settings.adb_servers}")
            return
        spec = ours.phone(services.adb)
        try:
            self.supervisor.spawn([spec])
            self.supervisor.wait_ready(spec.name)
        except StackError as error:
            self.supervisor.forget(spec.name)
            self._note(f"phones: none, the simulated one cannot run: {error}")
        else:
            self._note(f"phone: a stand-in, simulated, {PHONE_HOST}:{self.layout.ports.phone} behind a real adb server")

    def _finder(self) -> Finder:
        return Finder(self.settings.cache_dir or default_cache_dir(), self._progress)

    def _revived(self, name: str) -> None:
        """A restarted adb server has forgotten the devices that it was connected to."""
        if name == "adb" and self._services and self._services.adb:
            self._services.adb.connect(f"{PHONE_HOST}:{self.layout.ports.phone}")

    def _note(self, sentence: str) -> None:
        self.supervisor.record.notes.append(sentence)

    def _progress(self, sentence: str) -> None:
        """Said here, and written down for whoever waits in another process."""
        self.supervisor.record.step = sentence
        self.supervisor.save()
        self.console.say(sentence)

    def _step(self, sentence: str) -> AbstractContextManager[None]:
        self.supervisor.record.step = sentence
        self.supervisor.save()
        return self.console.step(sentence)
