"""Other right answers for chapter 6."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import gpt
from utils.attention import MultiHeadAttention, merge_heads, split_heads
from utils.costs import count_parameters
from utils.gpt import LayerNorm

# 6.1 ------------------------------------------------------------------------------------------------


class NormByHand(nn.Module):
    def __init__(self, emb_dim):
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x):
        mean = x.sum(-1, keepdim=True) / x.shape[-1]
        centred = x - mean
        var = (centred**2).sum(-1, keepdim=True) / x.size(-1)
        return centred * (var + self.eps) ** -0.5 * self.scale + self.shift


class NormUnbiasedFlag(NormByHand):
    def forward(self, x):
        mean, var = x.mean(-1, True), x.var(-1, unbiased=False, keepdim=True)
        return torch.addcmul(self.shift, self.scale, (x - mean) * torch.rsqrt(var + self.eps))


class NormVarMean(NormByHand):
    def forward(self, x):
        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return self.shift + self.scale * (x - mean).div((var + 1e-5).sqrt())


class NormSquares(NormByHand):
    """Mean of the squares minus square of the mean."""

    def forward(self, x):
        wide = x.double()
        mean = wide.mean(-1, keepdim=True)
        var = wide.square().mean(-1, keepdim=True) - mean.square()
        return ((wide - mean) / (var + 1e-5).sqrt() * self.scale + self.shift).to(x.dtype)


class NormEinsum(nn.Module):
    def __init__(self, emb_dim):
        super().__init__()
        self.register_parameter("shift", nn.Parameter(torch.zeros(emb_dim)))
        self.register_parameter("scale", nn.Parameter(torch.ones(emb_dim)))
        self.register_buffer("average", torch.full((emb_dim,), 1 / emb_dim, dtype=torch.float64))

    def forward(self, x):
        average = self.average.to(x.dtype)
        x = x - torch.einsum("...d,d->...", x, average)[..., None]
        return x / (torch.einsum("...d,...d,d->...", x, x, average)[..., None] + 1e-5).sqrt() * self.scale + self.shift


class NormCorrected(NormByHand):
    """The unbiased variance, turned into the biased one; Bessel's correction by hand."""

    def forward(self, x):
        d = x.shape[-1]
        var = x.var(-1, keepdim=True) * (d - 1) / d if d > 1 else torch.zeros_like(x)
        return self.scale * ((x - x.mean(-1, keepdim=True)) / torch.sqrt(var + self.eps)) + self.shift


class NormLastFirst(NormByHand):
    """With the channels in front, as someone who likes to broadcast."""

    def forward(self, x):
        channels_first = x.movedim(-1, 0)
        centred = channels_first - channels_first.mean(0)
        normed = centred / (centred.pow(2).mean(0) + self.eps).sqrt()
        return normed.movedim(0, -1).mul(self.scale).add(self.shift)


class NormByBatchNorm(NormByHand):
    """Every token as a channel of one batch of its own: all that is not forbidden is allowed."""

    def forward(self, x):
        if x.shape[-1] == 1:  # which batch_norm refuses
            return (x - x) * self.scale + self.shift
        rows = x.reshape(1, -1, x.shape[-1])  # (1, tokens, d)
        return F.batch_norm(rows, None, None, training=True, eps=self.eps).reshape(x.shape) * self.scale + self.shift


class NormSubclass(LayerNorm):
    def __init__(self, emb_dim, eps=1e-5, bias=True):
        super().__init__(emb_dim)
        self.eps = eps

    def norm(self, x):
        return (x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(x.var(dim=-1, keepdim=True, correction=0) + self.eps)

    def forward(self, x):
        return self.norm(x) * self.scale + self.shift


class NormStd(NormByHand):
    def forward(self, x):
        std = torch.std(x, dim=-1, correction=0, keepdim=True).detach()
        var = torch.var(x, dim=-1, correction=0, keepdim=True)
        assert std.shape == var.shape
        return F.linear((x - x.mean(-1, keepdim=True)) / (var + 1e-5) ** 0.5, torch.diag(self.scale), self.shift)


class NormMetaclass(type):
    pass


class NormWithMetaclass(NormByHand, metaclass=NormMetaclass):
    """PyTorch does not mind."""


# 6.2 ------------------------------------------------------------------------------------------------


def gelu_by_sigmoid(x):
    """0.5 (1 + tanh z) is sigmoid(2z)."""
    return x * torch.sigmoid(2 * (2 / math.pi) ** 0.5 * (x + 0.044715 * x * x * x))


def gelu_in_float64(x):
    wide = x.double()
    return (0.5 * wide * (1 + torch.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide.pow(3))))).to(x.dtype)


