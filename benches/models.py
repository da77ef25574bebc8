#!/usr/bin/env python3
"""Models in memory, measured on the real server: what they hold against what was foreseen, and what is left
after they leave. Needs nothing but Python and a release build.

    benches/models.py memory FILE.gguf...          every context (2K, 8K, 32K) and form of the cache
    benches/models.py switching SMALL A B          three models within a budget of 8 GB, 50 switches
"""
import argparse
import json
import os
import statistics
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

CONTEXTS = [2048, 8192, 32768]
RESERVE_BYTES = 1 << 30


class Server:
    """`ingle serve` of some files, on a free port of loopback."""

    def __init__(self, program, files, **settings):
        environment = dict(os.environ, INGLE_LISTEN="127.0.0.1:0", INGLE_OFFLINE="true",
                           INGLE_HOME=str(Path(program).parent / "bench-home"))
        environment.update({f"INGLE_{name.upper()}": str(value) for name, value in settings.items()})
        # The files are known, and loaded when they are asked for: the first load ends before it has begun.
        self.process = subprocess.Popen([program, "serve", *files], env=environment, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.base = self.process.stdout.readline().strip()
        if not self.base:
            raise SystemExit("the server did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, method=method,
                                         headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=900) as answer:
            return json.load(answer)

    def load(self, name, **body):
        return self.call("POST", f"/api/models/{name}/load", {"stream": False, **body})

    def unload(self, name):
        return self.call("POST", f"/api/models/{name}/unload", {})

    def states(self):
        models = self.call("GET", "/api/models")["models"]
        return {model["id"]: model for model in models if model["state"] != "absent"}

    def held(self):
        return self.call("GET", "/api/models")["memory"]["held"]["host_bytes"]

    def rss(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def chat(self, model, text="Hello", n=4):
        return self.call("POST", "/v1/chat/completions", {
            "model": model, "messages": [{"role": "user", "content": text}], "max_tokens": n})

    def empty(self):
        """Unloads everything; the memory of a process that has let go of all."""
        n_quiet = 0
        while n_quiet < 10:
            states = self.states()
            for name in states:
                self.unload(name)
            n_quiet = 0 if states else n_quiet + 1
            time.sleep(0.1)
        return self.rss()


def name_of(path):
    return Path(path).name.removesuffix(".gguf")


def available():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no MemAvailable")


def memory(arguments):
    print("| model | context | cache | foreseen | measured | measured / foreseen |")
    print("|---|---|---|---|---|---|")
    for path in arguments.files:
        name = name_of(path)
        with Server(arguments.program, [path], ctx=2048) as server:
            server.empty()
            described = server.call("GET", f"/api/models/{name}")
        trained = described["file"]["shape"]["trained_context"]
        needs = {(one["context"], one["kv_type"]): one["memory"]["host_bytes"]
                 for one in described["requirements"]}
        for context in CONTEXTS:
            for kv_type in ["f16", "int8"]:
                row = f"| {name} | {context} | {kv_type} "
                if context > trained:
                    print(row + f"| trained on {trained} | | |", flush=True)
                    continue
                least = needs[context, kv_type]
                if least + RESERVE_BYTES > available():
                    print(row + f"| {least / 1e9:.3f} GB: more than is free | | |", flush=True)
                    continue
                # As much as one context asks for: what was foreseen is what is granted.
                with Server(arguments.program, [path], ctx=context, kv_type=kv_type,
                            preallocate="true", memory_bytes=least) as server:
                    before = server.empty()
                    foreseen = server.load(name)["memory"]["host_bytes"]
                    assert foreseen == least, (foreseen, least)
                    measured = server.rss() - before
                print(row + f"| {foreseen / 1e9:.3f} GB | {measured / 1e9:.3f} GB "
                      f"| {measured / foreseen:.3f} |", flush=True)


def switching(arguments):
    small, first, second = map(name_of, arguments.files)
    with Server(arguments.program, arguments.files, ctx=2048, preallocate="true",
                memory_bytes=8_000_000_000) as server:
        empty = server.empty()
        print(f"empty: {empty / 1e6:.0f} MB resident")
        ratios, times = [], []
        server.load(small)
        for cycle in range(arguments.cycles):
            name = (first, second)[cycle % 2]
            begun = time.monotonic()
            if cycle % 10 == 1:
                # Requests for both during the switch: one waits for its model, the other for its turn.
                asked = [threading.Thread(target=server.chat, args=(model,)) for model in (second, small)]
                for thread in asked:
                    thread.start()
                for thread in asked:
                    thread.join()
            else:
                server.load(name)
            times.append(time.monotonic() - begun)
            states = server.states()
            ready = sorted(model for model, state in states.items() if state["state"] == "ready")
            held = server.held()
            assert name in ready and held <= 8_000_000_000, (ready, held)
            ratios.append((server.rss() - empty) / held)
            print(f"{cycle + 1:3} {name}: {', '.join(ready)} ready, {held / 1e9:.3f} GB foreseen, "
                  f"resident {ratios[-1]:.3f} of it, {times[-1]:.1f} s", flush=True)
        left = server.empty()
        print(f"resident / foreseen: median {statistics.median(ratios):.3f}, "
              f"{min(ratios):.3f} to {max(ratios):.3f}; last {ratios[-1]:.3f}")
        print(f"a switch: median {statistics.median(times):.1f} s")
        print(f"empty again: {left / 1e6:.0f} MB resident, {(left - empty) / 1e6:+.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/ingle")
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("what", choices=["memory", "switching"])
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    {"memory": memory, "switching": switching}[arguments.what](arguments)


if __name__ == "__main__":
    main()
