"""Small stand-ins that tests share: a byte-level vocabulary without training, and records."""

from typing import Any

import numpy as np

SPECIALS = ["<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]


class ByteTokenizer:
    """One id per byte, then the special tokens: the interface of pipeline.tokenizer.Tokenizer."""

    def __init__(self, specials: list[str] | None = None) -> None:
        names = SPECIALS if specials is None else specials
        self.special = {name: 256 + i for i, name in enumerate(names)}
        self.vocab_size = 256 + len(names)
        self.end_of_text = self.special["<|endoftext|>"]
        self.chat_template = None
        self.sums_bytes = True
        self.pad = self.special.get("<|pad|>", self.end_of_text)
        self.text_prefix: tuple[int, ...] = ()
        self.text_suffix: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    encode_after_special = encode

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array(self.encode(text), dtype=np.uint32) for text in texts]

    def decode(self, ids: Any) -> str:
        return self.decode_bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: Any) -> bytes:
        return bytes(i for i in ids if i < 256)


def labelled(text: str, label: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "label": label, "origin": "test:1", "language": "tr"} | more


def instruction(text: str, output: str, given: str = "", **more: Any) -> dict[str, Any]:
    return {
        "instruction": text,
        "input": given,
        "output": output,
        "origin": "test:1",
        "language": "tr",
    } | more
