#!/usr/bin/env python3
"""What the router costs: the same chats to a provider directly, through Ingle, and through LiteLLM, in turn within one run.

    benches/router.py [--ingle target/release/ingle] [--litellm PATH] [--rate 1000] [--seconds 20] [--busy MODEL.gguf]

The provider is `ingle bench provider`: it answers after a fixed time, whole answers at once, streams word by word. The load
is `ingle bench load`: the servers are asked in turn at a fixed rate, so that all meet the same moments of the machine, and the
difference of their quantiles is what stands between. Load, provider and gateway share the machine's cores. Everything is on
loopback and ends by itself.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import programs
from programs import Program

PRICES = """
[quick]
"quick-model" = { prompt = 1, completion = 2 }
[slow]
"slow-model" = { prompt = 1, completion = 2 }
"""


def cpu_seconds(server):
    """User and system time of a program and its children."""
    total, todo = 0, [server.process.pid]
    while todo:
        pid = todo.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except FileNotFoundError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def provider(program, name, folder, latency, gap):
    """Answers of 16 words, the first after `latency`, the others `gap` apart, in milliseconds."""
    words = [program, "bench", "provider", "--first-ms", str(latency), "--gap-ms", str(gap), "--tokens", "16",
             "--seconds", "1800"]
    started = Program(words, folder / f"{name}.log")
    started.url = started.listening()
    return started


def ingle(program, home, providers, budgets, busy):
    """A server that knows the providers, with or without budgets."""
    home.mkdir(parents=True)
    (home / "prices.toml").write_text(PRICES)
    config = "".join(f'[providers.{name}]\ndialect = "compatible"\nbase_url = "{one.url}/v1"\nmodels = ["{name}-*"]\n'
                     for name, one in providers.items())
    if budgets:
        for whom in ("", 'team = "*"\n', 'key = "*"\n'):
            config += f'\n[[budget]]\n{whom}per = "day"\nusd = 1000000.0\nrequests = 100000000\n'
    (home / "ingle.toml").write_text(config)
    return programs.ingle(program, home, *([busy] if busy else []))


def litellm(program, home, providers):
    home.mkdir(parents=True)
    (home / "config.yaml").write_text(
        "model_list:\n" + "".join(
            f"  - model_name: {name}-model\n    litellm_params:\n      model: openai/{name}-model\n"
            f"      api_base: {one.url}/v1\n      api_key: none\n" for name, one in providers.items()))
    # Without a key: nobody else reaches it.
    return programs.litellm(program, home, LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true")


def load(program, urls, model="quick-model", **options):
    words = [program, "bench", "load", *(f"{url}/v1" for url in urls), "--model", model, "--json"]
    for name, value in options.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    out = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600).stdout
    return json.loads(out)["servers"]


def show(title, names, servers):
    print(f"\n{title}\n\n| | n | failed | p50 | p90 | p99 | more: p50 | p90 | p99 |\n|---|---|---|---|---|---|---|---|---|")
    for what in ("whole", "first", "gap"):
        if what not in servers[0]:
            continue
        for name, server in zip(names, servers):
            times = server[what]
            more = [times[q] - servers[0][what][q] for q in ("p50", "p90", "p99")]
            cells = [f"{times[q]:.3f}" for q in ("p50", "p90", "p99")] + [f"{m:+.3f}" for m in more]
            failed = sum(server["errors"].values())
            print(f"| {name}, {what} ms | {server['n']} | {failed} | " + " | ".join(cells) + " |")


def most(program, name, server, seconds, clients=64):
    """Answers a second at full load, and for each second of processor time the server took."""
    before, start = cpu_seconds(server), time.monotonic()
    [measured] = load(program, [server.url], clients=clients, seconds=seconds)
    cpu, wall = cpu_seconds(server) - before, time.monotonic() - start
    n = measured["answers_per_second"] * wall
    print(f"| {name} | {measured['answers_per_second']:.0f} | {cpu / wall:.2f} | {n / cpu:.0f} | "
          f"{sum(measured['errors'].values())} |")
    return n / cpu


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--ingle", default="target/release/ingle")
    arguments.add_argument("--litellm", help="LiteLLM's program; without it only Ingle is measured")
    arguments.add_argument("--rate", type=int, default=1000, help="requests a second to each server")
    arguments.add_argument("--seconds", type=int, default=20)
    arguments.add_argument("--latency", type=int, default=20, help="of the provider, in milliseconds")
    arguments.add_argument("--busy", help="a model that Ingle computes with meanwhile, on all cores")
    options = arguments.parse_args()
    running = []

    def start(process):
        running.append(process)
        return process

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            providers = {name: start(provider(options.ingle, name, folder, options.latency, gap))
                         for name, gap in (("quick", 0), ("slow", 5))}
            plain = start(ingle(options.ingle, folder / "plain", providers, False, options.busy))
            budget = start(ingle(options.ingle, folder / "budget", providers, True, None))
            peer = start(litellm(options.litellm, folder / "litellm", providers)) if options.litellm else None
            measure(options, providers, plain, budget, peer)
        finally:
            for process in reversed(running):
                process.stop()


def measure(options, providers, plain, budget, peer):
    quick, slow = (providers[name].url for name in ("quick", "slow"))
    for name, server in (("Ingle", plain), ("Ingle with budgets", budget)):
        load(options.ingle, [quick, server.url], rate=200, seconds=2)
        measured = load(options.ingle, [quick, server.url], rate=2 * options.rate, seconds=options.seconds)
        show(f"whole answers, {options.rate} requests a second to each", ["direct", name], measured)
        # A stream of 16 pieces is more work for everybody.
        measured = load(options.ingle, [slow, server.url], "slow-model", rate=options.rate // 5, seconds=options.seconds,
                        stream=True)
        show(f"streams, {options.rate // 10} a second to each", ["direct", name], measured)
    if options.busy:
        busy(options, plain, quick)
    print("\n| full load, 64 clients | answers/s | cores used | answers a core-second | failed |\n|---|---|---|---|---|")
    ours = most(options.ingle, "Ingle", plain, options.seconds)
    most(options.ingle, "Ingle with budgets", budget, options.seconds)
    if peer:
        load(options.ingle, [peer.url], clients=2, seconds=3)
        theirs = most(options.ingle, "LiteLLM", peer, options.seconds)
        print(f"\nanswers a core-second, Ingle over LiteLLM: {ours / theirs:.1f}")
        measured = load(options.ingle, [quick, plain.url, peer.url], rate=60, seconds=options.seconds)
        show("whole answers, 20 requests a second to each", ["direct", "Ingle", "LiteLLM"], measured)


def busy(options, server, provider):
    """The same while the engine of the server answers on all cores."""
    name = Path(options.busy).stem
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Tell a long story."}],
                       "max_tokens": 4000, "ignore_eos": True, "stream": True}).encode()
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        answer.read(200)
        measured = load(options.ingle, [provider, server.url], rate=200, seconds=min(options.seconds, 10))
        show("while the engine computes on all cores, 100 requests a second to each", ["direct", "Ingle"], measured)


if __name__ == "__main__":
    sys.exit(main())
