"""Published models: from a folder, from the hub's cache, from a hub that this file plays; damage is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from torch import Tensor

from utils import hub
from utils.gpt import GPTModel, from_pretrained, gpt2_state_dict
from utils.gpt_config import PRESETS, GPTConfig
from utils.hub import FILES, HUB_NAMES, fetch_pretrained, is_intact

REPOSITORY = Path(__file__).resolve().parent.parent
REVISION = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
HUB_CONFIG = {"model_type": "gpt2", "vocab_size": 9, "n_positions": 6, "n_embd": 8, "n_head": 2, "n_layer": 1}
IDS = torch.tensor([[3, 1, 4, 1, 5, 8]])


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def model() -> GPTModel:
    torch.manual_seed(0)
    return GPTModel(GPTConfig(9, 6, 8, 2, 1, tied=True, init_std=0.5)).eval()


@pytest.fixture(scope="module")
def contents(model) -> dict[str, bytes]:
    return {"config.json": json.dumps(HUB_CONFIG).encode(), "model.safetensors": save(gpt2_state_dict(model))}


@pytest.fixture
def names(contents) -> dict[str, str]:
    """What the cache calls the files: git's checksum for the small one, sha256 for the large one."""
    return {
        "config.json": git_sha1(contents["config.json"]),
        "model.safetensors": sha256(contents["model.safetensors"]),
    }


@pytest.fixture
def cache(tmp_path, monkeypatch, contents, names) -> Path:
    """The hub's cache of openai-community/gpt2, without a network; returns the folder of its blobs."""
    folder = tmp_path / "cache" / "models--openai-community--gpt2"
    snapshot, blobs = folder / "snapshots" / REVISION, folder / "blobs"
    for made in (snapshot, blobs, folder / "refs"):
        made.mkdir(parents=True)
    (folder / "refs" / "main").write_text(REVISION)
    for file, content in contents.items():
        (blobs / names[file]).write_bytes(content)
        (snapshot / file).symlink_to(Path("..", "..", "blobs", names[file]))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return blobs


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit, and the length stays
    path.write_bytes(content)


def logits(model: GPTModel) -> Tensor:
    with torch.no_grad():
        return model(IDS)


# Folders


def test_local_folder_is_used_as_it_is(tmp_path, monkeypatch, contents, model):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *arguments: pytest.fail("the hub was asked"))
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content)
    assert fetch_pretrained(str(tmp_path)) == tmp_path
    assert torch.allclose(logits(from_pretrained(str(tmp_path))), logits(model), atol=1e-6)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ((), "lacks config.json and model.safetensors$"),
        (("config.json",), "lacks model.safetensors$"),
        (("model.safetensors", "pytorch_model.bin"), "lacks config.json$"),
    ],
    ids=["empty", "no-weights", "no-config"],
)
def test_missing_files_of_a_folder_are_named(present, message, tmp_path):
    for file in present:
        (tmp_path / file).touch()
    with pytest.raises(RuntimeError, match=message):
        fetch_pretrained(str(tmp_path))


# Names


def test_every_preset_has_a_name_on_the_hub():
    assert set(HUB_NAMES) == set(PRESETS)


@pytest.mark.parametrize(
    ("name", "repository"),
    [("gpt2-xl", "openai-community/gpt2-xl"), ("distilbert/distilgpt2", "distilbert/distilgpt2")],
)
def test_short_names_belong_to_the_publisher_and_others_are_kept(name, repository, tmp_path, monkeypatch):
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        (tmp_path / file).touch()
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch_pretrained(name) == tmp_path
    assert asked == [(repository, file) for file in FILES]


# The cache


def test_cached_model_needs_no_network(cache, model, capfd):
    folder = fetch_pretrained("gpt2")
    assert folder.name == REVISION and sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert torch.allclose(logits(from_pretrained("gpt2")), logits(model), atol=1e-6)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("file", FILES)
def test_damaged_file_is_noticed_where_it_can_not_be_replaced(file, cache, names):
    damage(cache / names[file])
    with pytest.raises(RuntimeError, match=rf"^{file} of openai-community/gpt2 could not be fetched: "):
        fetch_pretrained("gpt2")


def test_damaged_file_is_downloaded_again_and_only_that_one(cache, names, contents, monkeypatch):
    weights, forced = cache / names["model.safetensors"], []
    damage(weights)
    download = huggingface_hub.hf_hub_download

    def online(repository: str, file: str, force_download: bool = False) -> str:
        if force_download:
            forced.append(file)
            weights.write_bytes(contents[file])
        return download(repository, file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", online)
    fetch_pretrained("gpt2")
    assert forced == ["model.safetensors"]


def test_file_that_stays_damaged_is_an_error(cache, names, monkeypatch):
    damage(cache / names["model.safetensors"])
    download = huggingface_hub.hf_hub_download
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names, force_download=False: download(*names))
    with pytest.raises(RuntimeError, match=r"^model.safetensors of .* is damaged, even after a second download"):
        fetch_pretrained("gpt2")


