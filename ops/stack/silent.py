"""Says which of the addresses that were given answer nothing, so that nobody waits for what cannot come.

Without Redis, and without a phone, everything else works: such an address is told and does not end the start.
"""

from urllib.parse import urlsplit

from contracts.addresses import ADB_PORT, read_addresses
from contracts.plain_text import plain
from contracts.service_errors import place_of
from ops.stack.addresses import Given
from ops.stack.probes import adb_answers, redis_answers


def silent(given: Given) -> list[str]:
    """One sentence for each address where nothing answers.

    Args:
        given: Addresses from outside.
    """
    sentences = [
        f"phones: no adb server answers at {plain(host)}:{port}, as ISH_ADB_SERVERS says; start one there with "
        f"`adb -P {port} start-server`, or correct it"
        for host, port in read_addresses(given.adb_servers, default_port=ADB_PORT)
        if not adb_answers(host, port)
    ]
    if urlsplit(given.redis_url).scheme == "redis" and not redis_answers(given.redis_url):
        sentences.append(
            f"Redis: nothing answers at {place_of(given.redis_url)}, or it refuses the login; start it, or correct "
            "ISH_REDIS_URL. Caches and limits shared by workers are missing until then"
        )
    return sentences
