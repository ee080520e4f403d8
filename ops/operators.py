"""Finds the addresses that an operator's command needs: given by `ISH_*`, else those of the local stack."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from contracts.settings import Settings, read_settings, stop
from ops.stack import environment_file
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
        return with_login(self.amqp_url, user, password)


def postgres_url() -> str:
    """PostgreSQL as the role `ish_ops`; ends the process with one line when it is not known."""
    settings = read_settings()
    if settings.postgres_url:
        return settings.postgres_url
    try:
        return environment_file.read_value(Layout.of(settings), "ISH_POSTGRES_URL")
    except StackError as error:
        stop(f"{error}, or set ISH_POSTGRES_URL")


def broker() -> BrokerAddresses:
    """RabbitMQ as an administrator; ends the process with one line when it is not known."""
    settings = read_settings()
    layout = Layout.of(settings)
    try:
        return _given(settings, layout) or _local(layout)
    except StackError as error:
        stop(str(error))


def _given(settings: Settings, layout: Layout) -> BrokerAddresses | None:
    given = Given.of(settings, layout)
    if not given.management_url:
        return None
    parts = urlsplit(given.management_url)
    if not (parts.hostname and parts.username and parts.password):
        raise StackError("ISH_RABBITMQ_MANAGEMENT_URL must be an administrator's: http://user:password@host:port")
    login = parts.netloc.rpartition("@")[0]
    place = urlsplit(given.amqp_url)
    host = place.netloc.rpartition("@")[2] or f"{parts.hostname}:{_AMQP_PORT}"
    return BrokerAddresses(f"{place.scheme or 'amqp'}://{login}@{host}/", given.management_url)


def _local(layout: Layout) -> BrokerAddresses:
    path = layout.secrets_dir / f"rabbitmq-{_ADMINISTRATOR}"
    try:
        login = f"{_ADMINISTRATOR}:{quote(path.read_text(encoding='utf-8').strip(), safe='')}@{LOOPBACK}"
    except OSError as error:
        raise StackError(
            f"there is no local stack in {layout.state_dir}: start it, or set ISH_RABBITMQ_MANAGEMENT_URL to an "
            "administrator's address"
        ) from error
    return BrokerAddresses(f"amqp://{login}:{layout.ports.amqp}/", f"http://{login}:{layout.ports.management}")
