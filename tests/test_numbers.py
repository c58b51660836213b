"""The numbers that the course promises to show: each stands among the stored outputs of its chapter.

nbval compares the outputs themselves; this test keeps them from being edited away.
"""

import re
from pathlib import Path

import nbformat
import pytest

SOLUTIONS = Path(__file__).resolve().parent.parent / "solutions"

PROMISED = {
    "01": {
        "weights that add to one": "0.1000, 0.8000, 0.1000",
        "softmax of 1, 8, 1": "9.1022e-04, 9.9818e-01, 9.1022e-04",
        "twelve tokens": "torch.Size([12, 3])",
        "last score of the second query": "1.0865",
        "sum-normalised": "0.1455, 0.2278, 0.2249, 0.1285, 0.1077, 0.1656",
        "softmax": "0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581",
        "scores of the second query": "0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865",
        "context vector of the second": "0.4419, 0.6515, 0.5683",
        "context vector of the first": "0.4421, 0.5931, 0.5790",
    },
    "02": {
        "query": "0.4306, 1.4551",
        "score of the second with itself": "1.8524",
        "scores": "1.2705, 1.8524, 1.8111, 1.0795, 0.5577, 1.5440",
        "weights": "0.1500, 0.2264, 0.2199, 0.1311, 0.0906, 0.1820",
        "context": "0.3061, 0.8210",
        "version 1": "0.2996, 0.8053 0.3061, 0.8210 0.3058, 0.8203 0.2948, 0.7939 0.2927, 0.7891 0.2990, 0.8040",
        "version 2": "-0.0739, 0.0713 -0.0748, 0.0703 -0.0749, 0.0702 -0.0760, 0.0685 -0.0763, 0.0679 -0.0754, 0.0693",
        "weights of version 2": "0.1921, 0.1646, 0.1652, 0.1550, 0.1721, 0.1510",
    },
    "03": {
        "first token of the averaging trick": "0.1808, -0.0700",
        "mean of two tokens": "-0.0894, -0.4926",
        "toy example": "2.0000, 7.0000 4.0000, 5.5000 4.6667, 5.3333",
        "masked weights": "0.5517, 0.4483, 0.0000",
        "batch of two copies": "torch.Size([2, 6, 2])",
        "softmax over the queries": "-0.0844, 0.0414",
        "softmax over the keys": "-0.4519, 0.2216",
        "dropout doubles": "0.5517, 0.4921",
    },
    "04": {
        "wrapper": "-0.4519, 0.2216, 0.4772, 0.1063",
        "shape of the wrapper": "torch.Size([2, 6, 4])",
        "softmax over the queries": "-0.0844, 0.0414, 0.0766, 0.0171",
        "two-dimensional output": "-0.5740, 0.2216",
        "weight splits": "0.3190, 0.4858",
        "shape of the weight splits": "torch.Size([2, 6, 2])",
        "parameters at the size of GPT-2": "2,360,064",
    },
    "06": {
        "layer norm by hand": "-1.0690, -0.5345, 0.0000, 1.6036",
        "untied, without biases of queries, keys and values": "163,009,536",
        "as published": "124,439,808",
        "medium": "354,823,168",
        "large": "774,030,080",
        "xl": "1,557,611,200",
    },
    "07": {
        "blind guessing": "4.1744",
        "bigram floor": "2.4819",
        "cross-entropy by hand": "0.7531",
        "perplexity of blind guessing": "perplexity 65.0",
        "AdamW and Adam": "AdamW -> 1.99800",
        "a resumed run": "never stopped: True",
        "within the band": "within 0.03 of their mean: True",
    },
    "08": {
        "cache equals no cache": "the same without a cache: True",
        "two processes equal one": "below 1e-5: True",
        "pieces equal the batch": "same gradient True",
    },
}


def numbers_of(chapter: str) -> str:
    """All that a chapter's code cells print, with brackets and line breaks of tensors taken out."""
    (path,) = SOLUTIONS.glob(f"{chapter}_*.ipynb")
    outputs = [o.get("text", "") for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])]
    return plain("\n".join(outputs))


def plain(text: str) -> str:
    return re.sub(r"[\s,\[\]()]+", " ", text)


@pytest.mark.parametrize(("chapter", "name"), [(chapter, name) for chapter in PROMISED for name in PROMISED[chapter]])
def test_promised_number_is_a_stored_output(chapter: str, name: str):
    assert plain(PROMISED[chapter][name]) in numbers_of(chapter)
