"""A client on the Python SDK: lists, calls, follows progress, answers a question and cancels. Arguments: URL and the prefixes of
the Python server and of server-everything. It ends with 0 when everything was as it should be."""

import asyncio
import sys

import anyio
from mcp import Client, types

URL, WEATHER, EVERYTHING = sys.argv[1:]


async def answer(_context, params):
    assert "How many days in Rome?" in params.message and params.message.startswith("["), params.message
    return types.ElicitResult(action="accept", content={"days": 3})


def text(result):
    return result.content[0].text


async def main():
    async with Client(URL, mode="legacy", elicitation_callback=answer) as client:
        assert client.server_info.name == "Kuadrant MCP Gateway", client.server_info
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {WEATHER + "add", EVERYTHING + "echo"} <= names, names
        assert text(await client.call_tool(WEATHER + "add", {"a": 19, "b": 23})) == "42"
        assert text(await client.call_tool(EVERYTHING + "echo", {"message": "hi"})) == "Echo: hi"
        for tool, arguments, last in [
            (WEATHER + "slow_echo", {"text": "x", "seconds": 0.3, "steps": 3}, 3),
            (EVERYTHING + "trigger-long-running-operation", {"duration": 0.3, "steps": 3}, 3),
        ]:
            seen = []

            async def progress(value, _total, _message, seen=seen):
                seen.append(value)

            await client.call_tool(tool, arguments, progress_callback=progress)
            assert seen == sorted(seen) and seen[-1] == last, seen
        assert text(await client.call_tool(WEATHER + "plan_trip", {"city": "Rome"})) == "3 days in Rome"
        before = int(text(await client.call_tool(WEATHER + "interrupted", {})))
        started = anyio.Event()

        async def begun(_value, _total, _message):
            started.set()

        async with anyio.create_task_group() as group:

            async def call():
                arguments = {"text": "never", "seconds": 60.0, "steps": 600}
                await client.call_tool(WEATHER + "slow_echo", arguments, progress_callback=begun)

            group.start_soon(call)
            await started.wait()
            group.cancel_scope.cancel()
        while int(text(await client.call_tool(WEATHER + "interrupted", {}))) == before:
            await anyio.sleep(0.05)
    print("python: everything was as it should be")


asyncio.run(asyncio.wait_for(main(), 60))
