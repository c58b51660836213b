"""The attention explorer: its model is PyTorch's, its numbers are chapter 8's, and the page works for everyone."""

from __future__ import annotations

import base64
import importlib.util
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page
from torch import Tensor

from utils import attention, masking
from utils.gpt import GPTModel
from utils.gpt_config import GPTConfig
from utils.pretrain import load_corpus, load_trained
from utils.release import ROOT
from utils.tokenizers import CharTokenizer

FOLDER = ROOT / "assets" / "book" / "explorer"
CHAPTER = ROOT / "notebooks" / "08_speed_and_scale.ipynb"
TOLERANCE = 1e-5  # float32 of PyTorch against float64 of JavaScript
STEPS = ("scores", "scaled", "masked", "weights")
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
TABLET = {"viewport": {"width": 820, "height": 1180}, "has_touch": True}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}

spec = importlib.util.spec_from_file_location("explorer_export", FOLDER / "export.py")
exporter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exporter)

Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The explorer as it lies in the book."""
    folder = tmp_path_factory.mktemp("book") / "explorer"
    exporter.export(folder)
    return folder


@pytest.fixture(scope="module")
def model() -> GPTModel:
    return load_trained()


@pytest.fixture(scope="module")
def tokenizer() -> CharTokenizer:
    return load_corpus()[2]


@pytest.fixture
def open_page(browser: Browser, exported: Path) -> Iterator[Opener]:
    """Opens the page from its file; at the end, nothing must have gone wrong in it."""
    contexts, complaints = [], []

    def open_one(device: dict[str, Any] = DESKTOP, address: str = "", **settings: Any) -> Page:
        context = browser.new_context(**device, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
        page.goto((exported / "index.html").as_uri() + address)
        page.wait_for_function("window.explorer")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page: Opener) -> Page:
    return open_page()


def random_lines(vocabulary: tuple[str, ...], how_many: int, longest: int) -> list[str]:
    draws = random.Random(0)
    return ["".join(draws.choices(vocabulary, k=draws.randint(1, longest))) for _ in range(how_many)]


def torch_pass(
    model: GPTModel, ids: list[int], silenced: tuple[int, int] | None = None
) -> tuple[list[dict[str, Tensor]], Tensor]:
    """One {step: (H, T, T)} per layer, and the logits (T, V), by the course's own functions."""
    tables = []

    def record(att: attention.MultiHeadAttention, given: tuple[Tensor, ...], _: Tensor) -> None:
        queries, keys = (attention.split_heads(layer(given[0]), att.num_heads) for layer in (att.W_query, att.W_key))
        scaled = attention.scaled_scores(queries, keys)  # (1, H, T, D) twice -> (1, H, T, T)
        masked = scaled.masked_fill(masking.causal_mask(len(ids)), float("-inf"))
        steps = (queries @ keys.transpose(-2, -1), scaled, masked, masking.causal_softmax(scaled))
        tables.append({name: table[0] for name, table in zip(STEPS, steps, strict=True)})

    def silence(_: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        contexts = given[0].clone()  # (1, T, H*D)
        size = model.cfg.emb_dim // model.cfg.n_heads
        contexts[..., silenced[1] * size : (silenced[1] + 1) * size] = 0
        return (contexts,)

    handles = [block.att.register_forward_hook(record) for block in model.trf_blocks]
    if silenced is not None:
        handles.append(model.trf_blocks[silenced[0]].att.out_proj.register_forward_pre_hook(silence))
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0]  # (T, V)
    for handle in handles:
        handle.remove()
    return tables, logits


def javascript_pass(page: Page, text: str) -> tuple[list[dict[str, Tensor]], Tensor]:
    """What ``torch_pass`` gives, computed by the page."""
    found = page.evaluate(
        """(text) => {
          const { tables, logits } = explorer.run(text);
          const write = (v) => (Number.isFinite(v) ? v : "-inf"); // JSON knows no infinity
          const heads = (layer, step) => layer.map((head) => Array.from(head[step], write));
          const steps = Object.keys(tables[0][0]);
          const named = (layer) => Object.fromEntries(steps.map((step) => [step, heads(layer, step)]));
          return { tables: tables.map(named), logits: Array.from(logits) };
        }""",
        text,
    )
    T = len(text)

    def as_tables(heads: list[list[float | str]]) -> Tensor:
        rows = [[float(value) for value in head] for head in heads]
        return torch.tensor(rows, dtype=torch.float64).unflatten(1, (T, T))  # (H, T*T) -> (H, T, T)

    tables = [{step: as_tables(heads) for step, heads in layer.items()} for layer in found["tables"]]
    return tables, torch.tensor(found["logits"], dtype=torch.float64).unflatten(0, (T, -1))  # (T*V,) -> (T, V)