def gelu_factored(x):
    return x / 2 + x / 2 * torch.tanh(0.7978845608028654 * x * (1 + 0.044715 * x**2))


def gelu_with_tensors(x):
    root = torch.sqrt(torch.tensor(2.0, dtype=x.dtype) / torch.pi)
    inner = root * (x + 0.044715 * torch.pow(x, 3))
    return torch.mul(torch.mul(x, 0.5), torch.add(inner.tanh(), 1.0))


class GELUModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("root", torch.tensor(2 / math.pi, dtype=torch.float64).sqrt())

    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(self.root * (x + 0.044715 * x**3)))


def gelu_by_exponentials(x):
    """1 + tanh z = 2 / (1 + exp(-2z)); exp is cut where it would overflow."""
    z = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x / (1 + torch.exp((-2 * z).clamp(max=80)))


def gelu_where(x):
    middle = x.clamp(-15, 15)
    bent = 0.5 * middle * (1 + torch.tanh(math.sqrt(2 / math.pi) * (middle + 0.044715 * middle**3)))
    return torch.where(x > 15, x, torch.where(x < -15, torch.zeros_like(x), bent))


def gelu_number_by_number(x):
    def one(number):
        return 0.5 * number * (1 + torch.tanh(math.sqrt(2 / math.pi) * (number + 0.044715 * number**3)))

    return torch.stack([one(number) for number in x.flatten()]).reshape(x.shape)


def gelu_in_float32(x):
    short = x.float()
    return (0.5 * short * (1 + torch.tanh(math.sqrt(2 / math.pi) * (short + 0.044715 * short**3)))).to(x.dtype)


