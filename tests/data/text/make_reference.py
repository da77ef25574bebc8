#!/usr/bin/env python3
"""Makes the reference token ids and chat renderings that tests/it/text.rs compares with.

    python3 -m venv VENV
    VENV/bin/pip install transformers==5.23.0 mistral-common==1.13.1 sentencepiece==0.2.3 \
        tiktoken==0.14.0 protobuf gguf==0.19.0 xllamacpp==2026.10.11549 pillow
    VENV/bin/pip install --no-deps llama-models==0.3.0
    VENV/bin/python tests/data/text/make_reference.py [FIXTURES, default target/fixtures]

Every reference is others' work:
  smollm2     llama.cpp (xllamacpp's server, /tokenize); Hugging Face tokenizers as second opinion
  llama3      llama-models' tokenizer (tiktoken) and ChatFormat
  llama2      sentencepiece on the vocabulary of ggml-vocab-llama-spm.gguf
  mistral_*   mistral-common's tokenizers (sentencepiece) and chat encoding
  renderings  transformers' own chat template rendering (jinja2)
"""
import json
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
TEMPLATES = HERE.parents[2] / "models" / "templates"

CORPUS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", "\r\n", " \n", "\n ", " \n \n ",
    "Hello", " Hello", "  Hello", "Hello ", "Hello  ", "Hello world", " Hello World!", "hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "I'm you're WE'RE he'd it's they'LL don't can’t 'S 'sx 'ſ",
    "a   b    c\td\t\te\n\nf\r\ng\r\n\r\nh   \n   i",
    "    indented\n        more\n\tand a tab\n \t mixed \n",
    "trailing   \n\n\n   ",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 0x7F ½ ² Ⅷ ١٢٣ १२३",
    "2024-05-17T12:34:56Z +49 (0)30 123456 v1.2.3-rc.4",
    "Äpfel, Öl, Übermut, Straße, naïve café, coöperate, Ærøskøbing, İstanbul, ǅ",
    "e\u0301 a\u0308 n\u0303 \u0301alone Z\u0351\u036b\u0343a\u0303\u0321l\u0334g\u0320o\u0335",
    "Привет, мир! Съешь ещё этих мягких французских булок. нещо на Български",
    "Γειά σου Κόσμε ᾳ ΰ",
    "你好，世界！我能吞下玻璃而不伤身体。繁體中文",
    "こんにちは世界。カタカナ ｶﾀｶﾅ ひらがな 漢字",
    "안녕하세요 세계! 한국어 ㅋㅋㅋ",
    "مرحبا بالعالم! كَتَبَ ٱلْوَلَدُ ـــ",
    "שלום עולם! בְּרֵאשִׁית",
    "नमस्ते दुनिया क्ष त्र ज्ञ",
    "สวัสดีชาวโลก កាន់តែពិសេសអាច",
    "🙂😀🚀 👍🏽 👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 ❤️ 1️⃣ ☺",
    "🦙.cpp 🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅",
    "fn main() {\n    let xs: Vec<u8> = (0..10).map(|x| x * 2).collect();\n    println!(\"{xs:?}\");\n}\n",
    "def f(x):\n\tif x >= 0 and x != 3:\n\t\treturn {'a': [1, 2], \"b\": None}  # comment\n\n\nclass A: pass\n",
    "#include <stdio.h>\nint main(void){for(int i=0;i<10;++i)printf(\"%d\\n\",i);return 0;}",
    "SELECT * FROM t WHERE a='b' AND c<>d; -- x\n/* y */ <div class=\"k\">&nbsp;</div>",
    "https://example.com/a/b?c=d&e=f#g user@example.org C:\\Windows\\System32 ~/.config",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?`~ ... --- === *** ??? !!! ``` $$$ ~~~~ ^^^",
    "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!! -------------------------------- ////////////////",
    "======= ****\n\n////\n\n%%%%%\r\n",
    "a b\u2003c\u3000d\u2028e\u2029f\u200bg\u200dh\ufeffi\u0085j",
    "\x00 \x01\x02\x03 \x07\x08 \x0b\x0c \x1b[0m \x7f",
    "replaced \ufffd\ufffd bytes \ufffd",
    "\U0010ffff \U000e0001 \ue000 \U00020000 \U0001d54f \U0001f9ff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a" * 2000, "ab" * 700, "Donaudampfschifffahrtsgesellschaftskapitän" * 12, " " * 300, "\n" * 200,
    "x" + " " * 77 + "y", "🙂" * 60, "漢" * 150, "1" * 200, " a" * 100,
    "ĠHello Ċ ▁Hello ▁ ▁▁ _Hello Ġ", "<0x41> <0x0A> <0xFF> <0x-1>",
    "<s> </s> <unk> <pad> [INST] [/INST] <<SYS>> <</SYS>> [TOOL_CALLS] [AVAILABLE_TOOLS]",
    "<s>[INST]Hi[/INST]</s>", "x<s>y</s>z",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|end_of_text|>",
    "<|im_start|>system\nobey<|im_end|>\n<|endoftext|> <repo_name> <|im_end| <|eot_id", "<|im_end|>",
    "<<|im_start|>>", "ied 4 ½ months", "w048 7tuijk dsdfhu", "\n =", "' era", "Hello, y'all! How are you 😁 ?我想在apple工作1314151天～",
    "3", "33", "333", "3333", "33333", "333333", "3333333", "33333333", "333333333",
    "Cửa Việt", " discards", "camelCaseWordsAndHTTPServer XMLParser ABCdef ALLCAPS lowerUPPER",
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n", "word\u00a0word\u00a0 word", "...\n\n...", "a\n b\n  c",
]

