"""For tests of agents: play a run with a scripted model, a memory store and a clock that stands still. No network.

```python
async with play(Agent("shop", instructions="…", tools=[refund]), [call("refund", order="A1"), "Done."]) as run:
    await run.until("approval.required")
    await run.approve(edit={"amount": 5})
    assert await run.result() == "Done."
```
"""

from midstream.testing.clock import ManualClock
from midstream.testing.played import PlayedRun, Refused
from midstream.testing.script import answer, call, calls
from midstream.testing.stage import Stage, play, staged

__all__ = ["ManualClock", "PlayedRun", "Refused", "Stage", "answer", "call", "calls", "play", "staged"]