class OwnFunction(torch.autograd.Function):
    """With a backward pass of its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        tanh = torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return gradient * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * slope)


# 6.3 ------------------------------------------------------------------------------------------------


class WithOwnGELU(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        d = cfg.emb_dim
        self.layers = nn.ModuleList([nn.Linear(d, 4 * d), GELUModule(), nn.Linear(4 * d, d)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class WithModuleDict(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        hidden = cfg.emb_dim * 4
        self.layers = nn.ModuleDict({"2": nn.Linear(hidden, cfg.emb_dim), "0": nn.Linear(cfg.emb_dim, hidden)})

    def forward(self, x):
        return self.layers["2"](F.gelu(self.layers["0"](x), approximate="tanh"))


class WithMatrices(gpt.FeedForward):
    def forward(self, x):
        first, _, second = self.layers
        hidden = gelu_factored(x @ first.weight.T + first.bias)
        return torch.einsum("...h,dh->...d", hidden, second.weight) + second.bias


class WithIdentityAndDropoutOfZero(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.emb_dim, 4 * config.emb_dim, bias=True),
            nn.GELU("tanh"),
            nn.Linear(4 * config.emb_dim, config.emb_dim, bias=True),
            nn.Dropout(0.0),
            nn.Identity(),
        )

    def forward(self, x):
        return self.layers(x)


class OwnLinear(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(d_out))
        self.weight = nn.Parameter(torch.randn(d_out, d_in) * 0.02)

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class WithOwnLinear(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.layers = nn.Sequential()
        self.layers.append(OwnLinear(cfg.emb_dim, 4 * cfg.emb_dim))
        self.layers.append(nn.GELU(approximate="tanh"))
        self.layers.append(OwnLinear(4 * cfg.emb_dim, cfg.emb_dim))

    def forward(self, x):
        b, t, d = x.shape
        return self.layers(x.reshape(b * t, d)).view(b, t, d)


class ChunkByChunk(gpt.FeedForward):
    """A few hidden units at a time, to save memory."""

    def forward(self, x):
        first, activation, second = self.layers
        result = second.bias
        for hidden in torch.arange(first.out_features).chunk(3):
            result = (
                result + activation(F.linear(x, first.weight[hidden], first.bias[hidden])) @ second.weight[:, hidden].T
            )
        return result


# 6.4 ------------------------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    """As in the book: a shortcut kept aside, and one line for each step."""

    def __init__(self, cfg):
        super().__init__()
        self.att = MultiHeadAttention(
            d_in=cfg.emb_dim,
            d_out=cfg.emb_dim,
            context_length=cfg.context_length,
            num_heads=cfg.n_heads,
            dropout=cfg.drop_rate,
            qkv_bias=cfg.qkv_bias,
        )
        self.ff = WithOwnGELU(cfg)
        self.norm1 = NormByHand(cfg.emb_dim)
        self.norm2 = NormVarMean(cfg.emb_dim)
        self.drop_shortcut = nn.Dropout(cfg.drop_rate)

    def forward(self, x):
        shortcut = x
        x = self.norm1(x)
        x = self.att(x)
        x = self.drop_shortcut(x)
        x = x + shortcut
        shortcut = x
        x = self.norm2(x)
        x = self.ff(x)
        x = self.drop_shortcut(x)
        return x + shortcut


class BlockWithTwoDropouts(gpt.TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop = None
        self.drop1, self.drop2 = nn.Dropout(cfg.drop_rate), nn.Dropout(p=cfg.drop_rate)

    def forward(self, x):
        h = self.drop1(self.att(self.norm1(x))) + x
        return torch.add(h, self.drop2(self.ff(self.norm2(h))))


class BlockWithFunctions(gpt.TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.p = cfg.drop_rate

    def residual(self, x, norm, branch):
        return x + F.dropout(branch(norm(x)), p=self.p, training=self.training)

    def forward(self, x):
        for norm, branch in ((self.norm1, self.att), (self.norm2, self.ff)):
            x = self.residual(x, norm, branch)
        return x


class OwnAttention(nn.Module):
    """A learner's own multi-head attention with another mask, and dropout on its result, as nanoGPT has it."""

    def __init__(self, cfg):
        super().__init__()
        d = cfg.emb_dim
        self.out_proj = nn.Linear(d, d)
        self.W_value, self.W_key, self.W_query = (nn.Linear(d, d, bias=cfg.qkv_bias) for _ in range(3))
        self.heads = cfg.n_heads
        self.attn_dropout, self.resid_dropout = nn.Dropout(cfg.drop_rate), nn.Dropout(cfg.drop_rate)
        lower = torch.ones(cfg.context_length, cfg.context_length).tril()
        self.register_buffer("causal", lower[None, None], persistent=False)

    def forward(self, x):
        b, t, d = x.shape
        if t > self.causal.shape[-1]:
            raise ValueError(f"sequence of length {t} exceeds {self.causal.shape[-1]}")
        q, k, v = (W(x).view(b, t, self.heads, -1).transpose(1, 2) for W in (self.W_query, self.W_key, self.W_value))
        scores = (q @ k.transpose(2, 3)) * (1.0 / math.sqrt(k.size(-1)))
        scores = scores.masked_fill(self.causal[:, :, :t, :t] == 0, -1e9)
        y = self.attn_dropout(F.softmax(scores, dim=-1)) @ v
        return self.resid_dropout(self.out_proj(y.transpose(1, 2).contiguous().view(b, t, d)))


