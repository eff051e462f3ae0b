"""The version of the wire contract: `v` in every envelope, and the names of its WebSocket subprotocols."""

PROTOCOL_VERSION = 1

SUBPROTOCOL_JSON = "midstream.v1.json"
SUBPROTOCOL_MSGPACK = "midstream.v1.msgpack"