def fields(page: Page, selector: str) -> list[list[str]]:
    """The cells of a table's body, as they can be read."""
    return page.eval_on_selector_all(
        f"{selector} tbody tr",
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))",
    )


def printed_by_chapter() -> str:
    """All that the stored outputs of chapter 8 print."""
    notebook = nbformat.read(CHAPTER, as_version=4)
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return "".join(o.text for cell in cells for o in cell.outputs if o.output_type == "stream")


def at_rest(page: Page) -> None:
    """Let what was asked for last be drawn, and colours come to rest."""
    frame = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    page.evaluate(f"{frame}.then(() => {frame})")
    page.wait_for_timeout(150)


# What is exported


def test_exported_files_load_nothing_from_elsewhere(exported: Path):
    assert sorted(path.name for path in exported.iterdir()) == sorted([*exporter.PAGE, "model_data.js"])
    for path in exported.iterdir():
        text = path.read_text(encoding="utf-8")
        elsewhere = set(re.findall(r"https?://[^\"'\s)]+", text)) - {"http://www.w3.org/2000/svg"}  # only a name
        assert elsewhere == set(), path.name
        assert not re.search(r"\bfetch\(|XMLHttpRequest|^\s*import\b|@import|type=\"module\"", text, re.M), path.name
        assert str(ROOT) not in text
    page = (exported / "index.html").read_text(encoding="utf-8")
    for local in re.findall(r'(?:src|link rel="stylesheet" href)="([^"]+)"', page):
        assert (exported / local).is_file()


def test_scripts_use_only_what_stands_before_them():
    """Each script makes one global, and its header says which earlier ones it uses: no cycles."""
    assert sorted(exporter.SCRIPTS) == sorted([exporter.DATA, *(path.name for path in FOLDER.glob("*.js"))])
    texts = [(FOLDER / name).read_text(encoding="utf-8") for name in exporter.SCRIPTS if name != exporter.DATA]
    made = [re.findall(r"\bwindow\.(\w+) = ", text) for text in texts]
    assert {len(names) for names in made} == {1}, made
    names = ["MODEL_DATA", *(name for (name,) in made)]

    def named_in(text: str) -> set[str]:
        return {name for name in names if re.search(rf"\b{name}\b", text)}

    for n, text in enumerate(texts, 1):
        header, code = text.split("*/", 1)
        used = named_in(re.sub(r"//.*|/\*[^*]*\*/", "", code)) - {names[n]}
        assert used == named_in(header.split("Uses:")[1]), names[n]
        assert used <= set(names[:n]), names[n]


def test_links_lead_to_chapters_and_a_page_by_itself_has_none(exported: Path, tmp_path: Path):
    in_book = (exported / "index.html").read_text(encoding="utf-8")
    chapters = re.findall(r'href="\.\./notebooks/([^"]+)\.html"', in_book)
    assert len(set(chapters)) >= 6
    assert all((ROOT / "notebooks" / f"{chapter}.ipynb").is_file() for chapter in chapters)
    exporter.main([str(tmp_path / "alone"), "--standalone"])
    alone = (tmp_path / "alone" / "index.html").read_text(encoding="utf-8")
    assert "../notebooks" not in alone
    assert alone.count("chapter 8") == in_book.count("chapter 8")


