"""Write the transcripts anew: `python -m tests.golden.record [STORY …]`.

A change in one is a change of what people see. Read the diff before you commit it.
"""

import asyncio
import sys

from tests.golden.stories import STORIES
from tests.golden.transcript import FOLDER, lines


async def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in names or STORIES:
        path = FOLDER / f"{name}.jsonl"
        made = lines(await STORIES[name]())
        if not path.exists() or path.read_text(encoding="utf-8") != made:
            path.write_text(made, encoding="utf-8")
            sys.stderr.write(f"wrote {path}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
