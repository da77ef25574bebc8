#!/usr/bin/env python3
"""Makes the reference vectors that tests/it/embedding.rs compares with, by sentence-transformers.

    python3 -m venv VENV
    VENV/bin/pip install sentence-transformers==6.2.0
    VENV/bin/python tests/data/embedding/make_reference.py [FIXTURES, default target/fixtures]

Each text is computed alone, in single precision, on the processor. Token ids stand beside the vector
(base64 of little-endian 32-bit floats), so that a difference can be told apart: the text's or the
network's. Texts longer than the model takes are cut off by sentence-transformers; they are marked.
"""
import base64
import json
import sys
from pathlib import Path

import numpy
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).parent
MODEL = "all-MiniLM-L6-v2"

FOX = "The quick brown fox jumps over the lazy dog. "
TEXTS = [
    "a", "?", "Hello", "hello", "Hello, world!", " leading and trailing spaces ", "tab\tand\nnewline",
    "A fire in the hearth keeps the house warm.",
    "The stove in the kitchen heats the whole home.",
    "Quarterly earnings fell short of what analysts had expected.",
    "How do I reset my password?",
    "I forgot my login credentials, what should I do?",
    "The mitochondrion is the powerhouse of the cell, said every biology teacher ever.",
    "def add(a, b):\n    return a + b  # sums two numbers",
    "SELECT name, count(*) FROM users GROUP BY name HAVING count(*) > 3;",
    "https://example.com/a/b?c=d&e=f#g user@example.org",
    "1234567890 3.14159 1,000,000 0x7F ½ ² Ⅷ",
    "Äpfel, Öl, Übermut, Straße, naïve café, Ærøskøbing, İstanbul",
    "e\u0301 a\u0308 n\u0303 combining marks",
    "Привет, мир! Съешь ещё этих мягких французских булок.",
    "你好，世界！我能吞下玻璃而不伤身体。",
    "こんにちは世界。カタカナ ひらがな 漢字",
    "안녕하세요 세계! 한국어",
    "مرحبا بالعالم! كَتَبَ ٱلْوَلَدُ",
    "नमस्ते दुनिया",
    "🙂😀🚀 👍🏽 👩‍💻 mixed with words 🇩🇪",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "[CLS] special [SEP] tokens [MASK] spelled [PAD] out [UNK]",
    "a b\u2003c\u3000d\u200be\ufeffi\u0085j \x00\x01 \ufffd",
    "x" * 120,
    "word " * 60,
    FOX * 4, FOX * 10, FOX * 20,
    "Dinosaurs ruled the Earth for over 160 million years, from the Triassic period around 230 million "
    "years ago through the Jurassic period and until the end of the Cretaceous period around 66 million "
    "years ago, when an asteroid impact ended the age of all but the feathered ones, which we call birds.",
    FOX * 60, "An overlong text of many words goes on and on. " * 100,
]


def main():
    fixtures = Path(sys.argv[1] if len(sys.argv) > 1 else "target/fixtures")
    model = SentenceTransformer(str(fixtures / MODEL), device="cpu")
    most = model.max_seq_length
    entries = []
    for text in TEXTS:
        vector = model.encode([text], batch_size=1, convert_to_numpy=True)[0].astype("<f4")
        assert numpy.isfinite(vector).all()
        whole = model.tokenizer(text, truncation=False)["input_ids"]
        ids = model.tokenizer(text, truncation=True, max_length=most)["input_ids"]
        entries.append({"text": text, "is_cut": len(whole) > most, "ids": ids,
                        "vector": base64.b64encode(vector.tobytes()).decode()})
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    head = json.dumps({"model": MODEL, "max_tokens": most, "n_embd": len(vector)})[:-1]
    (HERE / "minilm.json").write_text(f'{head}, "texts": [\n{lines}\n]}}\n')
    print(len(entries), "texts, of which", sum(e["is_cut"] for e in entries), "are cut off at", most)


if __name__ == "__main__":
    main()