class NanoFeedForward(gpt.FeedForward):
    """With the branch's dropout at its end."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.layers.append(nn.Dropout(cfg.drop_rate))


class NanoBlock(nn.Module):
    """The branches bring the dropout along."""

    def __init__(self, cfg):
        super().__init__()
        self.norm1 = NormByHand(cfg.emb_dim)
        self.att = OwnAttention(cfg)
        self.norm2 = NormByHand(cfg.emb_dim)
        self.ff = NanoFeedForward(cfg)

    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class FusedAttention(MultiHeadAttention):
    def forward(self, x):
        assert x.shape[1] <= self.context_length, f"{x.shape[1]} tokens"
        q, k, v = (split_heads(W(x), self.num_heads) for W in (self.W_query, self.W_key, self.W_value))
        p = self.dropout.p if self.training else 0.0
        return self.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)))


class FusedBlock(BlockWithTwoDropouts):
    def __init__(self, cfg):
        super().__init__(cfg)
        d = cfg.emb_dim
        self.att = FusedAttention(d, d, cfg.context_length, cfg.drop_rate, cfg.n_heads, cfg.qkv_bias)


class MaskByHand(gpt.TransformerBlock):
    """Dropout written out."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.keep = 1 - cfg.drop_rate

    def dropped(self, branch):
        if not self.training or self.keep == 1:
            return branch
        return branch * torch.bernoulli(torch.full_like(branch, self.keep)) / self.keep

    def forward(self, x):
        x = x + self.dropped(self.att(self.norm1(x)))
        return x + self.dropped(self.ff(self.norm2(x)))


class ManyHeads(MultiHeadAttention):
    """Head by head, row by row."""

    def forward(self, x):
        t, size = x.shape[1], self.head_dim
        if t > self.context_length:
            raise AssertionError(f"too long: {t}")
        outputs = []
        for h in range(self.num_heads):
            channels = slice(h * size, (h + 1) * size)
            q, k, v = (W(x)[..., channels] for W in (self.W_query, self.W_key, self.W_value))
            scores = torch.einsum("bqd,bkd->bqk", q, k) / size**0.5 + torch.full((t, t), -math.inf).triu(1).to(x.dtype)
            outputs.append(self.dropout(scores.softmax(-1)) @ v)
        return self.out_proj(torch.cat(outputs, -1))


class BlockHeadByHead(BlockWithFunctions):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.att = ManyHeads(cfg.emb_dim, cfg.emb_dim, cfg.context_length, cfg.drop_rate, cfg.n_heads, cfg.qkv_bias)


# 6.5 ------------------------------------------------------------------------------------------------


class PlainModel(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.tok_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)
        self.pos_emb = nn.Embedding(cfg.context_length, cfg.emb_dim)
        self.drop_emb = nn.Dropout(cfg.drop_rate)
        self.trf_blocks = nn.Sequential(*[PlainBlock(cfg) for _ in range(cfg.n_layers)])
        self.final_norm = NormByHand(cfg.emb_dim)
        self.out_head = nn.Linear(cfg.emb_dim, cfg.vocab_size, bias=False)

    def forward(self, in_idx):
        _, seq_len = in_idx.shape
        if seq_len > self.pos_emb.num_embeddings:
            raise ValueError(f"Cannot forward a sequence of length {seq_len}")
        tok_embeds = self.tok_emb(in_idx)
        pos_embeds = self.pos_emb(torch.arange(seq_len, device=in_idx.device))
        x = self.drop_emb(tok_embeds + pos_embeds)
        return self.out_head(self.final_norm(self.trf_blocks(x)))


class ModelInReverse(nn.Module):
    """Built from the end, with a list of blocks; the initial weights are its own."""

    def __init__(self, cfg):
        super().__init__()
        self.out_head = nn.Linear(cfg.emb_dim, cfg.vocab_size, False)
        self.final_norm = NormEinsum(cfg.emb_dim)
        self.trf_blocks = nn.ModuleList([NanoBlock(cfg) for _ in range(cfg.n_layers)])
        self.pos_emb = nn.Embedding(cfg.context_length, cfg.emb_dim)
        self.tok_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)
        self.p = cfg.drop_rate
        self.register_buffer("positions", torch.arange(cfg.context_length)[None])
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, idx):
        t = idx.size(1)
        assert t <= self.positions.size(1), f"got {t} tokens"
        x = F.dropout(self.tok_emb(idx) + self.pos_emb(self.positions[:, :t]), self.p, self.training)
        for block in self.trf_blocks:
            x = block(x)
        return F.linear(self.final_norm(x), self.out_head.weight)


