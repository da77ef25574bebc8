#!/usr/bin/env python3
"""Whether the router leaves for a provider in time, and only then: a load ramp with both legs really run.

    benches/prediction.py MODEL.gguf [--ingle target/release/ingle] [--seconds 60] [--save FILE.jsonl]

Every request has a deadline for its first content. The engine of this machine answers all of them to the end, and the
provider is asked for real whenever the router decides so, but is silent for a minute: so it is known of every request when
the router left, and whether the engine would have met the deadline. Where the router would not have asked the engine at
all, which its plan says, the engine is asked all the same.

A request that the engine answers too late was *missed*; it was *caught* if the provider was asked before the deadline. An
escalation was *needless* if the engine met the deadline.
"""
import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from programs import ingle

CONFIG = """
[router]
strategy = "local_first"
hedge_budget = 1.0
fallback_chain = [["local", "{model}"], ["cloud", "big"]]

[providers.cloud]
dialect = "compatible"
base_url = "http://127.0.0.1:{port}/v1"
models = ["big"]
first_content_timeout_ms = 300000
total_timeout_ms = 300000
"""
WORDS = "the river ran cold under stones while people of many towns carried bread and letters across it each day".split()
DEADLINES_MS = (1000, 2000, 5000)
LOADS = (0.25, 0.5, 0.75, 1.0, 1.25)


async def silent_provider(port):
    """Takes a request and says nothing for a minute."""
    async def serve(reader, writer):
        try:
            await asyncio.wait_for(reader.read(65536), 60)
            await asyncio.sleep(60)
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError):
            pass
        writer.close()
    return await asyncio.start_server(serve, "127.0.0.1", port)


