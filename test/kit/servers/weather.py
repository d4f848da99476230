"""A small MCP server on the Python SDK: some tools, a prompt and a resource over streamable HTTP.

PORT is the port (8000). ALLOWED_HOSTS, comma separated, turns on the SDK's check of the Host header: behind a gateway
the server sees the hostname of its route there, not its own name. TLS_FOLDER, a folder with tls.crt and tls.key, makes it
speak TLS.
"""

import os

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel

server = MCPServer("weather", instructions="Adds numbers, tells tomorrow's weather and answers slowly.")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def forecast(city: str) -> str:
    """Tell tomorrow's weather in a city. The same city always has the same weather."""
    kinds = ["sunny", "cloudy", "rainy", "stormy"]
    return f"Tomorrow in {city}: {kinds[sum(city.encode()) % len(kinds)]}."


@server.tool()
async def slow_echo(text: str, ctx: Context, seconds: float = 1.0, steps: int = 5) -> str:
    """Give the text back after some seconds, reporting progress on the way."""
    global interruptions
    try:
        for step in range(steps):
            await ctx.report_progress(step, steps, f"step {step + 1} of {steps}")
            await anyio.sleep(seconds / steps)
    except anyio.get_cancelled_exc_class():
        interruptions += 1
        raise
    await ctx.report_progress(steps, steps, "done")
    return text


interruptions = 0


@server.tool()
def interrupted() -> int:
    """Tell how many slow echoes were cancelled since the start."""
    return interruptions


class Stay(BaseModel):
    """What a traveller is asked."""

    days: int


@server.tool()
async def plan_trip(city: str, ctx: Context) -> str:
    """Ask how long to stay in a city and say what was answered."""
    answer = await ctx.elicit(f"How many days in {city}?", Stay)
    return f"{answer.data.days} days in {city}" if answer.action == "accept" else f"no trip to {city}"


@server.prompt()
def packing_list(city: str) -> str:
    """Ask for a packing list that fits the weather of a city."""
    return f"{forecast(city)} What should I pack?"


@server.resource("weather://cities")
def cities() -> str:
    """The cities that the weather is known for."""
    return "every city that has a name"


if __name__ == "__main__":
    hosts = [host for host in os.environ.get("ALLOWED_HOSTS", "").split(",") if host]
    port = int(os.environ.get("PORT", "8000"))
    security = TransportSecuritySettings(enable_dns_rebinding_protection=bool(hosts), allowed_hosts=hosts)
    folder = os.environ.get("TLS_FOLDER")
    if folder:
        app = server.streamable_http_app(host="0.0.0.0", transport_security=security)
        uvicorn.run(
            app, host="0.0.0.0", port=port, ssl_certfile=f"{folder}/tls.crt", ssl_keyfile=f"{folder}/tls.key"
        )
    else:
        server.run("streamable-http", host="0.0.0.0", port=port, transport_security=security)
