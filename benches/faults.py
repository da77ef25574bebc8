#!/usr/bin/env python3
"""What becomes of a provider's faults: the same ones, played to Ingle and to LiteLLM, seen by the same client.

    benches/faults.py --litellm PATH | --install FOLDER  [--ingle target/debug/ingle] [--only FAULT …] [--write docs/faults.md]

The provider is the scripted server of the tests (`tests/it/provider_server`), which cargo builds and this starts. Each case
has a provider of its own in both gateways, so that what one case breaks no other sees, and all of them share one good backup.
Ingle and LiteLLM play one after the other, with the same time limits. Everything is on loopback and ends by itself.
"""
import argparse
import concurrent.futures
import http.client
import json
import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import programs
from faults_seen import COLUMNS, DEADLINE, FIRST, HEADING, LONG_WAIT, SHAPES, TOTAL, classify, paid_twice, section, totals
from programs import Program

AT_ONCE = 96
# They take their time: they begin first.
SLOW = ("silence", "headers-then-silence", "comments-forever", "roles-then-silence", "stall-after-20", "retry-date-60", "long-line")


class Provider(Program):
    """The scripted server: it tells its record when asked, and ends with its input."""

    def __init__(self, cargo, log):
        super().__init__([*cargo, "test", "--locked", "--test", "it", "--", "--ignored", "--exact", "--nocapture",
                          "provider_server::alone::serves_until_its_input_ends"], log)
        first = self.told()
        self.url, self.faults = first["url"], first["faults"]

    def told(self):
        for line in self.process.stdout:
            if "{" in line:
                return json.loads(line[line.index("{"):])
        raise SystemExit(f"the scripted provider did not start: {self.log.name}")

    def record(self):
        """What was asked, by case."""
        print(file=self.process.stdin, flush=True)
        by_case = {}
        for one in self.told()["asked"]:
            if case := re.search(r"case (\w+)\.", json.dumps(one["messages"])):
                by_case.setdefault(case.group(1), []).append(one)
        return by_case

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.log.close()


def cases(faults, only):
    made = [{"fault": fault, "shape": shape, "is_stream": is_stream, "has_backup": has_backup}
            for fault in faults if not only or fault in only
            for shape in SHAPES for is_stream, has_backup in COLUMNS]
    for n, case in enumerate(made):
        case["id"] = f"c{n}"
    return sorted(made, key=lambda case: case["fault"] not in SLOW)


def base(url, shape):
    return url + {"OpenAI": "/v1", "OpenRouter": "/api/v1", "Anthropic": ""}[shape]


def ingle(program, home, provider, played):
    home.mkdir(parents=True)
    prices = '[backup]\n"say:8" = { prompt = "10", completion = "100" }\n'
    config = ('[router]\nhedge_budget = 0.0\nfallback_chain = [["backup", "say:8"]]\n'
              f'[providers.backup]\ndialect = "compatible"\nbase_url = "{base(provider.url, "OpenAI")}"\n')
    for case in played:
        prices += f'[{case["id"]}]\n"fault:{case["fault"]}" = {{ prompt = "10", completion = "100" }}\n'
        config += (f'[providers.{case["id"]}]\ndialect = "{case["shape"].lower()}"\napi_key = "none"\n'
                   f'base_url = "{base(provider.url, case["shape"])}"\nfirst_content_timeout_ms = {FIRST}000\n'
                   f'idle_timeout_ms = {FIRST}000\ntotal_timeout_ms = {TOTAL}000\n')
    (home / "prices.toml").write_text('date = "2026-11-26"\nsource = "this bench"\n' + prices)
    (home / "ingle.toml").write_text(config)
    server = programs.ingle(program, home)
    server.headers = {}
    server.name = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return server


def ingle_body(case):
    mine = {"enable_fallback": case["has_backup"], "preferences": {"acceptable_models": [f"{case['id']}:*", "backup:*"]}}
    return {"model": f"{case['id']}:fault:{case['fault']}", "ingle": mine}


def litellm(program, home, provider, played):
    """As its own pages on reliability and timeouts have it, with continuation switched on where it is known."""
    home.mkdir(parents=True)
    python = Path(program).parent / "python"
    about = "import importlib.metadata as m, importlib.util as u, pathlib as p; print(m.version('litellm')); " \
            "print('enable_mid_stream_fallback_continuation' in p.Path(u.find_spec('litellm').origin).with_name('router.py').read_text())"
    version, continues = subprocess.run([python, "-c", about], capture_output=True, text=True, check=True).stdout.split()
    models = [{"model_name": "backup", "model_info": {"supports_assistant_prefill": True}, "litellm_params": {
        "model": "openai/say:8", "api_base": base(provider.url, "OpenAI"), "api_key": "none"}}]
    for case in played:
        models.append({"model_name": case["id"], "litellm_params": {
            "model": f"{case['shape'].lower()}/fault:{case['fault']}", "api_base": base(provider.url, case["shape"]),
            "api_key": "none", "timeout": TOTAL, "stream_timeout": FIRST}})
    other = [{case["id"]: ["backup"]} for case in played if case["has_backup"]]
    router = {"num_retries": 2, "timeout": TOTAL, "stream_timeout": FIRST, "fallbacks": other,
              "context_window_fallbacks": other, "content_policy_fallbacks": other}
    if continues == "True":
        router["enable_mid_stream_fallback_continuation"] = True
    key = f"sk-{secrets.token_hex(24)}"
    config = {"model_list": models, "router_settings": router, "litellm_settings": {"num_retries": 2, "request_timeout": TOTAL},
              "general_settings": {"master_key": key}}
    (home / "config.yaml").write_text(json.dumps(config))  # JSON is YAML.
    server = programs.litellm(program, home)
    server.headers = {"authorization": f"Bearer {key}"}
    server.name = f"LiteLLM {version}"
    server.settings = ("`num_retries: 2`, `fallbacks`, `context_window_fallbacks` and `content_policy_fallbacks` to the backup"
                       + (", `enable_mid_stream_fallback_continuation: true` (off unless asked for)" if continues == "True" else ""))
    return server


