"""OpenRouter, OpenAI and Anthropic as their wires look, on one port: the real ones are paid.

Each says what it heard and who it is, calls the tool it is given with arguments of its schema, answers a response
format with JSON of its schema, and fails when it was told to. All requests are kept.
"""
import json
import threading
from collections import defaultdict, deque
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

PATHS = {
    "/openrouter/api/v1/chat/completions": "openrouter",
    "/openai/v1/chat/completions": "openai",
    "/anthropic/v1/messages": "anthropic",
}
KEYS = {
    "openrouter": "sk-or-v1-0123456789abcdef",
    "openai": "sk-proj-0123456789abcdef",
    "anthropic": "sk-ant-api03-0123456789abcdef",
}
# What `openrouter/auto` chooses from.
MODELS = ["openai/gpt-4o-mini", "openai/gpt-3.5-turbo", "anthropic/claude-3-haiku", "anthropic/claude-3-opus"]
CUT = "cut"
PIECES = 4


class Providers:
    """The three, as long as the `with` lasts."""

    def __init__(self):
        self.heard = []
        self.lock = threading.Lock()
        self.faults = defaultdict(deque)

    @contextmanager
    def serving(self):
        server = Server(("127.0.0.1", 0), type("Handler", (Handler,), {"providers": self}))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def environment(self):
        """The variables by which Ingle finds them."""
        return {
            "OPENROUTER_BASE_URL": f"{self.url}/openrouter/api/v1",
            "OPENAI_BASE_URL": f"{self.url}/openai/v1",
            "ANTHROPIC_BASE_URL": f"{self.url}/anthropic",
            **{f"{name.upper()}_API_KEY": key for name, key in KEYS.items()},
        }

    def fail(self, provider, *statuses):
        """The next requests to `provider` end so: a status, or `CUT` for an answer that breaks off."""
        self.faults[provider].extend(statuses)

    def take(self):
        """What was heard since the last time: (provider, body, headers)."""
        with self.lock:
            heard, self.heard = self.heard, []
        return heard


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """Whoever asked has left: that is their right."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    providers = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        # Prices are those of the program: nobody here has a list.
        self.send_json(404, {"error": {"code": 404, "message": "not here"}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        provider = PATHS.get(self.path)
        if provider is None:
            return self.send_json(404, {"error": {"message": f"no {self.path}"}})
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.providers.lock:
            self.providers.heard.append((provider, body, headers))
            faults = self.providers.faults[provider]
            status = faults.popleft() if faults else 200
        sent = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if sent != KEYS[provider]:
            status = 401
        if status not in (200, CUT):
            return self.send_json(status, failure(provider, status))
        answer = Answer(provider, body)
        if provider == "anthropic":
            whole, events = answer.message(), answer.message_events()
        else:
            whole, events = answer.completion(), answer.chunks()
        if body.get("stream"):
            self.send_events(events, PIECES if status == CUT else None)
        else:
            self.send_json(200, whole)

    def send_json(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_events(self, events, most):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for event in islice(events, most):
                data = event.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
            if most is not None:
                self.close_connection = True
                return
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True


def failure(provider, status):
    """The error of this status, as this provider words it."""
    if provider == "anthropic":
        kind = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": f"scripted {status}"}, "request_id": "req_1"}
    code = status if provider == "openrouter" else {429: "rate_limit_exceeded"}.get(status)
    return {"error": {"code": code, "type": "server_error", "message": f"scripted {status}"}}


class Answer:
    """What a provider says to a request."""

    def __init__(self, provider, body):
        self.provider, self.body, self.model = provider, body, body["model"]
        if self.model == "openrouter/auto":
            allowed = [glob for plugin in body.get("plugins", []) for glob in plugin.get("allowed_models", [])]
            self.model = next(one for one in MODELS if not allowed or any(fnmatch(one, glob) for glob in allowed))
        self.call = self.tool_call()
        self.text = "" if self.call else self.words()
        self.prompt_tokens = len(json.dumps(body["messages"])) // 4 + 1
        self.completion_tokens = max(1, len(self.text) // 4)

    def words(self):
        schema = (self.body.get("response_format") or {}).get("json_schema", {}).get("schema")
        schema = schema or (self.body.get("output_config") or {}).get("format", {}).get("schema")
        if schema:
            return json.dumps(self.example(schema))
        text = f"{self.provider} {self.model} heard: {last_text(self.body['messages'])}"
        stops = self.body.get("stop") or self.body.get("stop_sequences") or []
        for stop in [stops] if isinstance(stops, str) else stops:
            text = text.split(stop)[0]
        return text

    def tool_call(self):
        tools = self.body.get("tools") or []
        choice = self.body.get("tool_choice") or "auto"
        if not tools or choice == "none" or self.body["messages"][-1]["role"] == "tool" or has_result(self.body):
            return None
        named = choice.get("name") or choice.get("function", {}).get("name") if isinstance(choice, dict) else None
        tools = [tool.get("function", tool) for tool in tools]
        tool = next((tool for tool in tools if tool["name"] == named), tools[0])
        schema = tool.get("parameters") or tool.get("input_schema") or {}
        return {"name": tool["name"], "arguments": json.dumps(self.example(schema))}

    def example(self, schema):
        return example(schema, schema, last_text(self.body["messages"]))

    # OpenAI's and OpenRouter's.

    def usage(self):
        total = self.prompt_tokens + self.completion_tokens
        usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
                 "total_tokens": total}
        return {**usage, "cost": total / 1e6} if self.provider == "openrouter" else usage

    def envelope(self, kind):
        envelope = {"id": "gen-1", "object": kind, "created": 1, "model": self.model}
        return {**envelope, "provider": "Scripted"} if self.provider == "openrouter" else envelope

    def calls(self):
        return [{"index": 0, "id": "call_1", "type": "function", "function": self.call}]

    def completion(self):
        message = {"role": "assistant", "content": self.text or None}
        if self.call:
            message["tool_calls"] = self.calls()
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if self.call else "stop"}
        return {**self.envelope("chat.completion"), "choices": [choice], "usage": self.usage()}

    def chunks(self):
        def chunk(delta, finish=None, **more):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return data({**self.envelope("chat.completion.chunk"), "choices": [choice], **more})

        if self.provider == "openrouter":
            yield ": OPENROUTER PROCESSING\n\n"
        yield chunk({"role": "assistant", "content": ""})
        for piece in pieces(self.text):
            yield chunk({"content": piece})
        if self.call:
            first = {**self.calls()[0], "function": {"name": self.call["name"], "arguments": ""}}
            yield chunk({"tool_calls": [first]})
            for piece in pieces(self.call["arguments"]):
                yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        finish = "tool_calls" if self.call else "stop"
        if self.provider == "openrouter":
            yield chunk({"content": ""}, finish, usage=self.usage())
        else:
            yield chunk({}, finish)
            if (self.body.get("stream_options") or {}).get("include_usage"):
                yield data({**self.envelope("chat.completion.chunk"), "choices": [], "usage": self.usage()})
        yield "data: [DONE]\n\n"

    # Anthropic's.

    def message(self, content=None):
        if content is None and self.call:
            arguments = json.loads(self.call["arguments"])
            content = [{"type": "tool_use", "id": "toolu_1", "name": self.call["name"], "input": arguments}]
        elif content is None:
            content = [{"type": "text", "text": self.text}]
        usage = {"input_tokens": self.prompt_tokens, "output_tokens": self.completion_tokens if content else 1}
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": self.model, "content": content,
                "stop_reason": self.stop_reason() if content else None, "stop_sequence": None, "usage": usage}

    def stop_reason(self):
        return "tool_use" if self.call else "end_turn"

    def message_events(self):
        def event(kind, **more):
            return f"event: {kind}\n" + data({"type": kind, **more})

        yield event("message_start", message=self.message(content=[]))
        if self.call:
            block = {"type": "tool_use", "id": "toolu_1", "name": self.call["name"], "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(self.call["arguments"])]
        else:
            block = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(self.text)]
        yield event("content_block_start", index=0, content_block=block)
        yield event("ping")
        for delta in deltas:
            yield event("content_block_delta", index=0, delta=delta)
        yield event("content_block_stop", index=0)
        delta = {"stop_reason": self.stop_reason(), "stop_sequence": None}
        yield event("message_delta", delta=delta, usage={"output_tokens": self.completion_tokens})
        yield event("message_stop")


def data(value):
    return f"data: {json.dumps(value)}\n\n"


def pieces(text):
    size = max(1, len(text) // PIECES)
    return [text[at:at + size] for at in range(0, len(text), size)]


def last_text(messages):
    content = messages[-1].get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text") or str(part.get("content", "")) for part in content)


def has_result(body):
    content = body["messages"][-1].get("content")
    return isinstance(content, list) and any(part.get("type") == "tool_result" for part in content)


def example(schema, root, text):
    """A value that a schema allows; texts in it are `text`."""
    if "$ref" in schema:
        found = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return example(found, root, text)
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return example(schema[several][0], root, text)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object":
        return {name: example(of, root, text) for name, of in schema.get("properties", {}).items()}
    return {"array": [text], "integer": 3, "number": 3.5, "boolean": True}.get(kind, text)
