"""GPT-2 as published: learned positions, pre-norm blocks, tanh GELU, biases, and a head that may be tied.

Legend: B batch, T tokens, V vocabulary size, d emb_dim, H heads, D head size.
Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), and the released weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.attention import KeyValueCache, MultiHeadAttention
from utils.gpt_config import GPTConfig
from utils.hub import fetch_pretrained, read_pretrained
from utils.masking import check_length

EPSILON = 1e-5  # inside the root of LayerNorm, as in GPT-2
# What the configuration of published weights must say where it speaks of it: anything else computes differently.
EXPECTED = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (EPSILON,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


class LayerNorm(nn.Module):
    """Each token by itself: mean 0 and variance 1 over its channels, then a learned scale and shift.

    The variance is the biased one (divided by d). Source: Ba et al., "Layer Normalization" (2016).

    Example:
        >>> LayerNorm(2)(torch.tensor([[1.0, 3.0]])).round(decimals=3)
        tensor([[-1.,  1.]], grad_fn=<RoundBackward1>)
    """

    def __init__(self, emb_dim: int, fused: bool = False):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)"""
        if self.fused:
            return fused_layer_norm(x, self.scale, self.shift)
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, correction=0)
        return self.scale * (x - mean) / torch.sqrt(variance + EPSILON) + self.shift


def fused_layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """What ``LayerNorm`` computes, by PyTorch's kernel; the class itself does without what exercise 6.1 forbids."""
    return F.layer_norm(x, x.shape[-1:], scale, shift, EPSILON)


def gelu(x: Tensor) -> Tensor:
    """GPT-2's activation: x times an approximation of the chance that a normal number is below x.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), the tanh form.

    Example:
        >>> gelu(torch.tensor([-10.0, 0.0, 10.0]))
        tensor([-0.,  0., 10.])
    """
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class FeedForward(nn.Module):
    """What each token does by itself: four times wider, GELU, and back.

    Example:
        >>> FeedForward(GPTConfig(emb_dim=12))(torch.zeros(2, 5, 12)).shape
        torch.Size([2, 5, 12])
    """

    def __init__(self, cfg: GPTConfig):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(cfg.emb_dim, 4 * cfg.emb_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * cfg.emb_dim, cfg.emb_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)"""
        return self.layers(x)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each on normalised input and each added to the stream.

    Example:
        >>> TransformerBlock(GPTConfig(emb_dim=12))(torch.zeros(2, 5, 12)).shape
        torch.Size([2, 5, 12])
    """

    def __init__(self, cfg: GPTConfig):
        super().__init__()
        self.att = MultiHeadAttention(
            cfg.emb_dim, cfg.emb_dim, cfg.context_length, cfg.drop_rate, cfg.n_heads, cfg.qkv_bias, fused=cfg.fused
        )
        self.ff = FeedForward(cfg)
        self.norm1 = LayerNorm(cfg.emb_dim, cfg.fused)
        self.norm2 = LayerNorm(cfg.emb_dim, cfg.fused)
        self.drop = nn.Dropout(cfg.drop_rate)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """(B, T, d) -> (B, T, d)"""
        x = x + self.drop(self.att(self.norm1(x), cache))
        return x + self.drop(self.ff(self.norm2(x)))


