"""Serves this folder's page, and the built client beside it: `python examples/browser/serve.py [PORT]`."""

import sys
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

HERE: Final = Path(__file__).parent
CLIENT: Final = HERE.parents[1] / "clients" / "js" / "dist"
PORT: Final = 8080


def site_of(page: Path = HERE / "page", client: Path = CLIENT) -> Starlette:
    return Starlette(
        routes=[Mount("/client", StaticFiles(directory=client)), Mount("/", StaticFiles(directory=page, html=True))]
    )


if __name__ == "__main__":
    if not (CLIENT / "index.js").exists():
        sys.exit("The client is not built: cd clients/js && npm ci && npm run build")
    port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
    print(f"The page is at http://127.0.0.1:{port}", flush=True)
    uvicorn.run(site_of(), port=port, log_level="warning")
