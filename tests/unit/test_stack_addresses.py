"""Which addresses count as given from outside."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from contracts.settings import Settings
from ops.stack.addresses import Given, with_login
from ops.stack.errors import StackError
from ops.stack.layout import Layout, Ports
from ops.stack.session import OFFSETS


def given(**values: Any) -> Given:
    settings = Settings(state_dir=Path("/srv/ish"), port_offset=100, **values)
    return Given.of(settings, Layout.of(settings))


def test_addresses_that_a_sourced_env_file_leaves_are_the_stacks_own() -> None:
    found = given(
        amqp_url="amqp://demo:x@127.0.0.1:5773/",
        postgres_url="postgresql://ish_ops:x@127.0.0.1:5535/ish",
        redis_url="redis://:x@127.0.0.1:6480/0",
        rabbitmq_management_url="http://ops:x@127.0.0.1:15773",
        adb_servers="127.0.0.1:5138",
        providers_file="/srv/ish/providers.toml",
    )

    assert found == Given.nothing()


def test_the_same_port_on_another_host_is_given_from_outside() -> None:
    found = given(postgres_url="postgresql://a:b@db.example:5535/ish")

    assert found.services == {"postgres"}


def test_another_adb_server_on_this_machine_is_given_from_outside() -> None:
    assert given(adb_servers="127.0.0.1:5037").services == {"adb"}


def test_management_is_looked_for_beside_the_broker_given() -> None:
    assert (
        given(amqp_url="amqp://admin:pw@broker.example:5672/").management_url == "http://admin:pw@broker.example:15672"
    )


def test_a_broker_without_a_login_is_refused_in_one_line() -> None:
    with pytest.raises(StackError, match="ISH_AMQP_URL must be an administrator's address"):
        given(amqp_url="amqp://broker.example/")


def test_a_login_is_quoted_and_the_rest_of_the_address_kept() -> None:
    assert with_login("amqp://a:b@host:1/v", "me", "p/w@") == "amqp://me:p%2Fw%40@host:1/v"


def test_a_gateway_port_that_was_chosen_is_not_shifted() -> None:
    settings = Settings(gateway_port=80, port_offset=100)

    layout = Layout.of(settings)

    assert (layout.ports.gateway, layout.ports.amqp) == (80, 5773)


def test_two_stacks_with_different_offsets_share_no_port() -> None:
    one, other = Ports.at(0), Ports.at(100)

    assert not {getattr(one, name) for name in Ports.__slots__} & {getattr(other, name) for name in Ports.__slots__}


def test_private_services_share_no_port_and_use_none_that_an_outgoing_connection_may_have() -> None:
    lowest_outgoing = 32768  # Linux's default for net.ipv4.ip_local_port_range
    ports = [asdict(Ports.at(offset)) for offset in OFFSETS]
    taken = [
        (name == "phone", port) for one in ports for name, port in one.items()
    ]  # phones have an address of their own

    assert len(taken) == len(set(taken))
    assert max(port for _, port in taken) < lowest_outgoing


def test_several_adb_servers_are_given_from_outside() -> None:
    found = given(adb_servers="127.0.0.1:5037,127.0.0.1:5038")

    assert found.services == {"adb"}
    assert found.adb_servers == "127.0.0.1:5037,127.0.0.1:5038"


def test_the_stacks_own_adb_server_is_started_although_others_are_named_beside_it() -> None:
    found = given(adb_servers="127.0.0.1:5138,127.0.0.1:5037")

    assert found.services == frozenset()
    assert found.adb_servers == "127.0.0.1:5037"


def test_several_hosts_of_postgres_are_given_from_outside() -> None:
    assert given(postgres_url="postgresql://a:b@db1:5432,db2:5433/ish").services == {"postgres"}