class GPTModel(nn.Module):
    """Token ids in, scores of every possible next token out.

    Raises:
        ValueError: more tokens than ``context_length``.

    Example:
        >>> model = GPTModel(GPTConfig(vocab_size=65, context_length=8, emb_dim=12, n_heads=3, n_layers=2))
        >>> model(torch.zeros(4, 8, dtype=torch.long)).shape
        torch.Size([4, 8, 65])
    """

    def __init__(self, cfg: GPTConfig):
        super().__init__()
        self.cfg = cfg
        self.tok_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)
        self.pos_emb = nn.Embedding(cfg.context_length, cfg.emb_dim)
        self.drop_emb = nn.Dropout(cfg.drop_rate)
        self.trf_blocks = nn.Sequential(*(TransformerBlock(cfg) for _ in range(cfg.n_layers)))
        self.final_norm = LayerNorm(cfg.emb_dim, cfg.fused)
        self.out_head = nn.Linear(cfg.emb_dim, cfg.vocab_size, bias=False)
        if cfg.init_std is not None:
            self.apply(lambda module: draw_like_gpt2(module, cfg.init_std))
            for block in self.trf_blocks:  # two additions to the stream per block: keep its variance near 1
                for last in (block.att.out_proj, block.ff.layers[-1]):
                    nn.init.normal_(last.weight, std=cfg.init_std / math.sqrt(2 * cfg.n_layers))
        if cfg.tied:
            self.out_head.weight = self.tok_emb.weight

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, caches: list[KeyValueCache] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Scores of every possible next token, after every token.

        Args:
            idx: (B, T) int64 token ids.
            targets: (B, T) the tokens that follow; with them, the mean cross-entropy in nats comes along.
            caches: what ``new_caches`` made; ``idx`` continues the tokens that they hold.

        Returns:
            logits (B, T, V), or (logits, loss) if there are targets.
        """
        start = caches[0].length if caches else 0
        num_tokens = idx.shape[1]
        check_length(start + num_tokens, self.cfg.context_length)
        positions = torch.arange(start, start + num_tokens, device=idx.device)  # (T,)
        x = self.drop_emb(self.tok_emb(idx) + self.pos_emb(positions))  # (B, T, d) + (T, d) -> (B, T, d)
        for layer, block in enumerate(self.trf_blocks):
            x = block(x, caches[layer] if caches else None)
        logits = self.out_head(self.final_norm(x))  # (B, T, d) -> (B, T, V)
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())  # (B*T, V), (B*T,)

    def new_caches(self, batch_size: int, max_length: int | None = None) -> list[KeyValueCache]:
        """One empty cache per block, for up to ``max_length`` tokens (``context_length`` if left out)."""
        cfg, weight = self.cfg, self.tok_emb.weight
        length = cfg.context_length if max_length is None else max_length
        sizes = (batch_size, cfg.n_heads, length, cfg.emb_dim // cfg.n_heads)
        return [KeyValueCache(*sizes, weight.device, weight.dtype) for _ in self.trf_blocks]


def draw_like_gpt2(module: nn.Module, std: float) -> None:
    """Normal weights of that spread for layers and embeddings, biases zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


# The published weights

# Old versions of the layout store the mask in every layer.
GPT2_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")


def gpt2_layout(model: nn.Module) -> Iterator[tuple[str, list[nn.Parameter], bool]]:
    """Where each tensor of Hugging Face's GPT-2 layout lives in a model.

    Yields:
        the tensor's name, the parameters that it holds one after the other, and whether it is transposed:
        that layout stores the weight of a linear layer as (inputs, outputs).

    Raises:
        ValueError: the model's projections have no bias, which that layout needs.

    Example:
        >>> name, (parameter,), transposed = next(gpt2_layout(GPTModel(GPTConfig(vocab_size=9, emb_dim=12))))
        >>> name, parameter.shape, transposed
        ('wte.weight', torch.Size([9, 12]), False)
    """
    yield "wte.weight", [model.tok_emb.weight], False
    yield "wpe.weight", [model.pos_emb.weight], False
    for layer, block in enumerate(model.trf_blocks):
        projections = (block.att.W_query, block.att.W_key, block.att.W_value)
        if any(projection.bias is None for projection in projections):
            raise ValueError("GPT-2's queries, keys and values have biases: build the model with qkv_bias=True")
        linears = {
            "attn.c_attn": projections,
            "attn.c_proj": [block.att.out_proj],
            "mlp.c_fc": [block.ff.layers[0]],
            "mlp.c_proj": [block.ff.layers[2]],
        }
        for name, layers in linears.items():
            yield f"h.{layer}.{name}.weight", [linear.weight for linear in layers], True
            yield f"h.{layer}.{name}.bias", [linear.bias for linear in layers], False
        for name, norm in (("ln_1", block.norm1), ("ln_2", block.norm2)):
            yield f"h.{layer}.{name}.weight", [norm.scale], False
            yield f"h.{layer}.{name}.bias", [norm.shift], False
    yield "ln_f.weight", [model.final_norm.scale], False
    yield "ln_f.bias", [model.final_norm.shift], False
    yield "lm_head.weight", [model.out_head.weight], False


