"""Other engines, each in a process of its own that keeps its model warm: see side_by_side.py.

    workers.py PEER MODEL.gguf THREADS POINTS

POINTS is the JSON list of points that `ingle bench engine --turns` writes. The first line written is
{"version": …}; each line read is the number of a point and is answered with {"tokens_per_second": …}.
What goes wrong is {"error": …} instead.
"""
import ctypes
import json
import os
import random
import sys
import threading
import urllib.request
from pathlib import Path

WORDS = ("the of and to in a is that for it as was with be by on not he his but at are this have from "
         "or had an they which one you were all her she there would their we him been has when who").split()


class Unable(Exception):
    """This engine has no way to compute the point."""


class LlamaCpp:
    """llama.cpp through its C interface: exact batches, one context for each number of sequences."""
    N_BATCH, N_UBATCH = 2048, 512  # llama.cpp's own defaults

    def __init__(self, model, n_threads, points):
        import llama_cpp
        self.lib, self.n_threads, self.points = llama_cpp, n_threads, points
        llama_cpp.llama_backend_init()
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, None)
        self.model = llama_cpp.llama_model_load_from_file(
            model.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {model}")
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(self.N_BATCH, 0, 1)
        self.contexts = {}
        system = llama_cpp.llama_print_system_info().decode()
        on = [part.split(" = ")[0].split(" : ")[-1].strip() for part in system.split("|") if " = 1" in part]
        self.version = f"llama-cpp-python {llama_cpp.__version__}: {' '.join(on)}"

    def context(self, n_sequences):
        """The context for so many sequences, and the depth it is filled to."""
        if n_sequences not in self.contexts:
            ends = [p["depth"] + p["tokens"] for p in self.points if p["batch"] == n_sequences]
            params = self.lib.llama_context_default_params()
            params.n_seq_max = n_sequences
            params.n_ctx = n_sequences * (-(-max(ends) // 256) * 256)
            params.n_batch, params.n_ubatch = self.N_BATCH, self.N_UBATCH
            params.n_threads = params.n_threads_batch = self.n_threads
            params.no_perf, params.kv_unified = True, False
            context = self.lib.llama_init_from_model(self.model, params)
            if not context:
                raise RuntimeError(f"llama.cpp makes no context of {params.n_ctx} tokens")
            self.contexts[n_sequences] = [context, 0]
        return self.contexts[n_sequences]

    def decode(self, context, rows, wanted):
        """Computes rows of (token, position, sequence); `wanted` tells whose logits are."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = wanted(i)
        code = self.lib.llama_decode(context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode says {code}")

    def greatest(self, context, row):
        import numpy
        logits = self.lib.llama_get_logits_ith(context, row)
        return int(numpy.ctypeslib.as_array(logits, (self.n_vocab,)).argmax())

    def prompt(self, context, sequence, begin, end):
        for start in range(begin, end, self.N_BATCH):
            stop = min(end, start + self.N_BATCH)
            rows = [(random.randrange(self.n_vocab), position, sequence) for position in range(start, stop)]
            self.decode(context, rows, lambda i: stop == end and i == len(rows) - 1)
        if end > begin:
            self.greatest(context, -1)

    def fill(self, entry, depth, n_sequences):
        context, filled = entry
        memory = self.lib.llama_get_memory(context)
        for sequence in range(n_sequences):
            self.lib.llama_memory_seq_rm(memory, sequence, min(depth, filled), -1)
        if filled < depth:
            self.prompt(context, 0, filled, depth)
            for sequence in range(1, n_sequences):
                self.lib.llama_memory_seq_rm(memory, sequence, -1, -1)
                self.lib.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
        entry[1] = depth

    def measure(self, point, clock):
        n_sequences, depth, n_tokens = point["batch"], point["depth"], point["tokens"]
        entry = self.context(n_sequences)
        self.fill(entry, depth, n_sequences)
        context = entry[0]
        tokens = [random.randrange(self.n_vocab) for _ in range(n_sequences)]
        begun = clock()
        if point["test"] == "prompt":
            self.prompt(context, 0, depth, depth + n_tokens)
        else:
            for position in range(depth, depth + n_tokens):
                self.decode(context, [(t, position, s) for s, t in enumerate(tokens)], lambda _: True)
                tokens = [self.greatest(context, row) for row in range(n_sequences)]
        return n_sequences * n_tokens / (clock() - begun)


class XLlamaCpp:
    """llama.cpp's server, as the xllamacpp wheel ships it; the rates are the server's own."""

    def __init__(self, model, n_threads, points):
        import xllamacpp
        n_sequences = max(p["batch"] for p in points)
        end = max(p["depth"] + p["tokens"] for p in points) + 8
        params = xllamacpp.CommonParams()
        params.model.path, params.verbosity = model, -1
        params.n_parallel, params.n_ctx = n_sequences, n_sequences * (-(-end // 256) * 256)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
        self.server = xllamacpp.Server(params)
        self.url = self.server.listening_address
        self.prefixes = [[] for _ in range(n_sequences)]
        self.version = f"xllamacpp {xllamacpp.__version__}"

    def complete(self, slot, ids, n_tokens):
        body = {"prompt": ids, "n_predict": n_tokens, "temperature": 0, "ignore_eos": True,
                "cache_prompt": True, "id_slot": slot}
        request = urllib.request.Request(f"{self.url}/completion", json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["timings"]

    def ids(self, n):
        return [random.randrange(300, 3000) for _ in range(n)]

    def measure(self, point, clock):
        depth, n_tokens, slots = point["depth"], point["tokens"], range(point["batch"])
        for slot in slots:
            prefix = self.prefixes[slot]
            if len(prefix) < depth:
                prefix += self.ids(depth - len(prefix))
                self.complete(slot, prefix, 1)
        if point["test"] == "prompt":
            timings = self.complete(0, self.prefixes[0][:depth] + self.ids(n_tokens), 1)
            return 1000 * timings["prompt_n"] / timings["prompt_ms"]
        # The prompt's last token gives the first one of the answer.
        ask = lambda slot: self.complete(slot, self.prefixes[slot][:depth] + self.ids(1), n_tokens + 1)
        timings = together(ask, slots)
        return sum(1000 * (t["predicted_n"] - 1) / t["predicted_ms"] for t in timings)


class OpenVino:
    """OpenVINO GenAI, which reads some GGUF files itself (with a SentencePiece vocabulary it ends with
    `map::at`: write models with the vocabulary of a byte-level one); the rates are its own."""

    def __init__(self, model, n_threads, points):
        import openvino_genai
        self.genai = openvino_genai
        self.pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=n_threads)
        self.version = f"openvino-genai {openvino_genai.__version__}"

    def generate(self, n_sequences, n_prompt, n_tokens):
        import numpy
        import openvino
        ids = numpy.random.randint(300, 3000, size=(n_sequences, n_prompt), dtype=numpy.int64)
        config = self.genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = n_tokens, True, False
        inputs = self.genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
        return self.pipeline.generate(inputs, config).perf_metrics

    def measure(self, point, clock):
        depth, n_tokens, n_sequences = point["depth"], point["tokens"], point["batch"]
        if point["test"] == "prompt":
            if depth > 0:
                raise Unable("it keeps no context from one call to the next")
            return 1000 * n_tokens / self.generate(1, n_tokens, 1).get_ttft().mean
        metrics = self.generate(n_sequences, depth + 1, n_tokens + 1)
        decoding_ms = metrics.get_generate_duration().mean - metrics.get_ttft().mean
        return 1000 * n_sequences * n_tokens / decoding_ms


class MistralRs:
    """mistral.rs; the rates are its own. It takes text only, so prompts are about as long as asked, and
    its Python interface takes one request at a time."""

    def __init__(self, model, n_threads, points):
        os.environ["RAYON_NUM_THREADS"] = str(n_threads)
        os.environ.setdefault("RUST_LOG", "error")
        import importlib.metadata
        import mistralrs
        self.lib, path = mistralrs, Path(model).resolve()
        which = mistralrs.Which.GGUF(quantized_model_id=str(path.parent), quantized_filename=path.name)
        self.runner = mistralrs.Runner(which=which, max_seqs=max(p["batch"] for p in points),
                                       prefix_cache_n=0, token_source="none")
        self.words_per_token = 64 / self.complete(64, 1).prompt_tokens
        self.version = f"mistralrs {importlib.metadata.version('mistralrs')}"

    def complete(self, n_words, n_tokens):
        prompt = " ".join(random.choices(WORDS, k=n_words))
        return self.runner.send_completion_request(self.lib.CompletionRequest(
            prompt=prompt, model="default", max_tokens=n_tokens, temperature=0.0, ignore_eos=True)).usage

    def measure(self, point, clock):
        depth, n_tokens = point["depth"], point["tokens"]
        n_words = lambda n: max(1, round(n * self.words_per_token))
        if point["test"] == "prompt":
            if depth > 0:
                raise Unable("it keeps no context from one call to the next")
            usage = self.complete(n_words(n_tokens), 1)
            return usage.prompt_tokens / usage.total_prompt_time_sec
        if point["batch"] > 1:
            raise Unable("its Python interface takes one request at a time")
        usage = self.complete(n_words(depth), n_tokens + 1)
        return (usage.completion_tokens - 1) / usage.total_completion_time_sec


def together(call, arguments):
    """Calls with each argument at the same time."""
    results, errors = {}, []

    def one(argument):
        try:
            results[argument] = call(argument)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[argument] for argument in arguments]


PEERS = {"llama.cpp": LlamaCpp, "xllamacpp": XLlamaCpp, "openvino": OpenVino, "mistralrs": MistralRs}


def main():
    import time
    # Libraries write to stdout what they like: the answers go where they cannot.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer, model, n_threads, points = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    def attempt(call, key):
        try:
            answer({key: call()})
            return True
        except BaseException as error:  # some engines' errors are no Exception
            answer({"error": str(error) or type(error).__name__})
            return False

    engine = None

    def start():
        nonlocal engine
        engine = PEERS[peer](model, n_threads, points)
        return engine.version

    if attempt(start, "version"):
        for line in sys.stdin:
            point = points[int(line)]
            attempt(lambda: engine.measure(point, time.perf_counter), "tokens_per_second")
    answers.flush()
    # Some engines' threads would hold the process up.
    os._exit(0)


if __name__ == "__main__":
    main()
