import asyncio

from midstream.client import connect


async def main() -> None:
    async with connect("http://127.0.0.1:8484") as client:
        async for event in (run := await client.start(input="Please refund order 17: it was 9.90.")):
            if event.type == "message.delta":
                print(event.payload.text, end="", flush=True)
            elif event.type == "approval.required":
                await run.approve(event.payload.approval_id)


asyncio.run(main())
