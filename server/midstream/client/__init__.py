"""The Python client: start, follow and steer runs from another program.

`connect` is the way in. It knows the protocol and nothing of the server.
"""

from midstream.client.actions import State
from midstream.client.address import Address, BadAddress
from midstream.client.asks import Approval, Question
from midstream.client.client import Client, connect
from midstream.client.errors import Disconnected, Pending, Unreachable
from midstream.client.rest import Rest
from midstream.client.run import Run
from midstream.client.tools import ToolCall
from midstream.client.updates import Received, Update

__all__ = [
    "Address",
    "Approval",
    "BadAddress",
    "Client",
    "Disconnected",
    "Pending",
    "Question",
    "Received",
    "Rest",
    "Run",
    "State",
    "ToolCall",
    "Unreachable",
    "Update",
    "connect",
]
