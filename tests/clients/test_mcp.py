"""The official MCP clients against `/mcp` and `ingle mcp`, and the official conformance suite."""
import asyncio
import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from mcp import Client, MCPError, StdioServerParameters

TOOLS = ["list_models", "load_model", "unload_model", "model_info", "pull_model"]
HERE = Path(__file__).parent / "mcp"


@pytest.fixture(scope="module")
def model(smollm2):
    return smollm2.stem


@pytest.fixture(scope="module")
def node(request):
    """The folder where the Node clients are installed."""
    folder = request.config.getoption("--node-clients")
    if not folder or not (Path(folder) / "node_modules" / ".bin" / "node").exists():
        pytest.skip("NOT TESTED: the TypeScript client and the conformance suite need npm")
    return Path(folder).resolve()


@pytest.fixture
def stdio(request, served, tmp_path):
    """How a client starts `ingle mcp` beside the running server."""
    binary = str(Path(request.config.getoption("--ingle")).resolve())
    return binary, served.url.removeprefix("http://"), str(tmp_path)


async def drive(server, model, mode):
    told = []

    async def tell(progress, total, message):
        told.append((progress, total, message))

    async with Client(server, mode=mode, read_timeout_seconds=120) as client:
        assert client.server_info.name == "local-models"
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == TOOLS

        async def call(name, **arguments):
            result = await client.call_tool(name, arguments, progress_callback=tell)
            assert not result.is_error, result
            assert json.loads(result.content[0].text) == result.structured_content
            return result.structured_content

        listed = await call("list_models")
        assert model in [one["id"] for one in listed["models"]]
        assert (await call("pull_model", model=model))["path"].endswith(".gguf")
        info = await call("model_info", model=model)
        assert info["requirements"][0]["fits"]
        await call("unload_model", model=model)
        told.clear()
        assert (await call("load_model", model=model, keep_alive="10m"))["context"] > 0
        steps = [progress for progress, _, _ in told]
        assert len(steps) >= 3 and steps == sorted(set(steps)) and steps[-1] == 1.0, told
        assert (await call("model_info", model=model))["state"] == "ready"
        assert (await call("unload_model", model=model))["unloaded"]

        unknown = await client.call_tool("load_model", {"model": "no-such-model"})
        assert unknown.is_error and "no-such-model" in unknown.content[0].text
        with pytest.raises(MCPError) as malformed:
            await client.call_tool("load_model", {"modle": model})
        assert malformed.value.error.code == -32602
        resources = (await client.list_resources()).resources
        read = await client.read_resource(next(one.uri for one in resources if one.name == model))
        assert json.loads(read.contents[0].text)["id"] == model


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_python_over_http(served, model, mode):
    asyncio.run(drive(f"{served.url}/mcp", model, mode))


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_python_over_stdio(stdio, model, mode):
    binary, address, home = stdio
    settings = {"INGLE_LISTEN": address, "INGLE_HOME": home}
    asyncio.run(drive(StdioServerParameters(command=binary, args=["mcp"], env=settings), model, mode))


def test_the_config_to_copy_starts_a_server(request, tmp_path):
    config = Path(__file__).parents[2] / "docs" / "mcp" / "config.json"
    server = json.loads(config.read_text())["mcpServers"]["local-models"]
    assert server["command"] == "ingle"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    binary = str(Path(request.config.getoption("--ingle")).resolve())
    settings = {"INGLE_LISTEN": address, "INGLE_HOME": str(tmp_path), "INGLE_OFFLINE": "true"}

    async def look():
        parameters = StdioServerParameters(command=binary, args=server["args"], env=settings)
        async with Client(parameters) as client:
            listed = await client.call_tool("list_models", {})
            assert "smollm2" in listed.content[0].text

    asyncio.run(look())


def run_node(node, *arguments):
    command = [str(node / "node_modules" / ".bin" / "node"), *map(str, arguments)]
    return subprocess.run(command, cwd=node, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("how", ["http", "stdio"])
def test_typescript(node, served, stdio, model, how):
    shutil.copy(HERE / "drive.mjs", node)
    binary, address, home = stdio
    rest = [f"{served.url}/mcp", model] if how == "http" else [binary, model, address, home]
    ran = run_node(node, "drive.mjs", how, *rest)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen = json.loads(ran.stdout)
    assert seen["server"] == "local-models" and seen["tools"] == TOOLS
    assert seen["load"]["model"] == model and seen["unload"]["unloaded"]
    assert len(seen["progress"]) >= 3 and seen["progress"] == sorted(set(seen["progress"]))
    assert seen["info"]["id"] == model and seen["pull"]["model"] == model
    assert seen["unknown"]["isError"] and seen["malformed"] == -32602
    assert seen["resources"][0] == "ingle://models" and seen["templates"] == 1
    assert seen["read"]["models"] and seen["list"]["models"]


def test_conformance(node, served, tmp_path):
    suite = node / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    ran = run_node(node, suite, "server", "--url", f"{served.url}/mcp", "--suite", "all",
                   "--expected-failures", HERE / "conformance-baseline.yaml", "-o", tmp_path)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