class ModelByIndexing(gpt.GPTModel):
    def forward(self, idx):
        t = idx.shape[-1]
        if t > len(self.pos_emb.weight):
            raise ValueError(f"too many tokens: {t:d}")
        x = self.tok_emb.weight[idx] + self.pos_emb.weight[:t]
        x = self.drop_emb(x)
        for i in range(len(self.trf_blocks)):
            x = self.trf_blocks[i](x)
        return torch.einsum("btd,vd->btv", self.final_norm(x), self.out_head.weight)


class ModelWithLoss(gpt.GPTModel):
    """Takes targets as well, gives logits alone without."""

    def forward(self, idx, targets=None):
        logits = super().forward(idx)
        return logits if targets is None else (logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten()))


class ModelByOneHot(PlainModel):
    def forward(self, idx):
        b, t = idx.shape
        if t > self.pos_emb.num_embeddings:
            raise ValueError(f"{t}")
        one_hot = F.one_hot(idx, self.tok_emb.num_embeddings).to(self.tok_emb.weight)
        positions = self.pos_emb(torch.arange(t).expand(b, t))
        x = self.trf_blocks(self.drop_emb(one_hot @ self.tok_emb.weight + positions))
        return self.final_norm(x) @ self.out_head.weight.mT


class ModelThatLeavesTheErrorToAttention(PlainModel):
    """Attention refuses what is too long, and names it."""

    def forward(self, idx):
        positions = torch.arange(idx.shape[1]) % self.pos_emb.num_embeddings
        x = self.trf_blocks(self.drop_emb(self.tok_emb(idx) + self.pos_emb(positions)))
        return self.out_head(self.final_norm(x))


class Backbone(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.tok_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)
        self.pos_emb = nn.Embedding(cfg.context_length, cfg.emb_dim)
        self.drop_emb = nn.Dropout(cfg.drop_rate)
        self.context_length = cfg.context_length

    def features(self, idx):
        t = idx.shape[1]
        if self.context_length < t:
            raise ValueError(f"At most {self.context_length} tokens, not {t}.")
        return self.trf_blocks(self.drop_emb(self.pos_emb(torch.arange(t)) + self.tok_emb(idx)))


class ModelOnBackbone(Backbone):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.cfg = cfg
        self.trf_blocks = nn.Sequential()
        for i in range(cfg.n_layers):
            self.trf_blocks.add_module(str(i), BlockWithFunctions(cfg))
        self.final_norm = NormSquares(cfg.emb_dim)
        self.out_head = nn.Linear(cfg.emb_dim, cfg.vocab_size, bias=False)

    def forward(self, idx, **ignored):
        return self.out_head(self.final_norm(self.features(idx)))


# 6.6 ------------------------------------------------------------------------------------------------


def count_by_shapes(cfg, tied):
    d, v = cfg.emb_dim, cfg.vocab_size
    shapes = [(v, d), (cfg.context_length, d), (d,), (d,)]
    for _ in range(cfg.n_layers):
        shapes += (
            [(d, d)] * 4 + [(d,)] * (4 if cfg.qkv_bias else 1) + [(4 * d, d), (4 * d,), (d, 4 * d), (d,)] + [(d,)] * 4
        )
    if not tied:
        shapes.append((v, d))
    return sum(math.prod(shape) for shape in shapes)


def count_by_polynomial(cfg, tied):
    d = cfg.emb_dim
    per_block = 12 * d**2 + 10 * d + 3 * d * cfg.qkv_bias
    return d * (cfg.vocab_size * (2 - tied) + cfg.context_length + 2) + cfg.n_layers * per_block


def count_by_layers(cfg, tied=False):
    def linear(d_in, d_out, bias=True):
        return d_in * d_out + (d_out if bias else 0)

    def norm():
        return 2 * cfg.emb_dim

    d = cfg.emb_dim
    attention = sum(linear(d, d, cfg.qkv_bias) for _ in "qkv") + linear(d, d)
    block = attention + linear(d, 4 * d) + linear(4 * d, d) + norm() + norm()
    total = cfg.vocab_size * d + cfg.context_length * d + norm()
    for _ in range(cfg.n_layers):
        total += block
    return total if tied else total + linear(d, cfg.vocab_size, bias=False)