class Server:
    """Ingle, of this run."""

    def __init__(self, program, model, port, home):
        (home / "ingle.toml").write_text(CONFIG.format(model=Path(model).stem, port=port))
        self.program = ingle(program, home, str(model))
        self.host, self.port = self.program.url.removeprefix("http://").split(":")

    async def call(self, path, body=None):
        """The head, and the lines of what follows, as they come."""
        reader, writer = await asyncio.open_connection(self.host, int(self.port))
        data = json.dumps(body).encode() if body is not None else b""
        verb = "GET" if body is None else "POST"
        writer.write(f"{verb} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
                     f"content-length: {len(data)}\r\n\r\n".encode() + data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        return head, reader, writer

    async def json(self, path, body=None):
        _, reader, writer = await self.call(path, body)
        text = await reader.read()
        writer.close()
        return json.loads(text[text.index(b"{"):text.rindex(b"}") + 1])

    async def stream(self, body):
        """Seconds to the first content and to the end, and the decision's id."""
        begin = time.monotonic()
        head, reader, writer = await self.call("/v1/chat/completions", body)
        first, failed = None, not head.startswith("HTTP/1.1 200")
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            failed |= "error" in event
            choice = (event.get("choices") or [{}])[0]
            if first is None and choice.get("delta", {}).get("content"):
                first = time.monotonic() - begin
        writer.close()
        route = next((line for line in head.split("\r\n") if line.lower().startswith("x-ingle-route")), "")
        return first, time.monotonic() - begin, route.rpartition("id=")[2] or None, failed


def request(chance, model):
    """A prompt nobody has seen, of a length as people's are: most short, some long."""
    n_words = int(min(900, max(20, chance.lognormvariate(4.8, 0.9))))
    text = f"{chance.random()} " + " ".join(chance.choice(WORDS) for _ in range(n_words))
    return {"model": "auto", "messages": [{"role": "user", "content": text}], "stream": True,
            "max_tokens": chance.randint(16, 96), "ignore_eos": True}


async def one(server, chance, model, load, done):
    deadline = chance.choice(DEADLINES_MS)
    body = request(chance, model)
    wishes = {"deadline_ms": deadline}
    plan = await server.json("/v1/route/plan", {**body, "ingle": wishes})
    allowed = [one for one in plan["candidates"] if not one["excluded"]]
    foreseen = next((one["predicted_ttft_ms"] for one in allowed if one["target"].startswith("local:")), None)
    row = {"load": load, "deadline_ms": deadline, "predicted_ms": foreseen, "escalated_ms": None}
    elsewhere = None
    if allowed[0]["target"].startswith("cloud:"):
        row["escalated_ms"] = 0
        elsewhere = asyncio.create_task(server.stream({**body, "model": "cloud:big"}))
        body = {**body, "model": f"local:{model}"}
        wishes = {"enable_fallback": False}
    first, total, decision, failed = await server.stream({**body, "ingle": wishes})
    if elsewhere:
        elsewhere.cancel()
    row.update(first_ms=first and first * 1000, total_ms=total * 1000, failed=failed)
    if row["escalated_ms"] is None and decision:
        told = await server.json(f"/v1/route/explain/{decision}")
        asked = [one["asked_ms"] for one in told["attempts"] if one["target"].startswith("cloud:")]
        row["escalated_ms"] = min(asked, default=None)
    done.append(row)


async def capacity(server, chance, model, seconds):
    """Requests a second that four clients get answered who ask again at once."""
    end, n_done = time.monotonic() + seconds, 0

    async def client():
        nonlocal n_done
        while time.monotonic() < end:
            await server.stream({**request(chance, model), "model": f"local:{model}"})
            n_done += 1
    await asyncio.gather(*(client() for _ in range(4)))
    return n_done / (time.monotonic() - end + seconds)


async def ramp(server, options, model):
    chance = random.Random(options.seed)
    rate = await capacity(server, chance, model, 20)
    print(f"capacity: {rate:.2f} requests a second\n", flush=True)
    done, running = [], set()
    for load in LOADS:
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            await asyncio.sleep(chance.expovariate(rate * load))
            task = asyncio.create_task(one(server, chance, model, load, done))
            running.add(task)
            task.add_done_callback(running.discard)
        # What a load left behind is not the next one's.
        if running:
            await asyncio.wait(set(running), timeout=300)
    return done


def table(rows):
    print("| deadline | load | requests | missed | caught | needless / escalated | by plan / on the way |\n"
          "|---|---|---|---|---|---|---|")
    for deadline in DEADLINES_MS:
        for load in (*LOADS, None):
            some = [row for row in rows if row["deadline_ms"] == deadline and load in (None, row["load"])]
            late = lambda row: row["first_ms"] is None or row["first_ms"] > row["deadline_ms"]
            gone = [row for row in some if row["escalated_ms"] is not None and row["escalated_ms"] < deadline]
            missed = [row for row in some if late(row)]
            caught = [row for row in gone if late(row)]
            n_needless = len(gone) - len(caught)
            share = lambda part, whole: f"{100 * part / whole:.1f} %" if whole else "–"
            by_plan = sum(row["escalated_ms"] == 0 for row in gone)
            print(f"| {deadline / 1000:g} s | {'all' if load is None else f'{100 * load:.0f} %'} | {len(some)} | {len(missed)} | "
                  f"{len(caught)} ({share(len(caught), len(missed))}) | {n_needless} / {len(gone)} "
                  f"({share(n_needless, len(gone))}) | {by_plan} / {len(gone) - by_plan} |")
    ratios = sorted(row["first_ms"] / row["predicted_ms"] for row in rows if row["first_ms"] and row["predicted_ms"])
    if len(ratios) >= 20:
        cuts = statistics.quantiles(ratios, n=20)
        print("\nfirst content, measured over predicted at the plan: "
              f"p5 {cuts[0]:.2f}, p50 {cuts[9]:.2f}, p95 {cuts[18]:.2f} ({len(ratios)} requests)")
    print(f"failed: {sum(row['failed'] for row in rows)}")


async def run(options, folder):
    provider = await silent_provider(0)
    port = provider.sockets[0].getsockname()[1]
    server = Server(options.ingle, options.model, port, folder)
    try:
        rows = await ramp(server, options, Path(options.model).stem)
    finally:
        server.program.stop()
        provider.close()
    if options.save:
        Path(options.save).write_text("".join(json.dumps(row) + "\n" for row in rows))
    table(rows)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model")
    arguments.add_argument("--ingle", default="target/release/ingle")
    arguments.add_argument("--seconds", type=int, default=60, help="of each load")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--save", help="where every request is written, a line each")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
