#!/usr/bin/env python3
"""Decode rate of Ingle and llama.cpp on the same file, same threads, interleaved in one run.

    target/clients/bin/python benches/peers/decode.py target/release/ingle FILE.gguf [--threads 2] [--rounds 7]

Both are asked over HTTP for a greedy answer of N tokens; the rate is taken between the first and the
last streamed token, by the client's clock. Prints each round's pair, the median of the pairwise
ratios, and the resident memory of Ingle against the file's size.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import xllamacpp

QUESTION = [{"role": "user", "content": "Tell me a long story about a lighthouse keeper."}]


def decode_rate(url, model, n_tokens):
    """Tokens a second after the first, and the time to the first in seconds."""
    body = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": n_tokens,
            "stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}}
    began, first, last, n = time.perf_counter(), None, None, 0
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=600) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if usage := chunk.get("usage"):
                n = usage["completion_tokens"]
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                last = time.perf_counter()
                first = first or last
    return (n - 1) / (last - first), first - began


def resident_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return {key: int(re.search(rf"{key}:\s+(\d+)", status).group(1)) * 1024
            for key in ("VmRSS", "VmHWM", "RssAnon", "RssFile")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ingle")
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()

    peer = xllamacpp.CommonParams()
    peer.model.path = args.file
    peer.n_ctx, peer.n_parallel, peer.verbosity = 2048, 1, -1
    peer.cpuparams.n_threads = peer.cpuparams_batch.n_threads = args.threads
    peer_server = xllamacpp.Server(peer)
    home = tempfile.TemporaryDirectory()
    ingle = subprocess.Popen(
        [args.ingle, "serve", "--listen", "127.0.0.1:0", "--ctx", "2048",
         "--threads", str(args.threads), args.file],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "INGLE_HOME": home.name})
    try:
        url = next(m.group(0) for line in ingle.stdout
                   if (m := re.search(r"http://127\.0\.0\.1:\d+", line)))
        ours_model = Path(args.file).stem
        while httpx.get(f"{url}/health").status_code != 200:
            time.sleep(0.1)
        for warm in ((url, ours_model), (peer_server.listening_address, "default")):
            decode_rate(*warm, 16)
        ratios = []
        for _ in range(args.rounds):
            ours, _ = decode_rate(url, ours_model, args.tokens)
            theirs, _ = decode_rate(peer_server.listening_address, "default", args.tokens)
            ratios.append(ours / theirs)
            print(f"ingle {ours:7.1f} tok/s   llama.cpp {theirs:7.1f} tok/s   ratio {ours / theirs:.3f}",
                  flush=True)
        memory = resident_bytes(ingle.pid)
        print(f"median ratio {statistics.median(ratios):.3f} "
              f"(min {min(ratios):.3f}, max {max(ratios):.3f})")
        print(f"file {os.path.getsize(args.file) / 1e6:.1f} MB, "
              + ", ".join(f"{key} {value / 1e6:.1f} MB" for key, value in memory.items()))
    finally:
        ingle.terminate()
        ingle.wait(60)


if __name__ == "__main__":
    main()
