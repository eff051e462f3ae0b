"""`python -m examples.desktop [--url URL] [--run RUN_ID]`: a small window to a Midstream server."""

import argparse
import os
import sys


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.desktop", description=__doc__)
    parser.add_argument("--url", default=os.environ.get("MIDSTREAM_URL", "http://127.0.0.1:8484"))
    parser.add_argument("--run", help="the id of a run to go on with")
    options = parser.parse_args()
    try:
        import tkinter as tk  # noqa: PLC0415 - many systems leave it out of Python, and say so in a worse way
    except ImportError:
        sys.exit("This Python has no Tk. Debian, Ubuntu: sudo apt install python3-tk; macOS: brew install python-tk")
    from examples.desktop.feed import Feed  # noqa: PLC0415
    from examples.desktop.window import Window  # noqa: PLC0415

    try:
        root = tk.Tk()
    except tk.TclError as error:
        sys.exit(f"There is no screen to open a window on: {error}")
    Window(root, Feed(options.url, token=os.environ.get("MIDSTREAM_TOKEN"), run_id=options.run))
    root.mainloop()


if __name__ == "__main__":
    main()
