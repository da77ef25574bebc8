#!/usr/bin/env python3
"""Perplexity of Ingle and llama.cpp on the same tokens, and how far each is from the weights in f32.

    pip install llama-cpp-python numpy
    python benches/peers/quality.py target/release/ingle FILE.gguf [--isa scalar,avx2] [--threads 2]

The reference is `ingle perplexity --against f32 --logits`: the file's weights decoded to floats, and
activations that are not rounded. The file also carries the token ids, which llama.cpp evaluates in
the same chunks, with the logits of all positions asked for. All figures of KL, Ingle's too, are
computed here from logits; Ingle's own are checked against them.
"""
import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import llama_cpp.llama_cpp as peer
import numpy as np

TEXT = Path(__file__).parent.parent / "data" / "quality.txt"


class Logits:
    """A file that `ingle perplexity --logits` wrote."""

    def __init__(self, path):
        with open(path, "rb") as file:
            assert file.read(8) == b"INGLELOG", f"{path} holds no logits"
            version, self.n_vocab, n_chunks, chunk_len, self.first = np.fromfile(file, "<u4", 5).tolist()
            assert version == 1, f"{path} is of version {version}"
            self.chunks = np.fromfile(file, "<u4", n_chunks * chunk_len).reshape(n_chunks, chunk_len)
            start = file.tell()
        n_scored = chunk_len - 1 - self.first
        self.rows = np.memmap(path, "<f4", "r", start, (n_chunks * n_scored, self.n_vocab))
        self.targets = self.chunks[:, self.first + 1:].reshape(-1)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max()
    return logits - np.log(np.exp(logits).sum())


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


def figures(rows, reference):
    """What `ingle perplexity --against f32 --json` says, from the logits; and each position's KL."""
    losses, divergences, same = [], [], []
    for ours, theirs, target in zip(rows, reference.rows, reference.targets):
        log_q, log_p = log_softmax(ours), log_softmax(theirs)
        losses.append(-log_q[target])
        divergences.append(np.sum(np.exp(log_p) * (log_p - log_q)))
        same.append(np.argmax(ours) == np.argmax(theirs))
    loss, loss_error = mean_and_error(losses)
    mean, error = mean_and_error(divergences)
    divergences = np.array(divergences)
    found = {"perplexity": np.exp(loss), "perplexity_error": np.exp(loss) * loss_error,
             "kl_mean": mean, "kl_mean_error": error, "kl_median": np.median(divergences),
             "kl_percentile_99": np.quantile(divergences, 0.99), "kl_max": np.max(divergences),
             "same_top_share": np.mean(same)}
    return found, divergences


def check(told, found):
    """Holds Ingle's own figures against those computed here."""
    for key, value in found.items():
        theirs = told["against"][key] if key.startswith(("kl", "same")) else told[key]
        assert np.isclose(value, theirs, rtol=1e-6, atol=1e-12), (key, value, theirs)


def run_ingle(args, isa, logits, *more):
    command = [args.ingle, "perplexity", args.text, "--model", args.file, "--json", "--offline",
               "--threads", str(args.threads), "--ctx-chunk", str(args.ctx_chunk),
               "--logits", logits, *more]
    with tempfile.TemporaryDirectory() as home:
        settings = {"INGLE_HOME": home, **({"INGLE_ISA": isa} if isa else {})}
        done = subprocess.run(command, env={**os.environ, **settings}, check=True,
                              stdout=subprocess.PIPE)
    return json.loads(done.stdout)


@peer.llama_log_callback
def quiet(*_):
    pass


def peer_rows(args, reference):
    """llama.cpp's logits of the scored positions, and the tokens it evaluates a second."""
    n_chunks, chunk_len = reference.chunks.shape
    peer.llama_log_set(quiet, None)
    model = peer.llama_model_load_from_file(os.fsencode(args.file), peer.llama_model_default_params())
    assert model, f"llama.cpp does not load {args.file}"
    params = peer.llama_context_default_params()
    params.n_ctx = chunk_len
    params.n_threads = params.n_threads_batch = args.threads
    if hasattr(params, "n_outputs_max"):
        params.n_outputs_max = params.n_outputs_max_per_seq = chunk_len
    context = peer.llama_init_from_model(model, params)
    assert context, "llama.cpp makes no context"
    batch = peer.llama_batch_init(chunk_len, 0, 1)
    out, seconds = [], 0.0
    for tokens in reference.chunks:
        peer.llama_memory_clear(peer.llama_get_memory(context), True)
        batch.n_tokens = chunk_len
        for position, token in enumerate(tokens.tolist()):
            batch.token[position] = token
            batch.pos[position] = position
            batch.n_seq_id[position] = 1
            batch.seq_id[position][0] = 0
            batch.logits[position] = True
        began = time.perf_counter()
        assert peer.llama_decode(context, batch) == 0, "llama.cpp does not decode"
        peer.llama_synchronize(context)
        seconds += time.perf_counter() - began
        for position in range(reference.first, chunk_len - 1):
            row = peer.llama_get_logits_ith(context, position)
            out.append(np.ctypeslib.as_array(row, (reference.n_vocab,)).copy())
    peer.llama_batch_free(batch)
    peer.llama_free(context)
    peer.llama_model_free(model)
    return out, n_chunks * chunk_len / seconds


def line(name, found, rate):
    print(f"{name:22} {found['perplexity']:9.4f} ± {found['perplexity_error']:.4f}"
          f"  {found['kl_mean']:.6f} ± {found['kl_mean_error']:.6f}  {found['kl_median']:.6f}"
          f"  {found['kl_percentile_99']:.6f}  {found['kl_max']:.6f}"
          f"  {100 * found['same_top_share']:6.2f} %  {rate:8.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ingle")
    parser.add_argument("file")
    parser.add_argument("--text", default=str(TEXT))
    parser.add_argument("--isa", default="", help="Ingle's tiers, with commas, the best last")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ctx-chunk", type=int, default=512)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        exact, ours = os.path.join(folder, "f32"), os.path.join(folder, "ours")
        told = run_ingle(args, None, exact, "--against", "f32")
        reference = Logits(exact)
        n_chunks, chunk_len = reference.chunks.shape
        print(f"{len(reference.rows)} tokens scored, the second halves of {n_chunks} chunks of "
              f"{chunk_len}, {args.threads} threads")
        print(f"{'':22} {'perplexity':18}  {'mean KL':19}  {'median':8}  {'99 %':8}  {'maximum':8}"
              f"  {'same top':8}  {'tokens/s':>8}")
        found, _ = figures(reference.rows, reference)
        line("weights in f32", found, told["against"]["tokens_per_second"])
        for isa in args.isa.split(","):
            alone = run_ingle(args, isa, ours)
            best, divergences = figures(Logits(ours).rows, reference)
            line(f"ingle, {alone['isa']}", best, alone["tokens_per_second"])
            if alone["isa"] == told["isa"]:
                check(told, best)
        rows, rate = peer_rows(args, reference)
        theirs, their_divergences = figures(rows, reference)
        line("llama.cpp", theirs, rate)
    ratio = best["perplexity"] / theirs["perplexity"]
    difference, error = mean_and_error(divergences - their_divergences)
    print(f"ingle to llama.cpp: perplexity {100 * (ratio - 1):+.3f} %, mean KL "
          f"{100 * (best['kl_mean'] / theirs['kl_mean'] - 1):+.2f} % "
          f"({difference:+.6f} ± {error:.6f}, position by position)")


if __name__ == "__main__":
    main()