@pytest.mark.parametrize("values", [[0.5, -1.25, 65504.0, 6e-8], [0.1, 1e-30]], ids=["half", "single"])
def test_packed_weights_lose_nothing(values: list[float]):
    weight = torch.tensor([values])
    packed = exporter.pack(weight.half() if values[0] == 0.5 else weight)
    numbers = np.frombuffer(base64.b64decode(packed["base64"]), packed["dtype"]).reshape(packed["shape"])
    assert packed["dtype"] == ("float16" if values[0] == 0.5 else "float32")
    stored = weight.half().float() if values[0] == 0.5 else weight
    assert torch.equal(torch.from_numpy(numbers.astype(np.float32)), stored)


def test_chapter_line_is_the_line_of_the_notebook():
    notebook = nbformat.read(CHAPTER, as_version=4)
    assert any(f'line = "{exporter.CHAPTER_LINE}"' in cell.source for cell in notebook.cells)
    assert exporter.CHAPTER_LINE in exporter.SUGGESTIONS.values()


# The model


@pytest.fixture(scope="module")
def lines(tokenizer: CharTokenizer, model: GPTModel) -> list[str]:
    """The suggested lines, and lines that nobody would write."""
    return [*exporter.SUGGESTIONS.values(), *random_lines(tokenizer.vocab, 6, model.cfg.context_length)]


@pytest.fixture(scope="module")
def computed(browser: Browser, exported: Path, lines: list[str]) -> dict[str, tuple[list[dict[str, Tensor]], Tensor]]:
    """What the page computes for these lines."""
    page = browser.new_page()
    page.goto((exported / "index.html").as_uri())
    results = {line: javascript_pass(page, line) for line in lines}
    page.close()
    return results


def test_all_four_tables_and_the_next_character_are_those_of_pytorch(
    computed: dict[str, tuple[list[dict[str, Tensor]], Tensor]], model: GPTModel, tokenizer: CharTokenizer
):
    for line, (tables, logits) in computed.items():
        expected_tables, expected_logits = torch_pass(model, tokenizer.encode(line))
        for found, expected in zip(tables, expected_tables, strict=True):
            assert torch.allclose(found["weights"], expected["weights"].double(), rtol=0, atol=TOLERANCE), line
            for step in ("scores", "scaled", "masked"):  # not between 0 and 1: as exact as float32 of their size
                assert torch.allclose(found[step], expected[step].double(), rtol=TOLERANCE, atol=TOLERANCE), line
        chances, expected_chances = (torch.softmax(scores, dim=-1) for scores in (logits, expected_logits.double()))
        assert torch.allclose(chances, expected_chances, rtol=0, atol=TOLERANCE), line
        assert torch.allclose(logits, expected_logits.double(), rtol=TOLERANCE, atol=TOLERANCE), line


def test_nothing_but_rounding_separates_the_page_from_pytorch(
    computed: dict[str, tuple[list[dict[str, Tensor]], Tensor]], tokenizer: CharTokenizer
):
    double = load_trained().double()
    for line, (tables, logits) in computed.items():
        expected_tables, expected_logits = torch_pass(double, tokenizer.encode(line))
        assert torch.allclose(logits, expected_logits, rtol=0, atol=1e-9), line
        for found, expected in zip(tables, expected_tables, strict=True):
            assert all(torch.allclose(found[step], expected[step], rtol=0, atol=1e-9) for step in STEPS), line


def test_rows_add_to_one_and_nothing_leaks_from_the_future(page: Page, tokenizer: CharTokenizer):
    line = random_lines(tokenizer.vocab, 1, 40)[0] + "end"
    changed = line[:-1] + "?"
    for layer, other in zip(javascript_pass(page, line)[0], javascript_pass(page, changed)[0], strict=True):
        weights = layer["weights"]  # (H, T, T)
        assert torch.allclose(weights.sum(dim=-1), torch.ones(weights.shape[:2]).double(), rtol=0, atol=1e-12)
        assert (weights[:, masking.causal_mask(len(line))] == 0).all()
        assert (weights[:, ~masking.causal_mask(len(line))] > 0).all()
        assert torch.equal(weights[:, :-1], other["weights"][:, :-1])