def load_gpt2_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copy weights in Hugging Face's GPT-2 layout into a model: all of them or, on an error, none.

    Args:
        model: as ``GPTModel``, with ``qkv_bias=True``.
        state_dict: with or without the prefix ``transformer.``; without ``lm_head.weight`` the token embedding
            serves as the head. The buffers of old versions (``attn.bias``, ``attn.masked_bias``) are ignored.

    Raises:
        ValueError: a tensor is missing, misshapen or has no place (layers beyond the model's, for example), or
            a head of its own is given for a tied model. The message names the tensors.

    Example:
        >>> cfg = GPTConfig(vocab_size=9, context_length=4, emb_dim=6, n_heads=2, n_layers=1)
        >>> model, other = GPTModel(cfg), GPTModel(cfg)
        >>> load_gpt2_weights(model, gpt2_state_dict(other))
        >>> torch.equal(model.tok_emb.weight, other.tok_emb.weight)
        True
    """
    given = {name.removeprefix("transformer."): tensor for name, tensor in state_dict.items()}
    given = {name: tensor for name, tensor in given.items() if not GPT2_BUFFER.fullmatch(name)}
    embedding = given.get("wte.weight")
    head = given.setdefault("lm_head.weight", embedding)
    copies, problems = [], []
    for name, parameters, transposed in gpt2_layout(model):
        stacked = (sum(len(parameter) for parameter in parameters), *parameters[0].shape[1:])
        wanted = stacked[::-1] if transposed else stacked
        tensor = given.pop(name, None)
        if tensor is None:
            problems.append(f"{name} is missing")
        elif tuple(tensor.shape) != wanted:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, the model needs {wanted}")
        else:
            pieces = (tensor.t() if transposed else tensor).chunk(len(parameters))  # (3d, d) -> three (d, d)
            copies += zip(parameters, pieces, strict=True)
    problems += [f"{name} has no place in this model" for name in given]
    if not problems and model.out_head.weight is model.tok_emb.weight and not torch.equal(embedding, head):
        problems.append("lm_head.weight differs from wte.weight, but the model's head is tied to the embedding")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError("these weights don't fit: " + "; ".join(problems[:5]) + more)
    with torch.no_grad():
        for parameter, tensor in copies:
            parameter.copy_(tensor)


def gpt2_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Copies of a model's weights in Hugging Face's layout, named as in ``transformers.GPT2LMHeadModel``.

    Raises:
        ValueError: the model's projections have no bias, which that layout needs.

    Example:
        >>> cfg = GPTConfig(vocab_size=9, context_length=4, emb_dim=6, n_heads=2, n_layers=1)
        >>> gpt2_state_dict(GPTModel(cfg))["transformer.h.0.attn.c_attn.weight"].shape
        torch.Size([6, 18])
    """
    stored = {}
    for name, parameters, transposed in gpt2_layout(model):
        tensor = torch.cat([parameter.detach() for parameter in parameters])  # three of (d, d) -> (3d, d)
        full_name = name if name.startswith("lm_head") else f"transformer.{name}"
        stored[full_name] = tensor.t().contiguous() if transposed else tensor
    return stored


def from_pretrained(name: str = "gpt2", fused: bool = True) -> GPTModel:
    """GPT-2 with its published weights, in eval mode; downloaded once (0.5 GB for "gpt2") with a progress bar.

    Args:
        name: a key of ``PRESETS``, any repository on the Hugging Face hub in GPT-2's layout, or a local folder
            that holds ``config.json`` and ``model.safetensors``.
        fused: as in ``GPTConfig``.

    Raises:
        RuntimeError: the files can't be had, or are damaged; the message says what to do.
        ValueError: the files are not those of a GPT-2.

    Example:
        >>> model = from_pretrained("gpt2")  # doctest: +SKIP
    """
    published, weights = read_pretrained(fetch_pretrained(name))
    if published.get("model_type") != "gpt2":
        raise ValueError(f"{name} is a model of type {published.get('model_type')!r}, expected 'gpt2'")
    for key, values in EXPECTED.items():
        if published.get(key, values[0]) not in values:
            raise ValueError(f"{name} differs from GPT-2: its {key} is {published[key]!r}, expected {values[0]!r}")
    cfg = GPTConfig(
        vocab_size=published["vocab_size"],
        context_length=published["n_positions"],
        emb_dim=published["n_embd"],
        n_heads=published["n_head"],
        n_layers=published["n_layer"],
        tied=published.get("tie_word_embeddings", True),
        fused=fused,
    )
    model = GPTModel(cfg).eval()
    load_gpt2_weights(model, weights)
    return model
