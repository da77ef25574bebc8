"""What a client was told of a provider's faults, by the rules of `tests/it/router/wall.rs`, and the tables of that."""
import datetime
import json
import re
import textwrap

SHAPES = ("OpenAI", "OpenRouter", "Anthropic")
COLUMNS = [(True, True), (False, True), (True, False), (False, False)]  # is_stream, has_backup
# Of both gateways, in seconds: to the first content, to the end. Of the client: to the end of everything.
FIRST, TOTAL, DEADLINE = 10, 30, 300
LONG_WAIT = 150
WHOLE = "".join("é世🙂 " if n == 2 else f"t{n} " for n in range(8))
LONG = "".join("é世🙂 " if n == 2 else f"t{n} " for n in range(200))
RIGHT, ERROR, CUT, WRONG, HANG = "right answer", "typed error", "silently cut", "wrong", "hangs"
TWICE, LATE = "paid twice", f"after more than {LONG_WAIT} s"
CLASSES = (RIGHT, ERROR, CUT, WRONG, HANG)
HEADING = "## The same through LiteLLM"



def is_error(value):
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and bool(error.get("message")) and (bool(error.get("code")) or bool(error.get("type")))


class Told:
    """What an answer said."""

    def __init__(self):
        self.text, self.reason, self.error, self.is_labelled = "", None, None, False
        self.calls, self.is_odd, self.n_choices = {}, False, 0

    def add(self, choice, what):
        part = choice.get(what) or {}
        self.n_choices += 1
        self.text += part.get("content") or ""
        self.reason = choice.get("finish_reason") or self.reason
        for n, call in enumerate(part.get("tool_calls") or []):
            function = call.get("function") or {}
            self.calls[call.get("index", n)] = self.calls.get(call.get("index", n), "") + (function.get("arguments") or "")


def told(body, is_stream):
    said = Told()
    text = body.decode("utf-8", "replace")
    events = [] if is_stream else [text]
    if is_stream:
        for block in re.split(r"\r?\n\r?\n", text):
            data = [line[5:].removeprefix(" ") for line in block.splitlines() if line.startswith("data:")]
            events += ["\n".join(data)] if data else []
    for event in events:
        if event.strip() in ("", "[DONE]"):
            continue
        try:
            value = json.loads(event)
        except ValueError:
            said.is_odd = True
            continue
        if not isinstance(value, dict):
            said.is_odd = True
            continue
        if value.get("error"):
            said.error = value["error"]
            said.is_odd |= not is_error(value)
            continue
        said.is_labelled |= bool((value.get("ingle") or {}).get("continued_by"))
        for choice in value.get("choices") or []:
            said.add(choice, "delta" if "delta" in choice else "message")
    return said


def arguments(calls):
    """What the calls ask with; none where that is no JSON."""
    try:
        return [json.loads(text or "{}") for text in calls.values()]
    except ValueError:
        return None


def said_whole(case, said):
    """Whether this is all that the provider had to say."""
    if case["fault"] == "long-line":
        return said.text == "x" * (10 << 20)
    if case["fault"] == "tool-call":
        return said.text == "t0 " and arguments(said.calls) == [{"city": "Paris"}]
    if case["fault"] == "tool-call-at-once":
        return not said.text and arguments(said.calls) == [{}]
    # Of this one the provider itself says that it is broken.
    return case["fault"] != "whole-error" and said.text == WHOLE and not said.calls


def classify(case, status, is_stream, body, end, asked):
    """The class, and what was seen in a few words."""
    said = told(body, is_stream)
    backup = [one for one in asked if one["model"] == "say:8"]
    shown = "text, then " if said.text or said.calls else ""
    if end == "late":
        return HANG, shown + "nothing"
    code = said.error.get("code") or said.error.get("type") if isinstance(said.error, dict) else None
    if status != 200:
        return (WRONG, f"{status} without an error object") if said.is_odd or not said.error else (ERROR, f"error `{code}`")
    if said.error is not None:
        return (WRONG, shown + "an error without type or code") if said.is_odd else (ERROR, f"{shown}error `{code}`")
    if end == "broken":
        return WRONG, shown + "the connection breaks"
    if said.reason == "error":
        return ERROR, f"{shown}finish_reason `error`"
    if said.is_odd or not said.n_choices:
        return WRONG, "no answer at all"
    if said_whole(case, said) and not backup:
        return RIGHT, "answers"
    if backup and not said.calls and said.text.endswith(WHOLE) and LONG.startswith(part := said.text.removesuffix(WHOLE)):
        # A backup that begins as the provider did is not heard twice.
        if any((before := said_before(one)) and said.text.startswith(before) for one in backup):
            return RIGHT, "backup goes on, labelled" if said.is_labelled else "backup goes on, unlabelled"
        return (WRONG, "text, then another answer from its beginning") if part else (RIGHT, "backup answers")
    if case["fault"] == "whole-error" and said.text == WHOLE:
        return CUT, "what the provider calls broken, as a whole answer"
    pieces = said.text.split()
    if said.calls:
        return CUT, "half a tool call, as a whole answer"
    if not said.text:
        return CUT, "an empty answer, as a whole one"
    if LONG.startswith(said.text) or (case["fault"].startswith("malformed") and all(piece in LONG for piece in pieces)):
        return CUT, "part of the text, as a whole answer"
    return WRONG, f"{said.text[:40]!r}"


def said_before(request):
    """What a backup is told that was said already."""
    last = request["messages"][-1]
    return str(last.get("content")).strip() if last.get("role") == "assistant" else ""


def paid_twice(outcome, seen, asked):
    """Whether two attempts were billed for their words, and those of one only reached the client."""
    billed = [one for one in asked if one["billed_tokens"]]
    return outcome == RIGHT and "goes on" not in seen and len(billed) > 1


