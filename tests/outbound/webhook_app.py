"""The application of the test that kills a server: run as `midstream serve webhook_app:app`."""

from midstream import Midstream, Run, agent


@agent("echo")
async def echo(run: Run) -> str:
    await run.say(run.input)
    return run.input


app = Midstream([echo])
