"""Lets each connection come from another address of this machine, so that no address has many failures."""

import random

from urllib3.util import connection

create = connection.create_connection


def from_anywhere(address, timeout=None, source_address=None, socket_options=None):
    source = "127.%d.%d.%d" % tuple(random.randint(1, 254) for _ in range(3))
    return create(address, timeout, (source, 0), socket_options)


connection.create_connection = from_anywhere
