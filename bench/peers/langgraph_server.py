"""LangGraph's development server (in-memory runtime): runs, a queue and checkpoints around a graph of one node."""

import os
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path

READY_S = 60.0
GRAPH = Path(__file__).with_name("langgraph_graph.py")


def tell(port: int) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ok", timeout=1):
                break
        except OSError:
            time.sleep(0.1)
    os.write(real_stdout, f"{port}\n".encode())


# It prints a banner: only the port goes to the real stdout.
real_stdout = os.dup(1)
os.dup2(2, 1)


def main() -> None:
    # Its store is written into the folder it is started in.
    os.chdir(sys.argv[1])
    os.environ.update(LANGSMITH_TRACING="false", LANGGRAPH_NO_VERSION_CHECK="true", LOG_LEVEL="error")
    from langgraph_api.cli import run_server  # noqa: PLC0415 - it reads the environment when it is loaded

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    threading.Thread(target=tell, args=(port,), daemon=True).start()
    run_server(
        host="127.0.0.1",
        port=port,
        reload=False,
        graphs={"talk": f"{GRAPH}:graph"},
        n_jobs_per_worker=200,
        open_browser=False,
    )


if __name__ == "__main__":
    main()
