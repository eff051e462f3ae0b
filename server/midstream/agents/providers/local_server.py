"""The child process that holds the embedded model: `python -m midstream.agents.providers.local_server`.

One JSON line on standard input says what to serve, one on standard output where (`{"url": …}`) or why not
(`{"error": …}`). Then it serves until standard input ends, which it does also when the parent is killed.
"""

import os
import sys
from typing import Final

import msgspec
from msgspec import Struct

# Below the server's own priority, so that a model at work does not slow the people who watch it.
NICENESS: Final = 5


class Orders(Struct, kw_only=True, frozen=True):
    """`n_ctx`: tokens of one conversation; `slots`: how many are answered at once, the others queue."""

    model_path: str
    model_name: str
    api_key: str
    port: int
    n_ctx: int
    slots: int
    threads: int


class Ready(Struct, kw_only=True, frozen=True, omit_defaults=True):
    url: str = ""
    error: str = ""


def main() -> None:
    # The engine writes its log to both standard streams: the answer gets a descriptor of its own.
    answer = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    try:
        server, url = serve(orders)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told and shows it
        answer.write(msgspec.json.encode(Ready(error=f"{type(error).__name__}: {error}")) + b"\n")
        os._exit(1)
    answer.write(msgspec.json.encode(Ready(url=url)) + b"\n")
    sys.stdin.buffer.read()
    # Nothing is worth keeping, and the engine's own end waits for the answers it is writing.
    del server
    os._exit(0)


def serve(orders: Orders) -> tuple[object, str]:
    import xllamacpp  # noqa: PLC0415 - only the child needs the engine

    params = xllamacpp.CommonParams()
    params.model.path = orders.model_path
    params.model_alias = {orders.model_name}
    params.hostnames = ["127.0.0.1"]
    params.port = orders.port
    params.api_keys = [orders.api_key]
    params.n_ctx = orders.n_ctx * orders.slots
    params.n_parallel = orders.slots
    params.cpuparams.n_threads = orders.threads
    params.cpuparams_batch.n_threads = orders.threads
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0
    params.warmup = False
    params.ui = False
    params.endpoint_slots = False
    server = xllamacpp.Server(params)
    return server, server.listening_address


if __name__ == "__main__":
    main()
