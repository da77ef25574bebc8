"""The programs of a run: on loopback, each with a log of its own, stopped by its own id."""
import os
import socket
import subprocess
import time
import urllib.request


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Program:
    """Runs from its start to `stop`."""

    def __init__(self, words, log, is_silent=False, **environment):
        self.log = open(log, "w")
        out = self.log if is_silent else subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=self.log, text=True,
                                        env={**os.environ, **environment})

    def fail(self):
        with open(self.log.name) as said:
            raise SystemExit(f"{self.process.args[0]} did not start: {said.read()[-2000:]}")

    def listening(self):
        """The address it says first."""
        return self.process.stdout.readline().strip() or self.fail()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
        self.log.close()


def ingle(program, home, *models):
    """Ingle as the `ingle.toml` in its home says."""
    words = [program, "serve", "--config", str(home / "ingle.toml"), "--listen", "127.0.0.1:0", *models]
    server = Program(words, home / "log", INGLE_HOME=str(home), INGLE_LOG="warn")
    server.url = server.listening()
    return server


def litellm(program, home, **environment):
    """LiteLLM as the `config.yaml` in its home says, as for production: one worker, and it logs errors only."""
    port = free_port()
    server = Program([program, "--config", str(home / "config.yaml"), "--port", str(port), "--num_workers", "1",
                      "--host", "127.0.0.1"], home / "log", is_silent=True, LITELLM_LOCAL_MODEL_COST_MAP="True",
                     LITELLM_LOG="ERROR", LITELLM_MODE="PRODUCTION", **environment)
    server.url = f"http://127.0.0.1:{port}"
    for _ in range(180):
        time.sleep(1)
        try:
            urllib.request.urlopen(f"{server.url}/health/liveliness", timeout=1)
            return server
        except OSError:
            continue
    return server.fail()