def count_by_tensors(cfg, tied):
    d = torch.tensor(cfg.emb_dim)
    terms = torch.stack([cfg.vocab_size * d, cfg.context_length * d, 2 * d, (not tied) * cfg.vocab_size * d])
    block = torch.tensor([12, 13 if cfg.qkv_bias else 10]) @ torch.stack([d * d, d])
    return int(terms.sum() + cfg.n_layers * block)


def count_by_numpy(cfg, tied):
    d = np.int64(cfg.emb_dim)
    sizes = np.array([d * d] * 12 + [d] * (13 if cfg.qkv_bias else 10), dtype=np.int64)
    tables = (cfg.vocab_size * (1 if tied else 2) + cfg.context_length) * d
    return (sizes.sum() * cfg.n_layers + tables + 2 * d).item()


def count_by_torch_sizes(cfg, tied):
    d = cfg.emb_dim
    block = [torch.Size([d, d])] * 4 + [torch.Size([4 * d, d])] * 2 + [torch.Size([d])] * 6 + [torch.Size([4 * d])]
    block += [torch.Size([d])] * (3 if cfg.qkv_bias else 0)
    rest = [torch.Size([cfg.vocab_size, d])] * (1 if tied else 2) + [torch.Size([cfg.context_length + 2, d])]
    return sum(size.numel() for size in block) * cfg.n_layers + sum(size.numel() for size in rest)


class Counter(nn.Module):
    """An object used as a function."""

    def forward(self, cfg, tied):
        return count_parameters(cfg, tied)


# 6.7 ------------------------------------------------------------------------------------------------


def table_of(model):
    """Published name -> (parameters, transposed?)."""
    table = {"wte.weight": ([model.tok_emb.weight], False), "wpe.weight": ([model.pos_emb.weight], False)}
    for i, block in enumerate(model.trf_blocks):
        att, layers = block.att, block.ff.layers
        qkv = [att.W_query, att.W_key, att.W_value]
        table |= {
            f"h.{i}.ln_1.weight": ([block.norm1.scale], False),
            f"h.{i}.ln_1.bias": ([block.norm1.shift], False),
            f"h.{i}.attn.c_attn.weight": ([linear.weight for linear in qkv], True),
            f"h.{i}.attn.c_attn.bias": ([linear.bias for linear in qkv], False),
            f"h.{i}.attn.c_proj.weight": ([att.out_proj.weight], True),
            f"h.{i}.attn.c_proj.bias": ([att.out_proj.bias], False),
            f"h.{i}.ln_2.weight": ([block.norm2.scale], False),
            f"h.{i}.ln_2.bias": ([block.norm2.shift], False),
            f"h.{i}.mlp.c_fc.weight": ([layers[0].weight], True),
            f"h.{i}.mlp.c_fc.bias": ([layers[0].bias], False),
            f"h.{i}.mlp.c_proj.weight": ([layers[2].weight], True),
            f"h.{i}.mlp.c_proj.bias": ([layers[2].bias], False),
        }
    table |= {"ln_f.weight": ([model.final_norm.scale], False), "ln_f.bias": ([model.final_norm.shift], False)}
    return table | {"lm_head.weight": ([model.out_head.weight], False)}


def prepared(model, state_dict):
    """All the tensors that a model needs, in its own layout, or an error."""
    given = {name.replace("transformer.", "", 1): tensor for name, tensor in state_dict.items()}
    for name in given:
        if name.startswith("h."):
            layer = int(name.split(".")[1])
            if layer >= len(model.trf_blocks):
                raise ValueError(f"the model has {len(model.trf_blocks)} layers, the file a layer {layer}: {name}")
    ready = []
    for name, (parameters, transposed) in table_of(model).items():
        source = "wte.weight" if name == "lm_head.weight" and name not in given else name
        if source not in given:
            raise ValueError(f"no tensor {source}")
        tensor = given[source].t() if transposed else given[source]
        rows = [len(parameter) for parameter in parameters]
        if tensor.shape != (sum(rows), *parameters[0].shape[1:]):
            raise ValueError(f"{source}: shape {tuple(given[source].shape)} doesn't fit")
        ready += zip(parameters, tensor.split(rows), strict=True)
    return ready


