#!/usr/bin/env python3
"""What benches/gpu.sh runs on the node: checks first, then times, then one short table.

Every part has a time of its own and a part that fails or hangs does not keep the others from running;
what failed is said in the table and in the exit status. Needs nothing but Python's own library, and
PyTorch for the machine's limits if it is there.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

MODEL_BYTES_A_TOKEN = 4.616e9  # Llama 3 8B Q4_K_M: bytes of weights read for one token
CLIENTS = 64
# Everything, so that a lease of ten minutes is not cut off before the table.
SECONDS = 540

LIMITS = r"""
import json, torch, time
def timed(run, n):
    for _ in range(3): run()
    torch.cuda.synchronize(); begun = time.perf_counter()
    for _ in range(n): run()
    torch.cuda.synchronize(); return (time.perf_counter() - begun) / n
a = torch.empty(2**32, dtype=torch.uint8, device="cuda"); b = torch.empty_like(a)
copy = 2 * a.numel() / timed(lambda: b.copy_(a), 10)
del a, b
x, y = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
rate = 2 * 8192**3 / timed(lambda: x @ y, 10)
print(json.dumps({"copy_bytes_per_second": copy, "bf16_flops": rate, "name": torch.cuda.get_device_name()}))
"""


class Battery:
    def __init__(self, args):
        self.args, self.rows, self.failed = args, [], []
        self.end = time.monotonic() + SECONDS

    def row(self, name, value):
        self.rows.append((name, value))
        print(f"{name}: {value}", flush=True)
        (Path(self.args.results) / "table.txt").write_text(self.table() + "\n")

    def table(self):
        width = max(len(name) for name, _ in self.rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.rows)

    def seconds_left(self, seconds):
        left = self.end - time.monotonic()
        if left < 5:
            raise RuntimeError("no time is left for it")
        return min(seconds, left)

    def part(self, name, run):
        begun = time.monotonic()
        try:
            run()
        except Exception as error:  # Whatever it is, the other parts run.
            self.failed.append(name)
            self.row(name, f"FAILED: {error}")
        print(f"   ({name}: {time.monotonic() - begun:.0f} s)", flush=True)

    def command(self, log, command, seconds, env=None):
        """Runs a command for so long at most; its output is kept in a log."""
        path = Path(self.args.results) / f"{log}.log"
        seconds = self.seconds_left(seconds)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env={**os.environ, **(env or {})})
        except subprocess.TimeoutExpired as late:
            path.write_text(str(late.stdout) + str(late.stderr))
            raise RuntimeError(f"not done within {seconds:.0f} s: see {path.name}") from late
        path.write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
            raise RuntimeError(f"exit {done.returncode}: {''.join(last)}")
        return done.stdout

    # The parts.

    def limits(self):
        limits = json.loads(self.command("limits", [sys.executable, "-c", LIMITS], 90).splitlines()[-1])
        self.copy = limits["copy_bytes_per_second"]
        self.row("GPU", limits["name"])
        self.row("copy bandwidth", f"{self.copy / 1e12:.2f} TB/s")
        self.row("bf16 rate", f"{limits['bf16_flops'] / 1e12:.0f} TFLOP/s")

    def kernels(self):
        out = self.command("kernels", [self.args.kernels_test, "cuda"], 90, {"INGLE_TEST_GPU": "1"})
        self.row("kernels against the processor", next(line for line in out.splitlines() if "test result" in line))

    def checks(self):
        out = self.command("checks", [self.args.ingle, "bench", "gpu", "-m", self.args.cut, "-t", "8"], 150)
        for line in out.splitlines():
            print("  ", line)
        n_ok = sum(line.startswith("ok") for line in out.splitlines())
        self.row("whole networks against the processor", f"{n_ok} checks passed")

    def write_model(self):
        self.model = str(Path(self.args.work) / "8b.gguf")
        self.command("write", [self.args.ingle, "bench", "write-model", "llama3-8b", self.model], 120)

    def engine(self):
        for deterministic in (False, True):
            self.engine_rates(deterministic)

    def engine_rates(self, deterministic):
        flags = ["--deterministic"] if deterministic else []
        label = " (--deterministic)" if deterministic else ""
        batches = "1,8,32,64" if not deterministic else "1,32"
        begun = time.monotonic()
        out = self.command(f"engine{'-deterministic' if deterministic else ''}",
                           [self.args.ingle, "--gpu-layers", "999", *flags, "bench", "engine", "-m", self.model, "-p", "512", "-n", "64",
                            "-r", "3", "-b", batches, "--chunk", "512", "--json"], 120)
        report = json.loads(out)
        for sample in report["results"]:
            rate = sample["tokens_per_second"]["median"]
            line = f"{rate:.0f} tok/s"
            if sample["test"] == "decode" and hasattr(self, "copy"):
                read = rate / sample["batch"] * MODEL_BYTES_A_TOKEN / self.copy
                line += f", {100 * read:.0f} % of the copy bandwidth"
            self.row(f"{sample['test']} {sample['tokens']}, batch {sample['batch']}{label}", line)
        print(f"   (all of it {time.monotonic() - begun:.0f} s)")

    def prompts(self):
        for tokens in (2048, 8192):
            out = self.command(f"prompt-{tokens}", [self.args.ingle, "--gpu-layers", "999", "bench", "engine", "-m", self.model, "-p", str(tokens),
                                                    "-n", "0", "-r", "2", "--chunk", "512", "--json"], 60)
            for sample in json.loads(out)["results"]:
                rate = sample["tokens_per_second"]["median"]
                self.row(f"{sample['test']} {sample['tokens']}", f"{rate:.0f} tok/s")

    def served(self):
        log = Path(self.args.results) / "serve.log"
        server = subprocess.Popen(
            [self.args.ingle, "--gpu-layers", "999", "serve", self.model, "--listen", "127.0.0.1:0", "--ctx", "2048"],
            stdout=subprocess.PIPE, stderr=log.open("w"), text=True,
            env={**os.environ, "INGLE_MAX_RUNNING": str(CLIENTS), "INGLE_OFFLINE": "true"})
        # A reader that waits for a line that never comes ends with the server.
        killer = threading.Timer(self.seconds_left(180), server.kill)
        killer.start()
        try:
            begun = time.monotonic()
            url = server.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the server does not start: see {log.name}")
            while True:
                try:
                    health = json.load(urllib.request.urlopen(f"{url}/health", timeout=10))
                    break
                except OSError:
                    if server.poll() is not None:
                        raise RuntimeError(f"the server does not get ready: see {log.name}") from None
                    time.sleep(0.2)
            self.row("from start to ready, file in the page cache", f"{time.monotonic() - begun:.1f} s")
            self.row("health", json.dumps(health))
            self.load(url)
        finally:
            killer.cancel()
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()

    def load(self, url):
        words = "the of and to in a is that for it as was with be by on not he his but at are this have".split()

        def client(number, totals):
            rng = random.Random(number)
            for _ in range(2):
                # Its vocabulary is bytes: some 150 tokens.
                text = " ".join(rng.choice(words) for _ in range(30))
                body = {"model": "8b", "messages": [{"role": "user", "content": text}], "max_tokens": 128, "temperature": 0}
                request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(),
                                                 {"content-type": "application/json"})
                usage = json.load(urllib.request.urlopen(request, timeout=120))["usage"]
                totals.append((usage["prompt_tokens"], usage["completion_tokens"]))

        totals = []
        threads = [threading.Thread(target=client, args=(number, totals)) for number in range(CLIENTS)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not totals:
            raise RuntimeError("no request was answered")
        seconds = time.monotonic() - begun
        prompt, completion = (sum(part) for part in zip(*totals))
        if len(totals) != 2 * CLIENTS:
            raise RuntimeError(f"{len(totals)} of {2 * CLIENTS} requests were answered")
        self.row(f"served, {CLIENTS} clients", f"{completion / seconds:.0f} tok/s out, {prompt / seconds:.0f} tok/s in")

    def run(self):
        for name in ("limits", "kernels", "checks", "write_model", "engine", "prompts", "served"):
            self.part(name, getattr(self, name))
        print("\n" + self.table())
        if self.failed:
            sys.exit(f"failed: {', '.join(self.failed)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("ingle", "kernels-test", "cut", "work", "results"):
        parser.add_argument(f"--{name}", required=True)
    Battery(parser.parse_args()).run()
