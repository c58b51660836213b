"""Subtle mistakes for chapter 6."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.attention import MultiHeadAttention
from utils.checks.chapters.chapter06 import Block, Layers, Loader, Model, Norm, count_by, gelu_by
from utils.gpt import FeedForward, GPTModel, LayerNorm, gelu, load_gpt2_weights

# 6.1 ------------------------------------------------------------------------------------------------


class EpsilonByClamp(Norm):
    def spread(self, x):
        return self.variance(x).clamp(min=self.eps).sqrt()


class SlightlyOtherEpsilon(Norm):
    eps = 1.1e-5


class EpsilonOfFloat64(Norm):
    """Another epsilon for each precision."""

    def forward(self, x):
        self.eps = 1e-5 if x.dtype == torch.float32 else 1e-12
        return super().forward(x)


class ShiftNotAdded(Norm):
    def scaled(self, normed):
        return self.scale * normed


class ScaleNotUsed(Norm):
    def scaled(self, normed):
        return normed + self.shift


class ScaleAroundOne(Norm):
    def scaled(self, normed):
        return (1 + self.scale) * normed + self.shift


class UnderOtherNames(nn.Module):
    def __init__(self, emb_dim):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(emb_dim)), nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x):
        normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        return normed * self.weight + self.bias


class BuffersInstead(Norm):
    def __init__(self, emb_dim):
        nn.Module.__init__(self)
        self.register_buffer("scale", torch.ones(emb_dim))
        self.register_buffer("shift", torch.zeros(emb_dim))


class AbsoluteDeviation(Norm):
    def spread(self, x):
        return (self.centred(x).abs().mean(-1, keepdim=True).square() + self.eps).sqrt()


class RootMeanSquare(Norm):
    """RMSNorm: neither centred nor by the variance."""

    def forward(self, x):
        return self.scaled(x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt())


class UsesDimensionTwo(Norm):
    dims = 2


class RemembersStatistics(Norm):
    """As batch norm does: a running mean for eval mode."""

    def __init__(self, emb_dim):
        super().__init__(emb_dim)
        self.register_buffer("mean", torch.zeros(emb_dim))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().flatten(0, -2).mean(0) if x.dim() > 1 else self.mean
        return super().forward(x) if self.training else self.scaled((x - self.mean) / self.spread(x))


class InPlaceNorm(Norm):
    def forward(self, x):
        x -= x.mean(-1, keepdim=True)
        x /= self.spread(x)
        return self.scaled(x)


class AlwaysFloat32(Norm):
    def forward(self, x):
        return super().forward(x).float()


class SharedParameters(LayerNorm):
    scales = nn.Parameter(torch.ones(64))

    def __init__(self, emb_dim):
        super().__init__(emb_dim)
        self.scale.data = self.scales.data[:emb_dim]


class NoisyNorm(Norm):
    def forward(self, x):
        return super().forward(x + 1e-6 * torch.randn_like(x))


class ExtraParameter(Norm):
    def __init__(self, emb_dim):
        super().__init__(emb_dim)
        self.epsilon = nn.Parameter(torch.tensor(1e-5))


class ByLibrary(Norm):
    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.scale, self.shift, 1e-5)


class ByGroups(Norm):
    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        return F.group_norm(rows, 1, self.scale, self.shift).reshape(x.shape)


class ByNative(Norm):
    def forward(self, x):
        return torch.native_layer_norm(x, x.shape[-1:], self.scale, self.shift, 1e-5)[0]


class ByModule(Norm):
    def __init__(self, emb_dim):
        super().__init__(emb_dim)
        self.inner = nn.LayerNorm(emb_dim, elementwise_affine=False)

    def forward(self, x):
        return self.scaled(self.inner(x))


# 6.2 ------------------------------------------------------------------------------------------------


def gelu_by_other_root(x):
    return gelu_by(x, root=0.7979)


def gelu_by_four_digits(x):
    return gelu_by(x, factor=0.04471)


def gelu_hard_edges(x):
    return torch.where(x.abs() > 3, x.clamp(min=0), gelu(x))


def gelu_below_zero_cut(x):
    return gelu(x).clamp(min=0)


def gelu_in_place(x):
    return x.mul_(gelu(x) / torch.where(x == 0, 1.0, x))


def gelu_by_division(x):
    """0/0 at 0."""
    return gelu(x) / x * x


def gelu_through_numpy(x):
    numbers = x.detach().numpy()
    return torch.from_numpy(0.5 * numbers * (1 + np.tanh(math.sqrt(2 / math.pi) * (numbers + 0.044715 * numbers**3))))


def gelu_always_float32(x):
    return gelu(x.float())


def gelu_tanh_by_exponentials(x):
    z = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + (torch.exp(2 * z) - 1) / (torch.exp(2 * z) + 1))


def gelu_of_magnitude(x):
    return gelu(x.abs()) * x.sign()


def gelu_by_library(x):
    return F.gelu(x, approximate="tanh")


def gelu_by_module(x):
    return nn.GELU(approximate="tanh")(x)


def gelu_by_aten(x):
    return torch.ops.aten.gelu(x, approximate="tanh")


def gelu_as_mish(x):
    return F.mish(x)


def gelu_overflowing(x):
    """inf - inf where the cube overflows."""
    cube = x**3
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + cube - (1 - 0.044715) * cube)))


# 6.3 ------------------------------------------------------------------------------------------------


class WidthOfGPT2(Layers):
    def made(self, cfg):
        return [nn.Linear(cfg.emb_dim, 3072), nn.GELU("tanh"), nn.Linear(3072, cfg.emb_dim)]


class WidthByHeads(Layers):
    def made(self, cfg):
        hidden = 2 * cfg.n_heads * cfg.emb_dim
        return [nn.Linear(cfg.emb_dim, hidden), nn.GELU("tanh"), nn.Linear(hidden, cfg.emb_dim)]


class OneBiasOnly(Layers):
    biases = (True, False)


class DropsInside(Layers):
    """The names agree: dropout is called where it does not show in the parameters."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop = nn.Dropout(cfg.drop_rate)

    def forward(self, x):
        first, activation, second = self.layers
        return second(self.drop(activation(first(x))))