def test_silencing_a_head_is_what_chapter_8_does(page: Page, model: GPTModel, tokenizer: CharTokenizer):
    ids = tokenizer.encode(exporter.CHAPTER_LINE)
    for layer, head in ((0, 2), (1, 0)):
        page.evaluate("([layer, head]) => explorer.choose(layer, head)", [layer, head])
        page.check("#silence")
        chances = torch.softmax(torch_pass(model, ids, (layer, head))[1][-1], dim=-1)  # (V,)
        assert shown_chances(page) == printed_chances(chances, tokenizer)
        page.uncheck("#silence")
        intact = torch.softmax(torch_pass(model, ids)[1][-1], dim=-1)
        assert shown_chances(page) == printed_chances(intact, tokenizer)


def shown_chances(page: Page) -> list[list[str]]:
    """The bars of the next characters: character and percent."""
    rows = "rows => rows.map(row => [row.children[0].innerText, row.children[2].innerText])"
    return page.eval_on_selector_all("#chances li", rows)


def printed_chances(chances: Tensor, tokenizer: CharTokenizer) -> list[list[str]]:
    best = chances.topk(10)
    signs = {" ": "␣", "\n": "⏎"}
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[signs.get(tokenizer.vocab[i], tokenizer.vocab[i]), f"{100 * chance:.1f} %"] for i, chance in pairs]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_logits(page: Page, model: GPTModel, tokenizer: CharTokenizer, temperature: float):
    page.fill("#temperature", str(temperature))
    logits = torch_pass(model, tokenizer.encode(exporter.CHAPTER_LINE))[1][-1]  # (V,)
    assert shown_chances(page) == printed_chances(torch.softmax(logits / temperature, dim=-1), tokenizer)
    assert page.inner_text("#temperature-value") == str(temperature)


