"""Starts the built `ingle` once for all tests, on a port of its own, with the small real model."""
import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--ingle", required=True, help="the built binary")
    parser.addoption("--model-files", required=True, help="the folder made by tests/fixtures.py")
    parser.addoption("--node-clients", help="the folder where tests/clients/mcp/package.json is installed")


@pytest.fixture(scope="session")
def smollm2(request):
    return (Path(request.config.getoption("--model-files")) / "SmolLM2-135M-Instruct.Q4_1.gguf").resolve()


@pytest.fixture(scope="session")
def minilm(request):
    return (Path(request.config.getoption("--model-files")) / "all-MiniLM-L6-v2").resolve()


class Served:
    """A running `ingle serve`, with variables of its own and, by their names, files in its home folder."""

    def __init__(self, binary, *arguments, variables=None, files=None):
        self.home = tempfile.TemporaryDirectory()
        for name, text in (files or {}).items():
            path = Path(self.home.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.log = open(Path(self.home.name) / "log", "w+")
        environment = {**os.environ, "INGLE_HOME": self.home.name, **(variables or {})}
        if "ingle.toml" in (files or {}):
            environment["INGLE_CONFIG"] = str(Path(self.home.name) / "ingle.toml")
        self.process = subprocess.Popen(
            [str(Path(binary).resolve()), "serve", "--listen", "127.0.0.1:0", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment, cwd=self.home.name)
        self.url = self._address()

    def _address(self):
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return found.group(0)
        self.log.seek(0)
        raise RuntimeError(f"ingle serve ended before it listened:\n{self.log.read()}")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()
        self.home.cleanup()


@pytest.fixture(scope="session")
def served(request, smollm2, minilm):
    server = Served(request.config.getoption("--ingle"), smollm2, minilm)
    yield server
    server.stop()