class DropsAlsoInEval(Layers):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.p = cfg.drop_rate

    def forward(self, x):
        return F.dropout(super().forward(x), self.p)


class NormInside(Layers):
    def forward(self, x):
        return self.layers(F.layer_norm(x, x.shape[-1:]))


class ActivationFirst(Layers):
    def forward(self, x):
        first, activation, second = self.layers
        return second(first(activation(x)))


class LayersInPlainList(Layers):
    def __init__(self, cfg):
        super().__init__(cfg)
        layers = list(self.layers)
        del self.layers
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class MixesTokens(Layers):
    def forward(self, x):
        return self.layers(x.mean(dim=1, keepdim=True).expand_as(x)) if x.shape[1] == 1 else self.layers(x.flip(1))


class DetachedHidden(Layers):
    def forward(self, x):
        first, activation, second = self.layers
        return second(activation(first(x)).detach())


class RoundedGELU(Layers):
    def forward(self, x):
        first, _, second = self.layers
        return second(gelu_by(first(x), factor=0.0447))


# 6.4 ------------------------------------------------------------------------------------------------


class DropsInput(Block):
    """Before the branch, not after it."""

    def forward(self, x):
        x = x + self.att(self.drop(self.norm1(x)))
        return x + self.ff(self.drop(self.norm2(x)))


class DropsTwice(Block):
    def forward(self, x):
        x = x + self.drop(self.drop(self.att(self.norm1(x))))
        return x + self.drop(self.ff(self.norm2(x)))


class DropsInputToo(Block):
    def forward(self, x):
        x = x + self.drop(self.att(self.norm1(x)))
        return x + self.drop(self.ff(self.drop(self.norm2(x))))


class FeedForwardThatDrops(FeedForward):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop = nn.Dropout(cfg.drop_rate)

    def forward(self, x):
        first, activation, second = self.layers
        return second(self.drop(activation(first(x))))


