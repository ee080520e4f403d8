"""Finds the addresses that an operator's command needs: given by `ISH_*`, else those of the local stack.

The local stack's are those in its state folder, whatever ports the settings mean now, and no secret of the stack is sent
to one of them unless the stack's own service listens there.
"""

from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from contracts.service_urls import vhost_of, with_explicit_vhost
from contracts.settings import Settings, read_settings, stop
from ops.stack import environment_file, ownership
from ops.stack.addresses import Given, with_login
from ops.stack.errors import StackError
from ops.stack.layout import LOOPBACK, Layout

_AMQP_PORT = 5672
_ADMINISTRATOR = "admin"


@dataclass(frozen=True, slots=True)
class BrokerAddresses:
    """RabbitMQ as its administrator, both ways."""

    amqp_url: str
    management_url: str

    def amqp_url_of(self, user: str, password: str) -> str:
        """The AMQP address for another user.

        Args:
            user: Its name.
            password: Its password.
        """
        return with_explicit_vhost(with_login(self.amqp_url, user, password))

    @property
    def vhost(self) -> str:
        """Whose queues, exchanges and permissions every command acts on."""
        return vhost_of(self.amqp_url)


def postgres_url() -> str:
    """PostgreSQL as the role `ish_ops`; ends the process with one line when it is not known."""
    settings = read_settings()
    try:
        return local_value(Layout.of(settings), "postgres", "ISH_POSTGRES_URL", given=settings.postgres_url)
    except StackError as error:
        stop(f"{error}, or set ISH_POSTGRES_URL")


def local_value(layout: Layout, service: str, name: str, *, given: str = "") -> str:
    """An address that was given; else, or if it is the local stack's, that one, once its service has shown that it is ours.

    Args:
        layout: Which stack.
        service: Whose address.
        name: The variable.
        given: What the settings have; `source .ish/env` leaves the local stack's there.

    Raises:
        StackError: There is no local stack, or it does not listen there.
    """
    try:
        own = environment_file.read_value(layout, name)
    except StackError:
        if given:
            return given
        raise
    if given and given != own:
        return given
    ownership.check_ours(layout, service, own, setting=name)
    return own


def broker() -> BrokerAddresses:
    """RabbitMQ as an administrator; ends the process with one line when it is not known."""
    settings = read_settings()
    layout = Layout.of(settings)
    try:
        return _given(_without_own(settings, layout), layout) or _local(layout)
    except StackError as error:
        stop(str(error))


def _without_own(settings: Settings, layout: Layout) -> Settings:
    """The settings but for what `source .ish/env` left there, which is not given from outside whatever ports are meant."""
    own: dict[str, str] = {}
    for name in ("amqp_url", "rabbitmq_management_url"):
        with suppress(StackError):
            if getattr(settings, name) == environment_file.read_value(layout, f"ISH_{name.upper()}"):
                own[name] = ""
    return settings.model_copy(update=own)


def _given(settings: Settings, layout: Layout) -> BrokerAddresses | None:
    given = Given.of(settings, layout)
    if not given.management_url:
        return None
    parts = urlsplit(given.management_url)
    if not (parts.hostname and parts.username and parts.password):
        raise StackError("ISH_RABBITMQ_MANAGEMENT_URL must be an administrator's: http://user:password@host:port")
    login = parts.netloc.rpartition("@")[0]
    amqp_url = given.amqp_url or f"amqp://{parts.hostname}:{_AMQP_PORT}/"
    place = urlsplit(amqp_url)  # its vhost and its options are kept
    place = place._replace(netloc=f"{login}@{place.netloc.rpartition('@')[2]}")
    return BrokerAddresses(with_explicit_vhost(urlunsplit(place)), given.management_url)


def _local(layout: Layout) -> BrokerAddresses:
    path = layout.secrets_dir / f"rabbitmq-{_ADMINISTRATOR}"
    try:
        login = f"{_ADMINISTRATOR}:{quote(path.read_text(encoding='utf-8').strip(), safe='')}@{LOOPBACK}"
    except OSError as error:
        raise StackError(
            f"there is no local stack in {layout.state_dir}: start it, or set ISH_RABBITMQ_MANAGEMENT_URL to an "
            "administrator's address"
        ) from error
    amqp_url = environment_file.read_value(layout, "ISH_AMQP_URL")
    management_url = environment_file.read_value(layout, "ISH_RABBITMQ_MANAGEMENT_URL")
    for url in (amqp_url, management_url):
        if urlsplit(url).hostname != LOOPBACK:
            raise StackError(
                f"the RabbitMQ of the stack in {layout.state_dir} is not its own: set ISH_RABBITMQ_MANAGEMENT_URL to an "
                "administrator's address"
            )
        ownership.check_ours(layout, "rabbitmq", url, setting="ISH_RABBITMQ_MANAGEMENT_URL")
    amqp, management = urlsplit(amqp_url).port, urlsplit(management_url).port
    return BrokerAddresses(f"amqp://{login}:{amqp}/%2F", f"http://{login}:{management}")