def test_other_architectures_are_read_from_what_is_exported(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: CharTokenizer
):
    """A tied head, no biases for queries, keys and values, other sizes, weights in single precision."""
    torch.manual_seed(0)
    cfg = GPTConfig(65, context_length=64, emb_dim=21, n_heads=7, n_layers=3, qkv_bias=False, tied=True, init_std=None)
    other = GPTModel(cfg).eval()
    monkeypatch.setattr(exporter, "load_trained", lambda: other)
    exporter.export(tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    line = "O Romeo, Romeo!"
    tables, logits = javascript_pass(page, line)
    expected_tables, expected_logits = torch_pass(other.double(), tokenizer.encode(line))
    assert torch.allclose(logits, expected_logits, rtol=0, atol=1e-9)
    for found, expected in zip(tables, expected_tables, strict=True):
        assert all(torch.allclose(found[step], expected[step], rtol=0, atol=1e-9) for step in STEPS)
    assert page.locator("#heads button").count() == 21
    page.close()


# Chapter 8's numbers


def test_habits_and_added_loss_are_those_that_chapter_8_prints(page: Page):
    printed = printed_by_chapter()
    expected = {
        name: numbers.split() for name, numbers in re.findall(r"(layer \d head \d)((?: \d\.\d\d){5})\n", printed)
    }
    losses = re.search(r"added loss: (.+)\n", printed)[1].split()
    assert len(expected) == len(losses) > 0
    page.evaluate("explorer.measured.then(() => null)")
    shown = {name: numbers for name, *numbers in fields(page, "#habits")}
    assert shown == {name: [*row, loss] for (name, row), loss in zip(expected.items(), losses, strict=True)}


def test_heads_and_weights_on_the_line_are_those_that_chapter_8_prints(page: Page):
    pattern = r"(previous|near past|far) +(layer \d head \d): the last character looks most at '(.)', weight (\d\.\d\d)"
    expected = [
        [what, head, key.replace(" ", "␣"), w] for what, head, key, w in re.findall(pattern, printed_by_chapter())
    ]
    assert len(expected) == 3
    page.evaluate("explorer.measured.then(() => null)")
    assert fields(page, "#peaks") == expected
    for _, head, key, weight in expected:  # and the page itself shows them, once you open that head
        layer, number = re.findall(r"\d", head)
        page.evaluate("([layer, head]) => explorer.choose(layer, head)", [int(layer), int(number)])
        words = page.inner_text("#readout")
        assert f"looks at {key} " in words
        shown = float(re.search(r"with weight (\d\.\d+)", words)[1])
        assert f"{shown:.2f}" == weight


def test_each_head_is_described_by_what_was_measured(page: Page):
    measured = page.evaluate("explorer.measured.then(({ habits }) => habits)")
    here = page.evaluate(
        "() => explorer.run(explorer.state.text).tables.flat().map(({ weights }) => explorer.habits(weights))"
    )
    for n, card in enumerate(page.locator("#heads button").all()):
        most = max(range(5), key=lambda c: measured[n][c])
        words = card.inner_text()
        assert f"{measured[n][most]:.2f} in chapter 8, {here[n][most]:.2f} on this line" in words
        assert ("Spreads" in words) == (measured[n][most] <= 0.5)
    page.fill("#text", "short")
    page.wait_for_function("explorer.shown().text === 'short'")
    assert "too short" in page.inner_text("#heads button")


def test_page_says_how_far_it_is_from_pytorch(page: Page):
    difference = page.evaluate("explorer.measured.then(({ difference }) => difference)")
    assert 0 < difference < TOLERANCE
    digits, power = f"{difference:.1e}".split("e-")
    assert f"{digits} · 10−{int(power)} over" in page.inner_text("#agreement")


# The page


def test_typing_a_line_updates_every_table(page: Page, model: GPTModel, tokenizer: CharTokenizer):
    line = "Hark, who\nis there?"
    page.locator("#matrices").scroll_into_view_if_needed()
    page.fill("#text", "")
    page.type("#text", line.replace("\n", ""), delay=5)
    page.fill("#text", line)
    page.wait_for_function("(line) => explorer.shown().text === line", arg=line)
    shown = page.evaluate("(({ layer, head, tables }) => [layer, head, Array.from(tables.weights)])(explorer.shown())")
    layer, head, weights = shown
    expected = torch_pass(model, tokenizer.encode(line))[0][layer]["weights"][head]  # (T, T)
    assert torch.allclose(torch.tensor(weights), expected.flatten(), rtol=0, atol=TOLERANCE)
    assert page.eval_on_selector_all("#tokens button", "all => all.map(b => b.textContent).join('')") == (
        line.replace(" ", "␣").replace("\n", "⏎")
    )
    page.locator("#matrices").scroll_into_view_if_needed()
    at_rest(page)
    low, high = data_palette(page, 0), data_palette(page, -1)
    hidden = pixel(page, "masked", 0, 3, len(line))
    assert hidden not in (low, high)  # −∞ has a colour of its own
    assert pixel(page, "weights", len(line) - 2, len(line) - 1, len(line)) == hidden  # in the future: nothing
    assert pixel(page, "weights", 0, 0, len(line)) == high  # the first character has only itself


def data_palette(page: Page, index: int) -> list[int]:
    colour = page.evaluate("(n) => MODEL_DATA.cividis.at(n)", index)
    return list(bytes.fromhex(colour[1:]))


def pixel(page: Page, step: str, i: int, j: int, num_tokens: int) -> list[int]:
    """The colour near the top left corner of a cell, away from what is written or hatched there."""
    return page.evaluate(
        """([step, i, j, T]) => {
          const canvas = document.querySelector(`[data-step=${step}] .cells-canvas`);
          const cell = canvas.width / T;
          const at = (n) => Math.floor((n + 0.25) * cell);
          const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          copy.drawImage(canvas, at(j), at(i), 1, 1, 0, 0, 1, 1);
          return Array.from(copy.getImageData(0, 0, 1, 1).data.slice(0, 3));
        }""",
        [step, i, j, num_tokens],
    )


def test_pictures_show_the_numbers(page: Page):
    """Every cell of a drawn table has the colour of its value, if it has one; the row and the cell marked aside."""
    page.locator("#matrices").scroll_into_view_if_needed()
    palette = page.evaluate("MODEL_DATA.cividis")
    for line in (exporter.CHAPTER_LINE, "Hark, who goes there!", "A shorter line"):
        page.evaluate("(line) => explorer.setLine(line)", line)
        at_rest(page)
        T = len(line)
        for step in ("scores", "scaled", "weights"):
            values = page.evaluate("(step) => Array.from(explorer.shown().tables[step])", step)
            low, high = (0, 1) if step == "weights" else (min(values), max(values))
            for i, j in ((0, 0), (3, 1), (7, 9), (12, 2), (T - 2, T - 3)):
                place = round((values[i * T + j] - low) / (high - low) * 255)
                is_hidden = step == "weights" and j > i
                expected = pixel(page, "masked", i, j, T) if is_hidden else list(bytes.fromhex(palette[place][1:]))
                assert pixel(page, step, i, j, T) == expected, (line, step, i, j)


def test_suggested_lines_are_read_as_they_are(page: Page):
    for label, line in exporter.SUGGESTIONS.items():
        page.get_by_role("button", name=label, exact=True).click()
        assert page.evaluate("explorer.shown().text") == page.input_value("#text") == line
        assert page.locator(".problem:visible").count() == 0
        assert page.get_by_role("button", name=label, exact=True).get_attribute("aria-pressed") == "true"


def test_unknown_characters_are_named_with_their_place(page: Page):
    page.fill("#text", "na\u00efve 7\u00a0\U0001f600!")
    page.wait_for_selector(".problem")
    message = page.inner_text("#message")
    for named in ("ï (position 2)", "7 (position 6)", "U+00A0 (position 7)", "\U0001f600 (position 8)"):
        assert named in message
    assert page.eval_on_selector_all("#tokens button", "all => all.map(b => b.textContent).join('')") == "nave␣!"
    page.fill("#text", "naive")
    page.wait_for_selector(".problem", state="detached")


def test_empty_text_is_explained(page: Page):
    for text in ("", "777"):
        page.fill("#text", text)
        page.wait_for_selector(".problem")
        assert "Nothing to look at yet" in page.inner_text("#message")
        assert page.locator("#results").is_hidden()
    page.get_by_role("button", name="One letter").click()
    assert page.locator("#results").is_visible()
    assert "looks at O (position 0) with weight 1.000" in page.inner_text("#readout")


def test_too_long_a_line_is_cut_and_said_so(page: Page, model: GPTModel):
    for surplus, words in ((1, "the last character is not read"), (3, "the last 3 characters are not read")):
        page.fill("#text", "a" * (model.cfg.context_length + surplus))
        page.get_by_text(words).wait_for()
    assert page.locator("#tokens button").count() == model.cfg.context_length
    assert page.locator("#write").is_disabled()


def test_the_model_writes_on(page: Page, tokenizer: CharTokenizer):
    page.click("#write")
    text = page.input_value("#text")
    assert text[:-1] == exporter.CHAPTER_LINE
    assert text[-1] in tokenizer.vocab
    assert page.evaluate("explorer.shown().query") == len(text) - 1


def test_pointing_at_a_character_shows_where_every_head_looks(page: Page, model: GPTModel, tokenizer: CharTokenizer):
    tables, logits = torch_pass(model, tokenizer.encode(exporter.CHAPTER_LINE))
    for query in (15, 4, 0):
        page.hover(f"#tokens button >> nth={query}")
        rows = page.eval_on_selector_all(
            ".cells",
            "lanes => lanes.map(lane => [...lane.querySelectorAll('span[data-weight]')].map(c => +c.dataset.weight))",
        )
        expected = torch.cat([layer["weights"][:, query] for layer in tables])  # L times (H, T) -> (L*H, T)
        assert torch.allclose(torch.tensor(rows).float(), expected, rtol=0, atol=TOLERANCE)
        assert shown_chances(page) == printed_chances(torch.softmax(logits[query], dim=-1), tokenizer)
        visible = page.locator(".cells >> nth=0").locator("span[data-position]:not(.is-hidden)").count()
        assert visible == query + 1
    page.mouse.move(5, 5)
    assert page.evaluate("explorer.shown().query") == len(exporter.CHAPTER_LINE) - 1  # what was chosen comes back


def test_colours_grow_with_the_weights(page: Page):
    page.hover("#tokens button >> nth=15")
    at_rest(page)
    cells = page.eval_on_selector_all(
        ".cells span[data-position]:not(.is-hidden)",
        "all => all.map(c => [+c.dataset.weight, +getComputedStyle(c).backgroundColor.match(/\\d+/)[0]])",
    )
    cells.sort()
    reds = [red for _, red in cells]  # from white to blue, red fades
    assert reds == sorted(reds, reverse=True)
    assert reds[0] - reds[-1] > 100


def test_pointing_at_a_cell_tells_its_four_values(page: Page, model: GPTModel, tokenizer: CharTokenizer):
    page.evaluate("explorer.choose(1, 2)")
    tables, _ = torch_pass(model, tokenizer.encode(exporter.CHAPTER_LINE))
    page.locator("[data-step=scaled] .cells-canvas").scroll_into_view_if_needed()
    at_rest(page)
    T = len(exporter.CHAPTER_LINE)
    for query, key in ((14, 9), (7, 7), (3, 12)):
        box = page.locator("[data-step=scaled] .cells-canvas").bounding_box()
        cell = box["width"] / T
        page.mouse.move(box["x"] + (key + 0.5) * cell, box["y"] + (query + 0.5) * cell)
        words = page.inner_text("#readout")
        numbers = [tables[1][step][2, query, key].item() for step in STEPS]
        score, scaled, masked = (f"{v:.2f}".replace("-", "−").replace("−inf", "−∞") for v in numbers[:3])
        assert f"score {score} → scaled {scaled} → masked {masked} → softmax {numbers[3]:.3f}" in words
        assert f"(position {query})" in words
        assert ("can't look ahead" in words) == (key > query)


def test_keyboard_walks_through_characters_heads_and_tables(page: Page):
    last = len(exporter.CHAPTER_LINE) - 1
    page.focus("#tokens button[tabindex='0']")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("explorer.shown().query") == last - 2
    assert page.evaluate("document.activeElement.dataset.position") == str(last - 2)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("explorer.shown().query") == 0
    page.keyboard.press("End")
    assert page.evaluate("explorer.shown().query") == last
    assert page.locator("#tokens button[tabindex='0']").count() == 1  # one stop for Tab, not one per character
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("[explorer.shown().layer, explorer.shown().head]") == [0, 0]
    page.focus("[data-step=masked] .table")
    before = page.evaluate("explorer.selection()")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    expected = {"query": before["query"] - 1, "key": before["key"] - 1}
    assert page.evaluate("explorer.selection()") == expected
    assert f"(position {expected['key']})" in page.inner_text("#readout")


def test_tapping_works_on_a_phone(open_page: Opener):
    page = open_page(PHONE)
    page.tap("#tokens button >> nth=17")
    assert page.evaluate("explorer.shown().query") == 17
    page.dispatch_event("#tokens button >> nth=5", "click")  # some browsers focus no button that is tapped
    assert page.evaluate("explorer.shown().query") == 5
    page.tap("#heads button >> nth=4")
    assert page.evaluate("[explorer.shown().layer, explorer.shown().head]") == [1, 1]
    canvas = page.locator("[data-step=weights] .cells-canvas")
    canvas.scroll_into_view_if_needed()
    at_rest(page)
    canvas.tap(position={"x": 40, "y": 100})
    T, width = len(exporter.CHAPTER_LINE), canvas.bounding_box()["width"]
    expected = {"query": int(100 / width * T), "key": int(40 / width * T)}
    assert page.evaluate("explorer.selection()") == expected


def test_choosing_a_head_opens_it(page: Page, model: GPTModel, tokenizer: CharTokenizer):
    page.click("#heads button >> nth=3")
    assert page.inner_text("#steps-title") == "Inside layer 1 head 0"
    assert page.locator("#heads button[aria-pressed=true]").count() == 1
    weights = page.evaluate("Array.from(explorer.shown().tables.weights)")
    expected = torch_pass(model, tokenizer.encode(exporter.CHAPTER_LINE))[0][1]["weights"][0]
    assert torch.allclose(torch.tensor(weights), expected.flatten(), rtol=0, atol=TOLERANCE)


def test_the_address_shows_others_what_you_see(page: Page, open_page: Opener):
    line = "Who's there? & 50% + #1\nNay"
    page.fill("#text", line)
    page.wait_for_function("(line) => explorer.shown().text === line", arg=line)
    page.evaluate("explorer.choose(1, 1)")
    page.evaluate("explorer.select(3)")
    page.wait_for_function("location.hash.includes('query=3')")
    address = page.evaluate("location.hash")
    assert line in unquote(address)
    other = open_page(DESKTOP, address)
    shown = other.evaluate("(({ text, layer, head, query }) => [text, layer, head, query])(explorer.shown())")
    assert shown == [line, 1, 1, 3]
    assert other.input_value("#text") == line


@pytest.mark.parametrize("address", ["#layer=9&head=x&query=-3", "#line=%E0%A4&layer=1e0", "#nonsense", "#line="])
def test_a_broken_address_breaks_nothing(open_page: Opener, address: str):
    page = open_page(DESKTOP, address)
    page.get_by_role("button", name="Chapter 8's line").click()
    shown = page.evaluate("explorer.shown()")
    assert (shown["layer"], shown["query"]) == (0, len(exporter.CHAPTER_LINE) - 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_page_never_scrolls_sideways(open_page: Opener, device: dict[str, Any], scheme: str):
    page = open_page(device, color_scheme=scheme)
    for line in [*exporter.SUGGESTIONS.values(), "M" * 70 + "é" * 40]:
        page.evaluate("(line) => explorer.setLine(line)", line)
        page.locator("#matrices").scroll_into_view_if_needed()
        at_rest(page)
        width = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
        assert width <= device["viewport"]["width"], line


@pytest.mark.parametrize("device", [DESKTOP, TABLET, PHONE], ids=["desktop", "tablet", "phone"])
def test_nothing_moves_while_you_point_at_things(open_page: Opener, device: dict[str, Any]):
    page = open_page(device)
    page.evaluate("explorer.measured.then(() => null)")
    tops = """() => [
      ...[...document.querySelectorAll("h2, #lanes, #matrices, #chances, footer, .plot")].map((n) => n.offsetTop),
      document.getElementById("readout").offsetHeight,
    ]"""
    before = page.evaluate(tops)
    words_fit = "document.getElementById('readout').scrollHeight <= document.getElementById('readout').clientHeight"
    for query in range(len(exporter.CHAPTER_LINE)):
        page.evaluate("(query) => explorer.select(query, query > 3 ? 3 : 9)", query)
        assert page.evaluate(tops) == before
        assert page.evaluate(words_fit)


# Colours that animate would be read half-way.
CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const lum = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const c = parse(getComputedStyle(n).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("script, noscript, .skip")) continue;
    const [a, b] = [lum(parse(getComputedStyle(node).color)), lum(ground(node))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.tagName, node.textContent.slice(0, 30)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_text_has_contrast(open_page: Opener, device: dict[str, Any], scheme: str):
    page = open_page(device, color_scheme=scheme, reduced_motion="reduce")
    page.evaluate("explorer.measured.then(() => null)")
    for line in ("Now is the winter of our discontent\nMade glorious summer by this", "caf\u00e9"):
        for layer in (0, 1):
            page.evaluate("([line, layer]) => { explorer.setLine(line); explorer.choose(layer, 2); }", [line, layer])
            contrasts = page.evaluate(CONTRASTS)
            assert len(contrasts) > 100
            assert contrasts[0][0] >= 4.5, contrasts[:3]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)))
    assert (brightness > 380) == (scheme == "light")


def test_link_to_the_text_field_keeps_the_line(page: Page):
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'text'")
    at_rest(page)
    assert page.evaluate("explorer.shown().text") == exporter.CHAPTER_LINE


def test_whoever_asks_for_less_motion_gets_none(open_page: Opener):
    durations = "[...document.querySelectorAll('*')].map(n => parseFloat(getComputedStyle(n).transitionDuration))"
    assert max(open_page(reduced_motion="reduce").evaluate(durations)) == 0
    assert max(open_page(reduced_motion="no-preference").evaluate(durations)) > 0  # else nothing is tested here


def test_everything_that_can_be_used_has_a_name(page: Page):
    names = page.eval_on_selector_all(
        "button, input, textarea, [tabindex]",
        """nodes => nodes.map((node) => node.getAttribute("aria-label") || node.textContent.trim()
           || [...(node.labels || [])].map((label) => label.textContent).join(""))""",
    )
    assert len(names) > 20
    assert all(names)