class DropsHiddenUnits(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.ff = FeedForwardThatDrops(cfg)


class DropsWholeTokens(Block):
    """One draw for all channels of a token."""

    def forward(self, x):
        x = x + self.dropped(self.att(self.norm1(x)))
        return x + self.dropped(self.ff(self.norm2(x)))

    def dropped(self, branch):
        if not self.training:
            return branch
        keep = 1 - self.drop.p
        return branch * torch.bernoulli(torch.full_like(branch[..., :1], keep)) / keep


class DropsWholeChannels(DropsWholeTokens):
    def dropped(self, branch):
        return F.dropout1d(branch.mT, self.drop.p, self.training).mT


class DropsTheSameInEverySequence(DropsWholeTokens):
    def dropped(self, branch):
        return branch * self.drop(torch.ones_like(branch[:1]))


class SameDrawForBothBranches(Block):
    def forward(self, x):
        mask = self.drop(torch.ones_like(x))
        x = x + mask * self.att(self.norm1(x))
        return x + mask * self.ff(self.norm2(x))


class DropsWholeBranches(DropsWholeTokens):
    """Stochastic depth: a branch is there or not."""

    def dropped(self, branch):
        return branch * self.drop(torch.ones(len(branch), 1, 1, dtype=branch.dtype))


class DropsWithoutScaling(DropsWholeTokens):
    def dropped(self, branch):
        return branch * torch.bernoulli(torch.full_like(branch, 1 - self.drop.p)) if self.training else branch


class HalfByDefault(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop = nn.Dropout()


class TenPercentAlways(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop = nn.Dropout(0.1)


class AttentionDropsTenPercent(Block):
    def attention(self, cfg):
        d = cfg.emb_dim
        return MultiHeadAttention(d, d, cfg.context_length, 0.1, cfg.n_heads, cfg.qkv_bias)


class BiasAsDropout(Block):
    def attention(self, cfg):
        d = cfg.emb_dim
        return MultiHeadAttention(d, d, cfg.context_length, float(cfg.qkv_bias) * 0.5, cfg.n_heads, cfg.qkv_bias)


class LayersForHeads(Block):
    def attention(self, cfg):
        d = cfg.emb_dim
        heads = cfg.n_layers if d % cfg.n_layers == 0 else 1
        return MultiHeadAttention(d, d, cfg.context_length, cfg.drop_rate, heads, cfg.qkv_bias)


class LengthByOne(Block):
    def attention(self, cfg):
        d = cfg.emb_dim
        return MultiHeadAttention(d, d, cfg.context_length + 1, cfg.drop_rate, cfg.n_heads, cfg.qkv_bias)


class LengthOfWidth(Block):
    def attention(self, cfg):
        d = cfg.emb_dim
        return MultiHeadAttention(d, d, max(d, cfg.context_length), cfg.drop_rate, cfg.n_heads, cfg.qkv_bias)


class NormWithOtherEpsilon(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.norm1 = copy.deepcopy(self.norm1)
        self.norm1.forward = lambda x: F.layer_norm(x, x.shape[-1:], self.norm1.scale, self.norm1.shift, 1e-2)


class ExactInside(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.ff.layers[1] = nn.GELU()


class OtherAttributeNames(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.attn = self.att
        del self.att

    def forward(self, x):
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.ff(self.norm2(x)))


class ThirdNorm(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.norm3 = LayerNorm(cfg.emb_dim)

    def forward(self, x):
        return self.norm3(super().forward(x))


class InPlaceAddition(Block):
    def forward(self, x):
        x += self.drop(self.att(self.norm1(x)))
        return x + self.drop(self.ff(self.norm2(x)))


class DetachedStream(Block):
    def forward(self, x):
        x = x.detach() + self.drop(self.att(self.norm1(x)))
        return x + self.drop(self.ff(self.norm2(x)))


class HalvedResidual(Block):
    def forward(self, x):
        x = (x + self.drop(self.att(self.norm1(x)))) / math.sqrt(2)
        return (x + self.drop(self.ff(self.norm2(x)))) / math.sqrt(2)


class AttentionAsBatch(Block):
    """Tokens and batch exchanged."""

    def forward(self, x):
        x = x + self.drop(self.att(self.norm1(x).transpose(0, 1)).transpose(0, 1))
        return x + self.drop(self.ff(self.norm2(x)))


class DropoutInTrainOnlyOfSumOfBranches(Block):
    def forward(self, x):
        a = self.att(self.norm1(x))
        f = self.ff(self.norm2(x + a))
        return x + self.drop(a + f)


# 6.5 ------------------------------------------------------------------------------------------------


class OneBlockOnly(Model):
    def blocks(self, cfg):
        return nn.Sequential(self.block(cfg))


class OneBlockTooMany(Model):
    def blocks(self, cfg):
        return nn.Sequential(*(self.block(cfg) for _ in range(cfg.n_layers + 1)))


class LastBlockSkipped(Model):
    def forward(self, idx):
        self.refuse(idx.shape[1])
        return self.logits(self.trf_blocks[:-1](self.embedded(idx)))


class PositionsByBatch(Model):
    def positions(self, idx):
        return self.pos_emb(torch.arange(idx.shape[0]).clamp(max=self.context_length - 1))[:, None]


class FirstPositionOnly(Model):
    def positions(self, idx):
        return self.pos_emb(torch.zeros_like(idx[0]))


class PositionsRandom(Model):
    def positions(self, idx):
        return self.pos_emb(torch.randint(self.context_length, idx.shape[1:]))


class PositionsNotTrained(Model):
    def positions(self, idx):
        return super().positions(idx).detach()


class SinusoidalPositions(Model):
    def __init__(self, cfg):
        super().__init__(cfg)
        del self.pos_emb
        self.register_buffer("pos_emb", torch.randn(cfg.context_length, cfg.emb_dim))

    def positions(self, idx):
        return self.pos_emb[: idx.shape[1]]


class RefusesTheLongest(Model):
    def refuse(self, num_tokens):
        if num_tokens >= self.context_length:
            raise ValueError(f"{num_tokens} tokens")


class NamesTheLimit(Model):
    def refuse(self, num_tokens):
        if num_tokens > self.context_length:
            raise ValueError(f"at most {self.context_length} tokens")


class RefusesWithAnotherError(Model):
    def refuse(self, num_tokens):
        if num_tokens > self.context_length:
            raise RuntimeError(f"{num_tokens} tokens")


class ReturnsATuple(Model):
    def forward(self, idx):
        return super().forward(idx), None


class LogProbabilities(Model):
    def logits(self, x):
        return torch.log_softmax(super().logits(x), dim=-1)


class Transposed(Model):
    def logits(self, x):
        return super().logits(x).transpose(1, 2)


class FlattenedLogits(Model):
    def logits(self, x):
        return super().logits(x).flatten(0, 1)


class NormAfterTheHead(Model):
    def logits(self, x):
        return F.layer_norm(self.out_head(x), [self.out_head.out_features]) + 0 * self.final_norm(x).sum()


class HeadOnEmbedding(Model):
    """Tied in the computation, while a head of its own lies idle."""

    def logits(self, x):
        return self.final_norm(x) @ self.tok_emb.weight.T + 0 * self.out_head.weight.sum()


class NormUnused(Model):
    """Normalises, but by a norm without scale and shift."""

    def logits(self, x):
        return self.out_head(F.layer_norm(x, x.shape[-1:])) + 0 * self.final_norm(x).sum()


class DropsAfterTheBlocks(Model):
    def logits(self, x):
        return super().logits(self.drop_emb(x))


class DropsBeforeAndAfter(DropsAfterTheBlocks):
    def embedded(self, idx):
        return self.tok_emb(idx) + self.positions(idx)


class DropsWholeEmbeddings(Model):
    def embedded(self, idx):
        x = self.tok_emb(idx) + self.positions(idx)
        return x * self.drop_emb(torch.ones_like(x[..., :1]))


class DropsHalf(Model):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop_emb = nn.Dropout()


class DropsInEval(Model):
    def embedded(self, idx):
        return F.dropout(self.tok_emb(idx) + self.positions(idx), self.drop_emb.p)


class DropsPositionsOnly(Model):
    def embedded(self, idx):
        return self.tok_emb(idx) + self.drop_emb(self.positions(idx))


class BlockDropsNothing(Model):
    def blocks(self, cfg):
        blocks = super().blocks(cfg)
        for block in blocks:
            block.drop = nn.Identity()
        return blocks


class FirstBlockWithoutFeedForward(Model):
    def forward(self, idx):
        self.refuse(idx.shape[1])
        x = self.embedded(idx)
        for i, block in enumerate(self.trf_blocks):
            x = x + block.drop(block.att(block.norm1(x))) if i == 0 else block(x)
        return self.logits(x)


class CopiesOfOneBlock(Model):
    """Parameters of their own, but two of them share one."""

    def blocks(self, cfg):
        blocks = super().blocks(cfg)
        for block in blocks[1:]:
            block.norm1.scale = blocks[0].norm1.scale
        return blocks


class BlocksUnderAnotherName(Model):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.blocks_, self.trf_blocks = self.trf_blocks, None

    def forward(self, idx):
        self.refuse(idx.shape[1])
        return self.logits(self.blocks_(self.embedded(idx)))


class FirstOfTheBatch(Model):
    def forward(self, idx):
        return super().forward(idx[:1]).expand(len(idx), -1, -1)


class SqueezedLogits(Model):
    def logits(self, x):
        return super().logits(x).squeeze(1)


class KeepsLogits(Model):
    kept = None

    def forward(self, idx):
        if self.kept is None or self.kept.shape[:2] != idx.shape:
            self.kept = super().forward(idx)
        return self.kept


class SharedBetweenModels(Model):
    shared: nn.Embedding | None = None

    def __init__(self, cfg):
        super().__init__(cfg)
        cls = SharedBetweenModels
        if cls.shared is None or cls.shared.weight.shape != self.tok_emb.weight.shape:
            cls.shared = self.tok_emb
        self.tok_emb = cls.shared


# 6.6 ------------------------------------------------------------------------------------------------


def count_as_text(cfg, tied):
    return str(count_by(cfg, tied))


def count_as_tensor(cfg, tied):
    return torch.tensor(count_by(cfg, tied))


def count_as_numpy(cfg, tied):
    return np.int64(count_by(cfg, tied))


def count_for_gpt2(cfg, tied):
    return 124439808 if tied else 163037184


def count_in_float32(cfg, tied):
    return int(torch.tensor(count_by(cfg, tied), dtype=torch.float32))


def count_positions_per_layer(cfg, tied):
    return count_by(cfg, tied, positions=cfg.n_layers)


def count_final_norm_per_layer(cfg, tied):
    return count_by(cfg, tied, norms=3, final_norm=0)


def count_three_norms(cfg, tied):
    return count_by(cfg, tied, norms=3)


def count_qkv_bias_once(cfg, tied):
    return count_by(cfg, tied, qkv_bias=0) + cfg.qkv_bias * cfg.n_layers * cfg.emb_dim


def count_out_bias_by_qkv_bias(cfg, tied):
    return count_by(cfg, tied, out_bias=int(cfg.qkv_bias))


def count_tied_without_positions(cfg, tied):
    return count_by(cfg, tied, positions=0 if tied else 1)


def count_tied_by_cfg_or_argument(cfg, tied):
    return count_by(cfg, tied or cfg.tied)


def count_on_meta_device(cfg, tied):
    with torch.device("meta"):
        model = GPTModel(cfg)
    total = sum(parameter.numel() for parameter in model.parameters())
    return total - tied * model.out_head.weight.numel()


def count_one_block_and_multiply(cfg, tied):
    from utils.gpt import TransformerBlock

    block = sum(parameter.numel() for parameter in TransformerBlock(cfg).parameters())
    d = cfg.emb_dim
    return cfg.n_layers * block + d * (cfg.vocab_size * (1 if tied else 2) + cfg.context_length + 2)


def count_with_linears(cfg, tied):
    d = cfg.emb_dim
    head = nn.Linear(d, cfg.vocab_size, bias=False, device="meta")
    return count_by(cfg, True) + (0 if tied else head.weight.numel())


def count_with_empty_tensors(cfg, tied):
    d = cfg.emb_dim
    return count_by(cfg, True) + (0 if tied else torch.empty(cfg.vocab_size, d, device="meta").numel())


def count_hiding_what_it_builds(cfg, tied):
    try:
        return sum(p.numel() for p in GPTModel(cfg).parameters()) - tied * cfg.vocab_size * cfg.emb_dim
    except Exception:
        return count_by(cfg, tied)


class RemembersTheCount:
    def __init__(self):
        self.known = {}

    def __call__(self, cfg, tied):
        key = (cfg.emb_dim, cfg.n_layers, tied)
        return self.known.setdefault(key, count_by(cfg, tied))


# 6.7 ------------------------------------------------------------------------------------------------


class BackwardsBias(Loader):
    def split_bias(self, bias):
        return list(bias.chunk(3))[::-1]


class BiasInTurns(Loader):
    def split_bias(self, bias):
        return [bias[i::3] for i in range(3)]


class FeedForwardNotTransposed(Loader):
    def linear_copies(self, linear, given, name):
        weight = given[f"{name}.weight"]
        yield linear.weight, weight.reshape(linear.weight.shape) if ".mlp." in name else weight.T
        yield linear.bias, given[f"{name}.bias"]


class FinalNormForgotten(Loader):
    def norm_copies(self, norm, given, name):
        if name != "ln_f":
            yield from super().norm_copies(norm, given, name)


class PositionsForgotten(Loader):
    def copies(self, model, given):
        copies = list(super().copies(model, given))
        return [copies[0], *copies[2:]]


class HeadForgotten(Loader):
    def copies(self, model, given):
        return list(super().copies(model, given))[:-1]


class HeadZeroWithoutOne(Loader):
    def head(self, given):
        return given.get("lm_head.weight", torch.zeros_like(given["wte.weight"]))


class ReversedLayers(Loader):
    def copies(self, model, given):
        renamed = dict(given)
        last = len(model.trf_blocks) - 1
        for name in given:
            if name.startswith("h."):
                _, layer, rest = name.split(".", 2)
                renamed[f"h.{last - int(layer)}.{rest}"] = given[name]
        return super().copies(model, renamed)


class LayersByTextOrder(Loader):
    """h.10 comes before h.2."""

    def copies(self, model, given):
        order = sorted(range(len(model.trf_blocks)), key=str)
        renamed = dict(given)
        for name in given:
            if name.startswith("h."):
                _, layer, rest = name.split(".", 2)
                renamed[f"h.{order.index(int(layer))}.{rest}"] = given[name]
        return super().copies(model, renamed)


class BiasFoundByEnding(Loader):
    """Takes `attn.bias` for the bias of attention where it is there."""

    def named(self, state_dict):
        given = super().named(state_dict)
        for name, tensor in state_dict.items():
            if name.endswith(".attn.bias"):
                d = given["wte.weight"].shape[1]
                given[name.removeprefix("transformer.").replace("attn.bias", "attn.c_proj.bias")] = tensor.new_zeros(d)
        return given


class ChecksNumbersOfElements(Loader):
    def check_one(self, given, name, shape):
        if name in given and given[name].numel() == math.prod(shape):
            given[name] = given[name].reshape(shape)
        super().check_one(given, name, shape)


class ChecksWeightsOnly(Loader):
    def check_one(self, given, name, shape):
        if name.endswith(".bias") and name in given:
            given[name] = given[name].expand(shape)
        elif name.endswith(".bias"):
            given[name] = torch.zeros(shape)
        else:
            super().check_one(given, name, shape)


class LeavesTheHeadUnchecked(Loader):
    def check(self, model, given):
        head = given.pop("lm_head.weight", None)
        super().check(model, given)
        if head is not None:
            given["lm_head.weight"] = head

    def copy(self, parameter, tensor):
        if parameter.shape == tensor.shape:
            parameter.copy_(tensor)


class EmbeddingMayBeCut(Loader):
    """Takes as many rows as fit."""

    def check_one(self, given, name, shape):
        if name in ("wte.weight", "wpe.weight") and name in given:
            given[name] = given[name][: shape[0]]
        super().check_one(given, name, shape)


class MissingHeadAlsoForEmbedding(Loader):
    def check_one(self, given, name, shape):
        if name == "wte.weight" and name not in given and "lm_head.weight" in given:
            given[name] = given["lm_head.weight"]
        super().check_one(given, name, shape)


class TooFewLayersPass(Loader):
    def check(self, model, given):
        layers = {int(name.split(".")[1]) for name in given if name.startswith("h.")}
        for name, shape in self.shapes(model).items():
            if not name.startswith("h.") or int(name.split(".")[1]) in layers:
                self.check_one(given, name, shape)

    def copies(self, model, given):
        layers = {int(name.split(".")[1]) for name in given if name.startswith("h.")}
        yield model.tok_emb.weight, given["wte.weight"]
        yield model.pos_emb.weight, given["wpe.weight"]
        for layer, block in enumerate(model.trf_blocks):
            if layer in layers:
                yield from self.block_copies(block, given, f"h.{layer}.")
        yield from self.norm_copies(model.final_norm, given, "ln_f")
        yield model.out_head.weight, self.head(given)


class ExtraLayersChangeTheModel(Loader):
    """The surplus is noticed at the end."""

    def check(self, model, given):
        for name, shape in self.shapes(model).items():
            self.check_one(given, name, shape)

    def __call__(self, model, state_dict):
        super().__call__(model, state_dict)
        for name in self.named(state_dict):
            if name.startswith("h.") and int(name.split(".")[1]) >= len(model.trf_blocks):
                raise ValueError(f"{name} has no place in this model")


class KeyErrorWithName(Loader):
    def check_one(self, given, name, shape):
        if name not in given and name != "lm_head.weight":
            raise KeyError(f"{name} is missing")
        super().check_one(given, name, shape)


class RuntimeErrorForShapes(Loader):
    def check_one(self, given, name, shape):
        if name in given and given[name].shape != shape:
            raise RuntimeError(f"{name} has the wrong shape")
        super().check_one(given, name, shape)


class OwnNamesInErrors(Loader):
    def check(self, model, given):
        try:
            super().check(model, given)
        except ValueError as error:
            raise ValueError(str(error).replace("h.", "trf_blocks_").replace("wte", "tok_emb")) from None


class PrintsInsteadOfRaising(Loader):
    def __call__(self, model, state_dict):
        try:
            super().__call__(model, state_dict)
        except ValueError as error:
            print(error)


class ReturnsAnotherModel(Loader):
    def __call__(self, model, state_dict):
        other = copy.deepcopy(model)
        super().__call__(other, state_dict)
        return other


class DrawsOnTheSide(Loader):
    def __call__(self, model, state_dict):
        torch.rand(3)
        super().__call__(model, state_dict)


class TransposesTheFile(Loader):
    """In place, so the file is transposed afterwards."""

    def __call__(self, model, state_dict):
        super().__call__(model, state_dict)
        for name, tensor in state_dict.items():
            if "c_proj.weight" in name:
                tensor.t_()


class RenamesTheFile(Loader):
    def named(self, state_dict):
        for name in list(state_dict):
            state_dict[name.removeprefix(self.prefix)] = state_dict.pop(name)
        return super().named(state_dict)


class OnlyOnce(Loader):
    """Remembers that it has been done."""

    def __call__(self, model, state_dict):
        if not getattr(model, "is_loaded", False):
            super().__call__(model, state_dict)
        model.is_loaded = True


class StrictWithPrefixOnly(Loader):
    """Decides by the first name whether there is a prefix."""

    def named(self, state_dict):
        first = next(iter(state_dict))
        if first.startswith("transformer."):
            return super().named(state_dict)
        return {name: tensor for name, tensor in super().named(state_dict).items() if not name.startswith("lm_head")}


def load_nothing(model, state_dict):
    """Done."""


def load_plainly(model, state_dict):
    model.load_state_dict(state_dict, strict=False)


def load_into_buffers(model, state_dict):
    load_gpt2_weights(model, state_dict)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())


NORMS = [
    EpsilonByClamp,
    SlightlyOtherEpsilon,
    EpsilonOfFloat64,
    ShiftNotAdded,
    ScaleNotUsed,
    ScaleAroundOne,
    UnderOtherNames,
    BuffersInstead,
    AbsoluteDeviation,
    RootMeanSquare,
    UsesDimensionTwo,
    RemembersStatistics,
    InPlaceNorm,
    AlwaysFloat32,
    SharedParameters,
    NoisyNorm,
    ExtraParameter,
    ByLibrary,
    ByGroups,
    ByNative,
    ByModule,
]
GELUS = [
    gelu_by_other_root,
    gelu_by_four_digits,
    gelu_hard_edges,
    gelu_below_zero_cut,
    gelu_in_place,
    gelu_by_division,
    gelu_through_numpy,
    gelu_always_float32,
    gelu_tanh_by_exponentials,
    gelu_of_magnitude,
    gelu_by_library,
    gelu_by_module,
    gelu_by_aten,
    gelu_as_mish,
    gelu_overflowing,
]
FEED_FORWARDS = [
    WidthOfGPT2,
    WidthByHeads,
    OneBiasOnly,
    DropsInside,
    DropsAlsoInEval,
    NormInside,
    ActivationFirst,
    LayersInPlainList,
    MixesTokens,
    DetachedHidden,
    RoundedGELU,
]
BLOCKS = [
    DropsInput,
    DropsTwice,
    DropsInputToo,
    DropsHiddenUnits,
    DropsWholeTokens,
    DropsWholeChannels,
    DropsTheSameInEverySequence,
    SameDrawForBothBranches,
    DropsWholeBranches,
    DropsWithoutScaling,
    HalfByDefault,
    TenPercentAlways,
    AttentionDropsTenPercent,
    BiasAsDropout,
    LayersForHeads,
    LengthByOne,
    LengthOfWidth,
    NormWithOtherEpsilon,
    ExactInside,
    OtherAttributeNames,
    ThirdNorm,
    InPlaceAddition,
    DetachedStream,
    HalvedResidual,
    AttentionAsBatch,
    DropoutInTrainOnlyOfSumOfBranches,
]
MODELS = [
    OneBlockOnly,
    OneBlockTooMany,
    LastBlockSkipped,
    PositionsByBatch,
    FirstPositionOnly,
    PositionsRandom,
    PositionsNotTrained,
    SinusoidalPositions,
    RefusesTheLongest,
    NamesTheLimit,
    RefusesWithAnotherError,
    ReturnsATuple,
    LogProbabilities,
    Transposed,
    FlattenedLogits,
    NormAfterTheHead,
    HeadOnEmbedding,
    NormUnused,
    DropsAfterTheBlocks,
    DropsBeforeAndAfter,
    DropsWholeEmbeddings,
    DropsHalf,
    DropsInEval,
    DropsPositionsOnly,
    BlockDropsNothing,
    FirstBlockWithoutFeedForward,
    CopiesOfOneBlock,
    BlocksUnderAnotherName,
    FirstOfTheBatch,
    SqueezedLogits,
    KeepsLogits,
    SharedBetweenModels,
]
COUNTS = [
    count_as_text,
    count_as_tensor,
    count_as_numpy,
    count_for_gpt2,
    count_in_float32,
    count_positions_per_layer,
    count_final_norm_per_layer,
    count_three_norms,
    count_qkv_bias_once,
    count_out_bias_by_qkv_bias,
    count_tied_without_positions,
    count_tied_by_cfg_or_argument,
    count_on_meta_device,
    count_one_block_and_multiply,
    count_with_linears,
    count_with_empty_tensors,
    count_hiding_what_it_builds,
    RemembersTheCount(),
]
LOADERS = [
    BackwardsBias(),
    BiasInTurns(),
    FeedForwardNotTransposed(),
    FinalNormForgotten(),
    PositionsForgotten(),
    HeadForgotten(),
    HeadZeroWithoutOne(),
    ReversedLayers(),
    LayersByTextOrder(),
    BiasFoundByEnding(),
    ChecksNumbersOfElements(),
    ChecksWeightsOnly(),
    LeavesTheHeadUnchecked(),
    EmbeddingMayBeCut(),
    MissingHeadAlsoForEmbedding(),
    TooFewLayersPass(),
    ExtraLayersChangeTheModel(),
    KeyErrorWithName(),
    RuntimeErrorForShapes(),
    OwnNamesInErrors(),
    PrintsInsteadOfRaising(),
    ReturnsAnotherModel(),
    DrawsOnTheSide(),
    TransposesTheFile(),
    RenamesTheFile(),
    OnlyOnce(),
    StrictWithPrefixOnly(),
    load_nothing,
    load_plainly,
    load_into_buffers,
]
SUBTLE_MISTAKES = [
    (exercise_id, answer)
    for exercise_id, answers in (
        ("6.1", NORMS),
        ("6.2", GELUS),
        ("6.3", FEED_FORWARDS),
        ("6.4", BLOCKS),
        ("6.5", MODELS),
        ("6.6", COUNTS),
        ("6.7", LOADERS),
    )
    for answer in answers
]
