#!/usr/bin/env python3
"""Ingle and other engines on the same GGUF file and the same threads, taking turns in one run.

    side_by_side.py --ingle target/release/ingle --model FILE.gguf --threads 2 \\
        -p 512 -n 128 -r 5 -d 0,2048 -b 1,4 --peers llama.cpp,xllamacpp,openvino,mistralrs

Each engine is a process that keeps its model in memory. For each point of depth and batch every engine
computes once unmeasured, then all take turns, one measured run each, -r times. A ratio is Ingle's rate
over the peer's of the same round; what is printed is the median of the ratios with the least and the
greatest, and at the end which part of the machine's limits each reaches, as `ingle bench engine`
measures and counts them. An engine that fails is reported with its message.

    pip install llama-cpp-python xllamacpp openvino-genai mistralrs numpy

llama-cpp-python has to be built on the machine (--no-binary llama-cpp-python) to use all of its
processor; what it was built with is printed. All engines have the model in memory at once: for a large
one name fewer --peers.
"""
import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workers import PEERS

# Between two turns: threads that wait for work by spinning go to sleep meanwhile.
PAUSE_SECONDS = 0.3


class Failed(Exception):
    """An engine's process or answer says why."""


class Engine:
    """A process that answers the number of a point with a rate."""

    def __init__(self, name, command, patience):
        self.name, self.patience = name, patience
        self.err = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.err, text=True, bufsize=1)
        self.first = self.read()

    def read(self):
        ready, _, _ = select.select([self.process.stdout], [], [], self.patience)
        if not ready:
            # What it may still say would be taken for the next answer.
            self.kill()
            raise Failed(f"no answer within {self.patience:.0f} seconds")
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.err.seek(0)
            said = [text.strip() for text in self.err.read().splitlines() if text.strip()]
            raise Failed(f"it ended with {code}: {said[-1] if said else 'it said nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(" ".join(answer["error"].split()))
        return answer

    def turn(self, point):
        try:
            print(point, file=self.process.stdin, flush=True)
        except OSError:
            pass  # Its end is what `read` finds.
        return self.read()["tokens_per_second"]

    def end(self):
        """Closes its stdin; what it writes then, if anything."""
        self.process.stdin.close()
        rest = self.process.stdout.read().splitlines()
        self.process.wait()
        return json.loads(rest[-1]) if rest else None

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def reached(model, point, rate, limits):
    """Which part of the limits a rate reaches: reading weights (decode), multiplying (linear layers)."""
    steps = rate / point["batch"] if point["test"] == "decode" else None
    logits = 1 if point["test"] == "decode" else 1 / point["tokens"]
    multiplied = rate * (model["multiply_adds_per_token"] + logits * model["multiply_adds_per_logits"])
    return {"reading_weights": steps and steps * model["weight_bytes_per_step"] / limits["read_bytes_per_second"],
            "multiplying": multiplied / limits["multiply_adds_per_second"]}


def measure(engines, place, point, n_rounds):
    """Rates by engine, round by round; an engine that fails has its message instead."""
    rates, failures = {name: [] for name in engines}, {}
    for round_number in range(n_rounds + 1):
        for name, engine in engines.items():
            if name in failures:
                continue
            time.sleep(PAUSE_SECONDS)
            try:
                rate = engine.turn(place)
            except Failed as failure:
                failures[name] = str(failure)
                continue
            # The first round is to warm up.
            if round_number > 0:
                rates[name].append(rate)
    return rates, failures


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": values}


def describe(point):
    return f"{point['test']} {point['tokens']}, depth {point['depth']}, batch {point['batch']}"


def print_point(point, rates, failures):
    print(f"\n{describe(point)}")
    for name, values in rates.items():
        if name in failures:
            print(f"  {name:<11} failed: {failures[name]}")
            continue
        rate = spread(values)
        line = f"  {name:<11} {rate['median']:9.2f} tok/s ({rate['min']:.2f} to {rate['max']:.2f})"
        if name != "ingle" and "ingle" not in failures:
            ratio = spread(ratios(rates, name))
            line += f"  Ingle is {ratio['median']:.2f} times as fast ({ratio['min']:.2f} to {ratio['max']:.2f})"
        print(line, flush=True)


def print_reached(results):
    print("\nof the limits (the better of before and after)")
    for result in results:
        print(f"  {describe(result['point'])}")
        for name, engine in result["engines"].items():
            parts = [f"{100 * engine['reached'][key]:5.1f}% of {word}"
                     for key, word in (("reading_weights", "reading"), ("multiplying", "multiplying"))
                     if "reached" in engine and engine["reached"][key] is not None]
            if parts:
                print(f"    {name:<11} {'  '.join(parts)}")


def ratios(rates, name):
    """Ingle's rate over the other's, round by round."""
    return [ours / theirs for ours, theirs in zip(rates["ingle"], rates[name])]


def summarise(point, rates, failures, model, limits):
    engines = {}
    for name, values in rates.items():
        if name in failures:
            engines[name] = {"error": failures[name]}
            continue
        rate = spread(values)
        engines[name] = {"tokens_per_second": rate, "reached": reached(model, point, rate["median"], limits)}
        if name != "ingle" and "ingle" not in failures:
            engines[name]["ratio"] = spread(ratios(rates, name))
    return {"point": point, "engines": engines}


def start_all(args, points_of):
    """Ingle, then the peers; those that do not start are in the second answer."""
    ingle = [args.ingle, "bench", "engine", "--turns", "-m", args.model, "-t", str(args.threads),
             "-p", str(args.p), "-n", str(args.n), "-d", args.d, "-b", args.b]
    engines = {"ingle": Engine("ingle", ingle + ["--all-pairs"] * args.all_pairs, args.patience)}
    points, failures = points_of(engines["ingle"].first), {}
    worker = str(Path(__file__).parent / "workers.py")
    for name in args.peers.split(","):
        command = [sys.executable, worker, name, args.model, str(args.threads), json.dumps(points)]
        try:
            engines[name] = Engine(name, command, args.patience)
            print(f"{name}: {engines[name].first['version']}", file=sys.stderr, flush=True)
        except Failed as failure:
            failures[name] = str(failure)
            print(f"{name} does not start: {failure}", file=sys.stderr, flush=True)
    return engines, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ingle", default="target/release/ingle")
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-p", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("-n", type=int, default=128, help="tokens of the answer")
    parser.add_argument("-r", type=int, default=5, help="rounds")
    parser.add_argument("-d", default="0", help="depths")
    parser.add_argument("-b", default="1", help="batches")
    parser.add_argument("--all-pairs", action="store_true", help="every depth with every batch")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of %(default)s")
    parser.add_argument("--patience", type=float, default=3600, help="seconds to wait for one answer")
    parser.add_argument("--json", metavar="FILE", help="write everything there too")
    args = parser.parse_args()
    for name in args.peers.split(","):
        if name not in PEERS:
            parser.error(f"--peers has no {name!r}: name some of {','.join(PEERS)}")

    engines, not_started = {}, {}
    # On a machine with other work, engines whose threads wait for each other by spinning lose most.
    load = os.getloadavg()[0]
    try:
        engines, not_started = start_all(args, lambda first: first["points"])
        first = engines["ingle"].first
        model, limits, points = first["model"], first["limits"]["before"], first["points"]
        print(f"{Path(args.model).name}, {first['threads']} threads, Ingle on {first['isa']}, {args.r} rounds")
        print(f"limits before: {said(limits)}; load of the machine before: {load:.1f}")
        for name, why in not_started.items():
            print(f"{name} does not start: {why}")
        measured = []
        for place, point in enumerate(points):
            rates, failures = measure(engines, place, point, args.r)
            measured.append((point, rates, failures))
            print_point(*measured[-1])
            # A process that has ended answers nothing more.
            engines = {name: engine for name, engine in engines.items() if engine.process.poll() is None}
            if "ingle" not in engines:
                raise Failed(failures["ingle"])
        after = engines["ingle"].end()["limits"]["after"]
        print(f"\nlimits after: {said(after)}")
        limits = {key: max(limits[key], after[key]) for key in limits}
        results = [summarise(*one, model, limits) for one in measured]
        print_reached(results)
        if args.json:
            everything = {"load_before": load, "head": first, "limits_after": after, "not_started": not_started, "results": results}
            Path(args.json).write_text(json.dumps(everything, indent=1) + "\n")
    except Failed as failure:
        sys.exit(f"ingle: {failure}")
    finally:
        for engine in engines.values():
            engine.kill()


def said(limits):
    return (f"reads {limits['read_bytes_per_second'] / 1e9:.1f} GB/s, "
            f"{limits['multiply_adds_per_second'] / 1e9:.0f} billion multiply-adds/s")


if __name__ == "__main__":
    main()
