"""A client on the Python SDK at several gateways at once. Arguments: what to do (`cells` or `names`), the mode of the client, and
for each gateway its URL, with `#ask` where a server's question does not get through. It prints one JSON value a line."""

import asyncio
import json
import sys

import anyio
from mcp import Client, MCPError, types

WHAT, MODE, *PLACES = sys.argv[1:]
INVALID = -32602


class Person:
    """What the client heard, and what it answers."""

    def __init__(self):
        self.changed = anyio.Event()

    async def answer(self, _context, _params):
        return types.ElicitResult(action="accept", content={"username": "ann", "email": "ann@example.com"})

    async def hear(self, message):
        if isinstance(message, types.ToolListChangedNotification):
            self.changed.set()


async def names(client):
    tools = [tool.name for tool in (await client.list_tools()).tools]
    prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
    resources = [resource.name for resource in (await client.list_resources()).resources]
    return tools + prompts + resources


async def listed(client, _person, _refused):
    assert len(await names(client)) > 10


async def call(client, _person, _refused):
    result = await client.call_tool("test_simple_text", {})
    assert result.content[0].text and not result.is_error, result


async def get(client, _person, _refused):
    assert (await client.get_prompt("test_simple_prompt")).messages


async def read(client, _person, _refused):
    assert (await client.read_resource("test://static-text")).contents[0].text


async def is_invalid(request):
    try:
        await request
    except MCPError as error:
        return error.code == INVALID
    return False


async def error(client, _person, _refused):
    assert await is_invalid(client.call_tool("nope", {}))
    assert await is_invalid(client.read_resource("test://none"))
    assert (await client.call_tool("test_error_handling", {})).is_error


async def progress(client, _person, _refused):
    seen = []

    async def note(value, _total, _message):
        seen.append(value)

    await client.call_tool("test_tool_with_progress", {}, progress_callback=note)
    assert seen == [0, 50, 100], seen


async def cancel(client, _person, _refused):
    started = anyio.Event()

    async def begun(*_):
        started.set()

    async def forever():
        await client.call_tool("test_sleep", {"milliseconds": 60_000}, progress_callback=begun)

    async with anyio.create_task_group() as group:
        group.start_soon(forever)
        await started.wait()
        group.cancel_scope.cancel()


async def change(client, person, _refused):
    if MODE != "legacy":
        async with client.listen(tools_list_changed=True) as notices:
            await client.call_tool("test_trigger_tool_change", {})
            async for _ in notices:
                return
        raise AssertionError("the stream ended")
    for _ in range(5):
        await client.call_tool("test_trigger_tool_change", {})
        with anyio.move_on_after(2):
            await person.changed.wait()
            return
    raise AssertionError("no notice")


async def ask(client, _person, refused):
    result = await client.call_tool("test_elicitation", {"message": "Who?"})
    wanted = "elicitation" if refused else "User response"
    assert wanted in result.content[0].text and bool(result.is_error) == refused, result


CELLS = {
    "list": listed,
    "call": call,
    "get": get,
    "read": read,
    "error": error,
    "progress": progress,
    "cancel": cancel,
    "change": change,
    "ask": ask,
}


async def visit(number, place):
    url, _, refused = place.partition("#")
    person = Person()
    async with Client(
        url, mode=MODE, elicitation_callback=person.answer, message_handler=person.hear
    ) as client:
        if WHAT == "names":
            print(json.dumps(await names(client)), flush=True)
            return
        for operation, run in CELLS.items():
            failure = None
            try:
                with anyio.fail_after(20):
                    await run(client, person, refused == "ask")
            except Exception as raised:  # every way to fail is a cell
                failure = repr(raised)
            print(json.dumps({"place": number, "operation": operation, "failure": failure}), flush=True)


async def main():
    async with anyio.create_task_group() as group:
        for number, place in enumerate(PLACES):
            group.start_soon(visit, number, place)


asyncio.run(asyncio.wait_for(main(), 240))