def grouped(outcomes):
    """Outcomes by fault and column, in the order of the shapes."""
    cells = {}
    for outcome in outcomes.values():
        cells.setdefault((outcome["fault"], outcome["is_stream"], outcome["has_backup"]), []).append(outcome)
    for cell in cells.values():
        cell.sort(key=lambda outcome: SHAPES.index(outcome["shape"]))
    return cells


def kind(outcome):
    return (outcome["class"], outcome["paid_twice"], outcome["is_late"])


def cell_text(ours, theirs):
    """What LiteLLM did where that is of another class; what all three shapes have in common is said once."""
    def said(our, their):
        if kind(our) == kind(their):
            return "="
        worst = "" if their["class"] in (RIGHT, ERROR) else f"**{their['class']}**: "
        late = f", after about {round(their['seconds'], -1):.0f} s" if their["is_late"] else ""
        return worst + their["seen"] + late + (", **paid twice**" if their["paid_twice"] else "")

    texts = [said(our, their) for our, their in zip(ours, theirs)]
    if len(set(texts)) == 1:
        return texts[0]
    by_text = {text: [SHAPES[n] for n, other in enumerate(texts) if other == text] for text in texts}
    return "; ".join(f"{', '.join(shapes)}: {text}" for text, shapes in by_text.items())


def totals(named):
    lines = ["| | " + " | ".join(name for name, _ in named) + " |", "|---|" + "---|" * len(named)]
    for what in (*CLASSES, TWICE, LATE):
        counts = []
        for _, outcomes in named:
            is_hit = {TWICE: lambda o: o["paid_twice"], LATE: lambda o: o["is_late"]}.get(what, lambda o: o["class"] == what)
            hits = [o for o in outcomes.values() if is_hit(o)]
            backed = sum(o["has_backup"] for o in hits)
            counts.append(f"{len(hits)} ({backed} + {len(hits) - backed})")
        lines.append(f"| {what} | " + " | ".join(counts) + " |")
    return "\n".join(lines)


def table(ours, theirs, faults):
    our_cells, their_cells = grouped(ours), grouped(theirs)
    lines, same = [], []
    for fault in faults:
        if (fault, True, True) not in our_cells:
            continue
        texts = [cell_text(our_cells[fault, *column], their_cells[fault, *column]) for column in COLUMNS]
        if set(texts) == {"="}:
            same.append(fault)
        else:
            lines.append(f"| {fault} | " + " | ".join(texts) + " |")
    head = ("| the provider's fault | stream, with a backup | whole, with a backup | stream, alone | whole, alone |\n"
            "|---|---|---|---|---|\n")
    return head + "\n".join(lines), same


def section(ours, theirs, peer, faults, note):
    rows, same = table(ours, theirs, faults)
    unlabelled = sum(o["seen"] == "backup goes on, unlabelled" for o in theirs.values())
    paragraphs = [
        f"""Played by `benches/faults.py` on {datetime.date.today()} to this Ingle and to {peer.name}, by the same client: {len(ours)} cases
        each, every one with a provider of its own. Both wait {FIRST} s for the first content and {TOTAL} s in all; the client waits
        {DEADLINE} s. Ingle does not hedge here. LiteLLM's settings: {peer.settings}, `timeout: {TOTAL}`, `stream_timeout: {FIRST}`,
        one worker. {note}""",
        totals([("Ingle", ours), (peer.name, theirs)]),
        "In brackets: with a backup + alone.",
        *(f"- *{what}*: {means}" for what, means in MEANINGS.items()),
        f"""{unlabelled} times it is LiteLLM's backup that goes on, and nothing in the answer says so.""",
        *LIMITS,
        f"""What LiteLLM does where that is of another class than what Ingle does, or takes more than
        {LONG_WAIT} s; `=` is the same class. Not in the table, since all
        cells are: {", ".join(same) or "none"}.""",
        rows,
    ]
    filled = [text if text.startswith("|") else textwrap.fill(" ".join(text.split()), 125, subsequent_indent="  " * text.startswith("- "),
                                                              break_on_hyphens=False) for text in paragraphs]
    return "\n\n".join([HEADING, *filled]).replace("\n\n- ", "\n- ").replace("alone.\n- ", "alone.\n\n- ") + "\n"


MEANINGS = {
    RIGHT: "all of what the provider or the backup had to say; or a backup that was told what had been said goes on with it.",
    ERROR: 'an error object with a message and a code or a type, or `finish_reason: "error"`.',
    CUT: "the answer ends as a good one does, and is empty, a part, or what its provider called broken.",
    WRONG: "the connection breaks without a word, an error is no error object, or there is no answer or nobody's.",
    HANG: "nothing until the client's patience ends.",
    TWICE: "the answer is right, but the words of another attempt were billed too (the server keeps the record), and reached nobody.",
}
LIMITS = (
    """Not compared: what each gateway books (LiteLLM's budgets need a database), and what happens to those who come after, since
    every case has a provider of its own. Ingle streams from providers whether or not its client does; LiteLLM asks as its client
    does, so that a whole answer is broken for it as whole answers are (`tests/it/provider_server/whole.rs`). What an answer
    that breaks off is billed is the script's word: every token that had been sent.""",
    """Some of it is taste. A request that was rejected (400, 422) is given back by Ingle at once, since it is likely to be wrong
    elsewhere too; LiteLLM asks the backup. An answer whose headers are wrong, which does not say that it ended, or whose line has
    ten million characters is refused by Ingle and taken by LiteLLM. Of whole answers that their provider called broken LiteLLM
    says `finish_reason: "stop"`, and keeps the provider's word in `provider_specific_fields`.""",
)
