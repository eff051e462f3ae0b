"""The Python client: start, follow and steer runs from another program.

`connect` is the way in. It knows the protocol and nothing of the server.
"""

from midstream.client.actions import State
from midstream.client.address import Address, BadAddress
from midstream.client.connection import Client, connect
from midstream.client.errors import Disconnected, Pending, Unreachable
from midstream.client.rest import Rest
from midstream.client.run import Run
from midstream.client.updates import Received, Update

__all__ = [
    "Address",
    "BadAddress",
    "Client",
    "Disconnected",
    "Pending",
    "Received",
    "Rest",
    "Run",
    "State",
    "Unreachable",
    "Update",
    "connect",
]