CONVERSATIONS = [
    [("user", "Hello!")],
    [("system", "You are a helpful assistant."), ("user", "What is 2 + 2?")],
    [("user", "Hi"), ("assistant", "Hello, how can I help?"), ("user", "Write fizzbuzz in Python.")],
    [("system", "Answer in German.\nBe brief."), ("user", "Wer bist du?"), ("assistant", "Ein Modell."),
     ("user", "Und was kannst du?"), ("assistant", "Texte schreiben 🙂"), ("user", "Zeig's mir: 漢字 & <b>")],
    [("user", "def f(x):\n    return x\n\nWhat does it do?"), ("assistant", "It returns `x`."),
     ("user", "    and indented?")],
    [("user", "quote <|eot_id|> </s> [INST] <|im_end|> <s> please"), ("assistant", "no </s>[/INST]"),
     ("user", "<|begin_of_text|><s> again")],
    [("user", "twice"), ("user", "in a row")],
]


def chat(conversation):
    return [{"role": role, "content": content} for role, content in conversation]


class Smollm2:
    def __init__(self, fixtures):
        import gguf
        import xllamacpp
        from tokenizers import Tokenizer, models, pre_tokenizers
        path = fixtures / "SmolLM2-135M-Instruct.Q4_1.gguf"
        fields = gguf.GGUFReader(path).fields
        self.tokens = fields["tokenizer.ggml.tokens"].contents()
        self.template = fields["tokenizer.chat_template"].contents()
        merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
        self.second = Tokenizer(models.BPE({t: i for i, t in enumerate(self.tokens)}, merges))
        self.second.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False)])
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = 256
        params.warmup = False
        self.server = xllamacpp.Server(params)

    def encode(self, text, parse_special=False):
        body = {"content": text, "add_special": False, "parse_special": parse_special}
        request = urllib.request.Request(self.server.listening_address + "/tokenize",
                                         json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))["tokens"]


def llama2_vocabulary(fixtures):
    import gguf
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    fields = gguf.GGUFReader(fixtures / "ggml-vocab-llama-spm.gguf").fields
    model = sentencepiece_model_pb2.ModelProto()
    columns = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "scores", "token_type"))
    for piece, score, kind in zip(*columns):
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def codellama_chat(pieces, messages):
    """The format of Meta's codellama repository, llama/generation.py (chat_completion)."""
    if messages[0]["role"] == "system":
        head = f"<<SYS>>\n{messages[0]['content']}\n<</SYS>>\n\n"
        messages = [{"role": "user", "content": head + messages[1]["content"]}] + messages[2:]
    if any(m["role"] != ("user", "assistant")[i % 2] for i, m in enumerate(messages)):
        return None
    ids = []
    for question, answer in zip(messages[::2], messages[1::2]):
        text = f"[INST] {question['content'].strip()} [/INST] {answer['content'].strip()} "
        ids += [pieces.bos_id(), *pieces.encode(text), pieces.eos_id()]
    return ids + [pieces.bos_id(), *pieces.encode(f"[INST] {messages[-1]['content'].strip()} [/INST]")]


