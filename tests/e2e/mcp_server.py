"""A server of MCP's own kit, for `mistralrs serve --mcp-config`: over standard input and output, or at a port."""

import sys
from pathlib import Path
from typing import Literal

from mcp.server.mcpserver import Image, MCPServer

PICTURE = Path(__file__).resolve().parents[2] / "fixtures/demo/red_circle.png"
server = MCPServer("shapes")


@server.tool()
def corners(shape: Literal["circle", "square"]) -> str:
    """How many corners a shape has."""
    return f"a {shape} has {0 if shape == 'circle' else 4}"


@server.tool()
def draw() -> Image:
    """Draws a shape."""
    return Image(path=PICTURE)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run(transport="streamable-http", port=int(sys.argv[1]))
    else:
        server.run(transport="stdio")