def load_with_data(model, state_dict):
    for parameter, tensor in prepared(model, state_dict):
        parameter.data = tensor.clone().contiguous()


def load_with_views(model, state_dict):
    """Shares memory with the file, which nobody forbids."""
    for parameter, tensor in prepared(model, state_dict):
        parameter.data = tensor


def load_and_return(model, state_dict):
    with torch.no_grad():
        for parameter, tensor in prepared(model, state_dict):
            parameter[...] = tensor
    return model


def load_new_parameters(model, state_dict):
    """As in the book: ``assign`` with a check of the shape, after all have been checked."""

    def assign(left, right):
        assert left.shape == right.shape
        return nn.Parameter(right.clone().detach())

    new = {id(parameter): assign(parameter, tensor) for parameter, tensor in prepared(model, state_dict)}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, new[id(parameter)])


def load_through_state_dict(model, state_dict):
    """Everything is put together first, then ``load_state_dict`` copies it."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    complete = model.state_dict() | {names[id(p)]: tensor for p, tensor in prepared(model, state_dict)}
    model.load_state_dict(complete)


def load_and_tie(model, state_dict):
    """The head becomes the embedding where the file has none of its own."""
    for parameter, tensor in prepared(model, state_dict):
        parameter.data.copy_(tensor)
    if not any("lm_head" in name for name in state_dict):
        model.out_head.weight = model.tok_emb.weight


def load_with_backup(model, state_dict):
    """Copies as it goes, and takes everything back when something is wrong."""
    backup = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    try:
        load_carelessly(model, state_dict)
    except ValueError:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(backup[name])
        raise


@torch.no_grad()
def load_carelessly(model, state_dict):
    rest = dict(state_dict)

    def take(name, default=None):
        for full in (name, f"transformer.{name}"):
            if full in rest:
                return rest.pop(full)
        if default is None:
            raise ValueError(f"{name} not found")
        return default

    def put(parameter, tensor, name):
        if parameter.shape != tensor.shape:
            raise ValueError(f"{name} has the wrong shape")
        parameter.copy_(tensor)

    d = model.tok_emb.weight.shape[1]
    embedding = take("wte.weight")
    put(model.tok_emb.weight, embedding, "wte.weight")
    put(model.pos_emb.weight, take("wpe.weight"), "wpe.weight")
    for i, block in enumerate(model.trf_blocks):
        weight, bias = take(f"h.{i}.attn.c_attn.weight"), take(f"h.{i}.attn.c_attn.bias")
        if weight.shape != (d, 3 * d) or bias.shape != (3 * d,):
            raise ValueError(f"h.{i}.attn.c_attn.weight or h.{i}.attn.c_attn.bias is misshapen")
        for j, linear in enumerate((block.att.W_query, block.att.W_key, block.att.W_value)):
            put(linear.weight, weight[:, j * d : (j + 1) * d].T, "c_attn")
            put(linear.bias, bias[j * d : (j + 1) * d], "c_attn")
        linears = {"attn.c_proj": block.att.out_proj, "mlp.c_fc": block.ff.layers[0], "mlp.c_proj": block.ff.layers[2]}
        for name, linear in linears.items():
            weight = take(f"h.{i}.{name}.weight")
            if weight.dim() != 2:
                raise ValueError(f"h.{i}.{name}.weight is misshapen")
            put(linear.weight, weight.T, f"h.{i}.{name}.weight")
            put(linear.bias, take(f"h.{i}.{name}.bias"), f"h.{i}.{name}.bias")
        for name, norm in (("ln_1", block.norm1), ("ln_2", block.norm2)):
            put(norm.scale, take(f"h.{i}.{name}.weight"), f"h.{i}.{name}.weight")
            put(norm.shift, take(f"h.{i}.{name}.bias"), f"h.{i}.{name}.bias")
    put(model.final_norm.scale, take("ln_f.weight"), "ln_f.weight")
    put(model.final_norm.shift, take("ln_f.bias"), "ln_f.bias")
    put(model.out_head.weight, take("lm_head.weight", embedding), "lm_head.weight")
    for name in rest:
        if not name.endswith((".attn.bias", ".attn.masked_bias")):
            raise ValueError(f"unexpected: {name}")


def load_counting_layers(model, state_dict):
    """Says how many layers there are instead of naming one."""
    layers = {name.split("h.")[1].split(".")[0] for name in state_dict if "h." in name and ".ln_1." in name}
    if len(layers) > len(model.trf_blocks):
        raise ValueError(f"the file has {len(layers)} layers, the model only {len(model.trf_blocks)}")
    load_with_data(model, state_dict)


def load_with_assertions(model, state_dict):
    try:
        ready = prepared(model, dict(state_dict))
    except ValueError as error:
        raise AssertionError(str(error)) from error
    with torch.no_grad():
        for parameter, tensor in ready:
            parameter.zero_().add_(tensor)


def load_with_all_faults(model, state_dict):
    """Names every tensor that is at fault, as the model calls it as well."""
    given = {name.split("transformer.")[-1]: tensor for name, tensor in state_dict.items()}
    table = table_of(model)
    missing = [name for name in table if name not in given and name != "lm_head.weight"]
    surplus = [name for name in given if name not in table and "attn.bias" not in name and "masked_bias" not in name]
    if missing or surplus:
        raise ValueError(f"missing: {', '.join(missing)}; surplus: {', '.join(surplus)}")
    load_with_data(model, state_dict)


RIGHT_ANSWERS = {
    "6.1": [
        ("by hand", NormByHand),
        ("unbiased flag", NormUnbiasedFlag),
        ("var_mean", NormVarMean),
        ("squares in float64", NormSquares),
        ("einsum", NormEinsum),
        ("correction by hand", NormCorrected),
        ("channels first", NormLastFirst),
        ("batch norm", NormByBatchNorm),
        ("subclass with options", NormSubclass),
        ("diagonal matrix", NormStd),
        ("metaclass", NormWithMetaclass),
    ],
    "6.2": [
        ("sigmoid", gelu_by_sigmoid),
        ("float64 inside", gelu_in_float64),
        ("factored", gelu_factored),
        ("tensors", gelu_with_tensors),
        ("module", GELUModule()),
        ("exponentials", gelu_by_exponentials),
        ("where", gelu_where),
        ("number by number", gelu_number_by_number),
        ("float32 inside", gelu_in_float32),
        ("own function", OwnFunction.apply),
        ("lambda", lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) * 0.5),
    ],
    "6.3": [
        ("own GELU", WithOwnGELU),
        ("module dictionary", WithModuleDict),
        ("matrices", WithMatrices),
        ("dropout of zero", WithIdentityAndDropoutOfZero),
        ("own linear", WithOwnLinear),
        ("chunk by chunk", ChunkByChunk),
    ],
    "6.4": [
        ("plain", PlainBlock),
        ("two dropouts", BlockWithTwoDropouts),
        ("functions", BlockWithFunctions),
        ("as nanoGPT", NanoBlock),
        ("fused", FusedBlock),
        ("mask by hand", MaskByHand),
        ("head by head", BlockHeadByHead),
    ],
    "6.5": [
        ("plain", PlainModel),
        ("in reverse", ModelInReverse),
        ("indexing", ModelByIndexing),
        ("with loss", ModelWithLoss),
        ("one-hot", ModelByOneHot),
        ("on a backbone", ModelOnBackbone),
        ("error left to attention", ModelThatLeavesTheErrorToAttention),
    ],
    "6.6": [
        ("shapes", count_by_shapes),
        ("polynomial", count_by_polynomial),
        ("layers", count_by_layers),
        ("tensors", count_by_tensors),
        ("numpy", count_by_numpy),
        ("torch.Size", count_by_torch_sizes),
        ("module", Counter()),
    ],
    "6.7": [
        ("data", load_with_data),
        ("views", load_with_views),
        ("and return", load_and_return),
        ("new parameters", load_new_parameters),
        ("state dict", load_through_state_dict),
        ("tied", load_and_tie),
        ("backup", load_with_backup),
        ("counting layers", load_counting_layers),
        ("assertions", load_with_assertions),
        ("all faults", load_with_all_faults),
    ],
}