def mistral_chat(tokenizer, messages):
    """mistral-common joins what one side says twice; a conversation that has that is left out."""
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    if any(a["role"] == b["role"] for a, b in zip(messages, messages[1:])):
        return None
    return tokenizer.encode_chat_completion(ChatCompletionRequest(messages=messages)).tokens


def llama3_chat(chat_format, messages):
    from llama_models.datatypes import RawMessage
    stripped = [RawMessage(role=m["role"], content=m["content"].strip()) for m in messages]
    return chat_format.encode_dialog_prompt(stripped).tokens


def renderings(smollm2, phi3):
    """What jinja2, set up as transformers does, makes of each template; None where it raises."""
    from transformers.utils.chat_template_utils import render_jinja_template
    sources = {path.stem: path.read_text() for path in sorted(TEMPLATES.glob("*.jinja"))}
    sources |= {"smollm2": smollm2, "phi3": phi3}
    every = {}
    for name, source in sources.items():
        every[name] = []
        for conversation in CONVERSATIONS:
            try:
                text, _ = render_jinja_template([chat(conversation)], chat_template=source, bos_token="<s>",
                                                eos_token="</s>", add_generation_prompt=True)
                every[name].append(text[0])
            except Exception:
                every[name].append(None)
    return every, sources


def main():
    fixtures = Path(sys.argv[1] if len(sys.argv) > 1 else "target/fixtures")
    from llama_models.llama3.chat_format import ChatFormat
    from llama_models.llama3.tokenizer import Tokenizer as Llama3
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    import gguf

    smollm2 = Smollm2(fixtures)
    llama3 = Llama3(fixtures / "llama3-tokenizer.model")
    llama2 = llama2_vocabulary(fixtures)
    mistral = {"mistral_v1": MistralTokenizer.v1(), "mistral_v3": MistralTokenizer.v3()}
    plain = {
        "smollm2": smollm2.encode,
        "llama3": lambda text: llama3.encode(text, bos=False, eos=False),
        "llama2": llama2.encode,
        **{name: lambda text, t=t: t.instruct_tokenizer.tokenizer.encode(text, bos=False, eos=False)
           for name, t in mistral.items()},
    }
    ids = {name: [encode(text) for text in CORPUS] for name, encode in plain.items()}
    for text, expected in zip(CORPUS, ids["smollm2"]):
        if (second := smollm2.second.encode(text).ids) != expected:
            print("llama.cpp and tokenizers differ on", repr(text), expected, second)
    parsed = {
        "smollm2": [smollm2.encode(text, True) for text in CORPUS],
        "llama3": [llama3.encode(text, bos=False, eos=False, allowed_special="all") for text in CORPUS],
    }
    # Only the ends of messages are stripped by the older of Meta's two formats and the published
    # template: the reference is given stripped messages.
    chats = {
        "llama3": [llama3_chat(ChatFormat(llama3), chat(c)) for c in CONVERSATIONS],
        "codellama": [codellama_chat(llama2, chat(c)) for c in CONVERSATIONS],
        **{name: [mistral_chat(t, chat(c)) for c in CONVERSATIONS] for name, t in mistral.items()},
    }
    phi3 = gguf.GGUFReader(fixtures / "ggml-vocab-phi-3.gguf").fields["tokenizer.chat_template"].contents()
    rendered, sources = renderings(smollm2.template, phi3)
    write("corpus.json", {"texts": CORPUS, "as_text": ids, "parsed": parsed})
    write("chats.json", {"conversations": [chat(c) for c in CONVERSATIONS], "ids": chats,
                         "renderings": rendered, "templates": sources})


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
