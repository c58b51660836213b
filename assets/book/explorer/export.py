"""Writes the attention explorer: a page that runs the course's trained model in a browser, without a server.

    python assets/book/explorer/export.py FOLDER                 the page as part of the book
    python assets/book/explorer/export.py FOLDER --standalone    without the links to the book's chapters

The page is hand-written and copied as it is. ``model_data.js``, written here, brings what it can't know: the
weights, the sizes, the vocabulary, lines to try, and numbers computed by PyTorch to compare its own with.

Legend: B batch, T tokens, L layers, H heads, V vocabulary size.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from utils import attention, masking  # noqa: E402  (the repository is found first)
from utils.gpt import EPSILON, GPTModel  # noqa: E402
from utils.pretrain import load_corpus, load_trained  # noqa: E402
from utils.tokenizers import CharTokenizer  # noqa: E402
from utils.training import get_batch  # noqa: E402

# The scripts in the order in which the page loads them: each uses only what stands before it.
SCRIPTS = re.findall(r'<script src="([^"]+)">', (HERE / "index.html").read_text(encoding="utf-8"))
DATA = "model_data.js"  # the one that is written here
PAGE = ("index.html", "explorer.css", *(name for name in SCRIPTS if name != DATA))
CHAPTER_LINE = "But, soft! what light"  # the line of section 8.10
# The batch that section 8.10 measures on: drawn from the validation text with this seed, this many rows.
CHAPTER_SEED, CHAPTER_ROWS = 0, 12
# What a reader sees in the list, and the line itself.
SUGGESTIONS = {
    "Chapter 8's line": CHAPTER_LINE,
    "Chapter 8's prompt": "ROMEO:\n",
    "A full context": "Now is the winter of our discontent\nMade glorious summer by this",
    "Another play": "To be, or not to be: that is the question",
    "A word, repeated": "the the the the the the",
    "One letter": "O",
}
CHAPTER_LINK = re.compile(r'<a href="\.\./notebooks/[^"]*">(.*?)</a>', re.DOTALL)
WAY_BACK = re.compile(r' *<nav aria-label="Book">.*?</nav>\n', re.DOTALL)


def pack(tensor: Tensor) -> dict[str, Any]:
    """A tensor as text: half precision where that loses nothing, as in the stored file, else single.

    Example:
        >>> pack(torch.tensor([[0.5, 1.0]]))
        {'shape': [1, 2], 'dtype': 'float16', 'base64': 'ADgAPA=='}
    """
    values = tensor.detach().float().cpu().contiguous()
    dtype = "float16" if torch.equal(values.half().float(), values) else "float32"
    numbers = values.numpy().astype(f"<{'f2' if dtype == 'float16' else 'f4'}")  # little-endian on every machine
    return {"shape": list(tensor.shape), "dtype": dtype, "base64": base64.b64encode(numbers.tobytes()).decode()}


def attention_maps(model: GPTModel, idx: Tensor) -> Tensor:
    """The weights of every head, by the course's own steps; (B, T) -> (L, B, H, T, T).

    Example:
        >>> attention_maps(load_trained(), torch.zeros(1, 5, dtype=torch.long)).shape
        torch.Size([2, 1, 3, 5, 5])
    """
    maps = []

    def record(att: attention.MultiHeadAttention, given: tuple[Tensor, ...], _: Tensor) -> None:
        queries, keys = (attention.split_heads(layer(given[0]), att.num_heads) for layer in (att.W_query, att.W_key))
        maps.append(masking.causal_softmax(attention.scaled_scores(queries, keys)))  # (B, H, T, T)

    handles = [block.att.register_forward_hook(record) for block in model.trf_blocks]
    try:
        with torch.no_grad():
            model(idx)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(maps)


def reference(model: GPTModel, tokenizer: CharTokenizer, line: str) -> dict[str, Any]:
    """What PyTorch computes at the last character of a line: where each head looks, and what comes next.

    Example:
        >>> numbers = reference(load_trained(), load_corpus()[2], "O")
        >>> numbers["weights"][0][0], len(numbers["chances"])
        ([1.0], 65)
    """
    idx = torch.tensor([tokenizer.encode(line)])  # (1, T)
    with torch.no_grad():
        chances = torch.softmax(model(idx)[0, -1], dim=-1)  # (V,)
    weights = attention_maps(model, idx)[:, 0, :, -1]  # (L, 1, H, T, T) -> (L, H, T)
    return {"line": line, "weights": rounded(weights), "chances": rounded(chances)}


def rounded(tensor: Tensor, digits: int = 7) -> list:
    """A tensor as nested lists, without digits that float32 doesn't hold."""
    if tensor.dim() == 0:
        return round(tensor.item(), digits)
    return [rounded(row, digits) for row in tensor]


def model_data() -> dict[str, Any]:
    """All that the page has to know about the model."""
    _, val_data, tokenizer = load_corpus()
    model = load_trained()
    cfg = model.cfg
    # x and y of the batch as one text per row: what follows x is in its last character
    x, y = get_batch(val_data, cfg.context_length, CHAPTER_ROWS, torch.Generator().manual_seed(CHAPTER_SEED))
    rows = [tokenizer.decode(row) for row in torch.cat([x, y[:, -1:]], dim=1)]  # (B, T), (B, 1) -> (B, T + 1)
    weights = dict(model.named_parameters())  # a tied head has no entry of its own
    cividis = mpl.colormaps["cividis"]  # the colours of utils.plotting.draw_matrix
    return {
        "config": {
            "vocabSize": cfg.vocab_size,
            "contextLength": cfg.context_length,
            "embDim": cfg.emb_dim,
            "numHeads": cfg.n_heads,
            "numLayers": cfg.n_layers,
            "epsilon": EPSILON,
        },
        "parameters": sum(weight.numel() for weight in weights.values()),
        "vocabulary": list(tokenizer.vocab),
        "suggestions": [{"label": label, "line": line} for label, line in SUGGESTIONS.items()],
        "chapterLine": CHAPTER_LINE,
        "validationRows": rows,
        "reference": [reference(model, tokenizer, line) for line in SUGGESTIONS.values()],
        "cividis": [mpl.colors.to_hex(cividis(step)) for step in range(cividis.N)],
        "weights": {name: pack(weight) for name, weight in weights.items()},
    }


def export(folder: Path, book: bool = True) -> None:
    """Write the explorer into a folder, which is made if need be.

    Args:
        folder: where ``index.html`` goes.
        book: whether the folder lies beside the book's ``notebooks/``, so that links to chapters lead somewhere.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> export(folder)
        >>> {path.name for path in folder.iterdir()} == {*PAGE, "model_data.js"}
        True
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in PAGE:
        shutil.copyfile(HERE / name, folder / name)
    if not book:
        page = (folder / "index.html").read_text(encoding="utf-8")
        (folder / "index.html").write_text(CHAPTER_LINK.sub(r"\1", WAY_BACK.sub("", page)), encoding="utf-8")
    data = json.dumps(model_data(), ensure_ascii=False, separators=(",", ":"))
    (folder / DATA).write_text(f'"use strict";\nwindow.MODEL_DATA = {data};\n', encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write; made if need be")
    parser.add_argument("--standalone", action="store_true", help="without links to the book's chapters")
    options = parser.parse_args(arguments)
    export(options.folder, book=not options.standalone)


if __name__ == "__main__":
    main()