def test_model_that_is_not_cached_gives_one_error_that_says_what_to_do(cache):
    with pytest.raises(RuntimeError) as caught:
        from_pretrained("gpt2-medium")
    message = str(caught.value)
    assert message.startswith("config.json of openai-community/gpt2-medium could not be fetched: ")
    assert len(message.splitlines()) == 2
    for advice in (*FILES, "Go online", "https://huggingface.co/openai-community/gpt2-medium/tree/main", "folder"):
        assert advice in message


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError("[Errno 28] No space left on device"), "[Errno 28] No space left on device"),
        (ValueError("first line\nsecond line"), "first line"),
        (TimeoutError(), "TimeoutError"),
    ],
    ids=["disk", "many-lines", "no-text"],
)
def test_every_failure_is_told_in_one_line(failure, reason, monkeypatch):
    def fail(*arguments: object) -> None:
        raise failure

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(RuntimeError) as caught:
        fetch_pretrained("somebody/something")
    assert str(caught.value).splitlines()[0] == f"config.json of somebody/something could not be fetched: {reason}"
    assert caught.value.__cause__ is failure


def test_ctrl_c_stops_the_download(monkeypatch):
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_pretrained("gpt2")


@pytest.mark.parametrize("content", [b"", b"{}", bytes(range(256)) * 9000], ids=["empty", "small", "pieces"])
@pytest.mark.parametrize("name_of", [sha256, git_sha1, lambda content: "model.safetensors"], ids=["256", "git", "none"])
def test_file_is_intact_while_it_is_what_its_name_promises(content, name_of: Callable[[bytes], str], tmp_path):
    path, link = tmp_path / name_of(content), tmp_path / "link"
    path.write_bytes(content)
    link.symlink_to(path)
    assert is_intact(path) and is_intact(link)
    has_checksum = path.name != "model.safetensors"
    path.write_bytes(content + b"\0")
    assert is_intact(link) is not has_checksum


def test_model_of_another_kind_is_refused(cache, names, contents):
    content = json.dumps(HUB_CONFIG | {"model_type": "llama"}).encode()
    (cache / git_sha1(content)).write_bytes(content)
    link = cache.parent / "snapshots" / REVISION / "config.json"
    link.unlink()
    link.symlink_to(cache / git_sha1(content))
    with pytest.raises(ValueError, match="gpt2 is a model of type 'llama', expected 'gpt2'"):
        from_pretrained("gpt2")


# A hub of our own, with the real client in a process of its own

VISIT = """
import sys
from pathlib import Path
from utils.hub import fetch_pretrained
for what in sys.argv[1:]:
    if what == "damage":
        path = folder / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.resolve().write_bytes(content)
        continue
    try:
        folder = fetch_pretrained(what)
        print("ok", sum(map(ord, folder.name)), (folder / "model.safetensors").stat().st_size, flush=True)
    except RuntimeError as error:
        print("error", str(error).splitlines()[-1], flush=True)
"""


@pytest.fixture
def served(contents, names) -> Iterator[tuple[str, Counter]]:
    """Address of a hub that has openai-community/gpt2, and how often each of its files was downloaded."""
    downloads: Counter = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = self.path.rsplit("/", 1)[-1]
            if self.path != f"/openai-community/gpt2/resolve/main/{file}":
                return self.send_error(404)
            self.send_response(200)
            self.send_header("ETag", f'"{names[file]}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", str(len(contents[file])))
            self.end_headers()
            if self.command == "GET":
                downloads[file] += 1
                self.wfile.write(contents[file])
            return None

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", downloads
        server.shutdown()


def visit(home: Path, address: str, *what: str) -> list[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", VISIT, *what],
        cwd=REPOSITORY,
        env=inherited | {"HF_HOME": str(home), "HF_ENDPOINT": address, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def test_model_is_downloaded_once_and_again_when_damaged(served, contents, tmp_path):
    address, downloads = served
    size = len(contents["model.safetensors"])
    lines = visit(tmp_path, address, "gpt2", "gpt2", "damage", "gpt2", "gpt2", "gpt2-xl")
    assert lines[:-1] == [f"ok {sum(map(ord, REVISION))} {size}"] * 4
    assert lines[-1].startswith("error Go online and try again; or download config.json and model.safetensors by hand")
    assert downloads == {"config.json": 1, "model.safetensors": 2}
    weights = tmp_path / "hub" / "models--openai-community--gpt2" / "snapshots" / REVISION / "model.safetensors"
    assert weights.read_bytes() == contents["model.safetensors"]
    assert is_intact(weights) and hub.is_intact(weights.parent / "config.json")


def test_without_a_network_the_cached_model_comes_at_once(cache, monkeypatch):
    # The hub's client tries an address that does not answer for many seconds before it looks into its cache.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *arguments: pytest.fail("the hub was asked"))
    assert fetch_pretrained("gpt2").name == REVISION


@pytest.mark.parametrize("file", FILES)
def test_what_the_cache_lacks_is_asked_for(file, cache, monkeypatch):
    # Both files then come from one revision, though the hub's may have changed.
    (cache.parent / "snapshots" / REVISION / file).unlink()
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append(file)
        return __file__

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch_pretrained("gpt2") == Path(__file__).parent
    assert asked == list(FILES)


@pytest.mark.parametrize("name", ["no/such/folder", "-", "a b"])
def test_name_that_is_neither_folder_nor_repository_is_refused(name, cache):
    with pytest.raises(RuntimeError, match="could not be fetched: "):
        fetch_pretrained(name)