def litellm_body(case):
    return {"model": case["id"]}


def install(folder):
    """A virtual environment with the newest LiteLLM that installs."""
    program = Path(folder) / "bin" / "litellm"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([program.with_name("pip"), "install", "--quiet", "litellm[proxy]"], check=True)
    return str(program)


def ask(server, body, deadline):
    """Status, whether it is a stream, bytes, and how they ended: `whole`, `broken` or `late`."""
    until = time.monotonic() + deadline
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=deadline)
    status, is_stream, read = 0, False, bytearray()
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json", **server.headers})
        answer = connection.getresponse()
        status = answer.status
        is_stream = answer.getheader("content-type", "").startswith("text/event-stream")
        while True:
            # The connection itself is given away where the answer ends with it.
            if connection.sock:
                connection.sock.settimeout(max(until - time.monotonic(), 0.01))
            piece = answer.read1(1 << 16)
            if not piece:
                return status, is_stream, bytes(read), "broken" if answer.length else "whole"
            read += piece
            if time.monotonic() > until:
                return status, is_stream, bytes(read), "late"
    except TimeoutError:
        return status, is_stream, bytes(read), "late"
    except (http.client.HTTPException, OSError):
        return status, is_stream, bytes(read), "broken"
    finally:
        connection.close()


def play(server, body_of, played, provider):
    """Outcomes by case."""
    def one(case):
        began = time.monotonic()
        body = {**body_of(case), "messages": [{"role": "user", "content": f"count, in case {case['id']}."}],
                "max_tokens": 500, "stream": case["is_stream"]}
        answer = ask(server, body, DEADLINE)
        return case, time.monotonic() - began, answer

    before = {name: len(asked) for name, asked in provider.record().items()}
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(one, played))
    record, outcomes = provider.record(), {}
    for case, took, (status, is_stream, body, end) in answers:
        asked = record.get(case["id"], [])[before.get(case["id"], 0):]
        outcome, seen = classify(case, status, is_stream, body, end, asked)
        outcomes[case["id"]] = {**case, "class": outcome, "seen": seen, "paid_twice": paid_twice(outcome, seen, asked),
                                "is_late": took > LONG_WAIT, "seconds": round(took, 1), "n_asked": len(asked),
                                "billed": [one["billed_tokens"] for one in asked],
                                "status": status, "end": end, "body": body[-1500:].decode("utf-8", "replace")}
    return outcomes


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--ingle", default="target/debug/ingle")
    arguments.add_argument("--litellm", help="LiteLLM's program")
    arguments.add_argument("--install", help="a folder for a virtual environment with LiteLLM, made if it is not there")
    arguments.add_argument("--cargo", default="cargo", help="what builds and starts the scripted provider")
    arguments.add_argument("--only", nargs="*", help="these faults only")
    arguments.add_argument("--write", help="the page whose second table this is")
    arguments.add_argument("--note", default="", help="what the page is to say of LiteLLM's installation")
    arguments.add_argument("--json", help="a file for all outcomes")
    options = arguments.parse_args()
    peer_program = options.litellm or (install(options.install) if options.install else None)
    running, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            provider = Provider(options.cargo.split(), folder / "provider.log")
            running.append(provider)
            played = cases(provider.faults, options.only)
            both = (("ingle", ingle, ingle_body, options.ingle), ("litellm", litellm, litellm_body, peer_program))
            for name, start, body_of, program in both:
                if not program:
                    continue
                server = start(program, folder / name, provider, played)
                running.append(server)
                began = time.monotonic()
                found[name] = (server, play(server, body_of, played, provider))
                print(f"{server.name}: {len(played)} cases in {time.monotonic() - began:.0f} s", flush=True)
                running.remove(server)
                server.stop()
        finally:
            for process in reversed(running):
                process.stop()
    if options.json:
        Path(options.json).write_text(json.dumps({name: outcomes for name, (_, outcomes) in found.items()}, indent=1))
    print(totals([(server.name, outcomes) for server, outcomes in found.values()]))
    if len(found) == 2:
        text = section(found["ingle"][1], found["litellm"][1], found["litellm"][0], provider.faults, options.note)
        if options.write:
            page = Path(options.write)
            page.write_text(page.read_text().split(f"\n{HEADING}")[0].rstrip() + "\n\n" + text)
        else:
            print(text)


if __name__ == "__main__":
    sys.exit(main())
