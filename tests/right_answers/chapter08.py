"""Other right answers for chapter 8."""

import copy
import dataclasses
import math
import operator
from collections import deque
from functools import reduce
from itertools import count, islice

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from utils.attention import CachedAttention
from utils.training import accumulate_gradients

# 8.1 ------------------------------------------------------------------------------------------------


class JoinsPlainly:
    def __init__(self, mha):
        self.mha = mha
        self.keys = None
        self.values = None

    def step(self, x):
        mha = self.mha
        b, t, _ = x.shape
        q = mha.W_query(x).view(b, t, mha.num_heads, mha.head_dim).transpose(1, 2)
        k = mha.W_key(x).view(b, t, mha.num_heads, mha.head_dim).transpose(1, 2)
        v = mha.W_value(x).view(b, t, mha.num_heads, mha.head_dim).transpose(1, 2)
        if self.keys is None:
            self.keys, self.values = k, v
        else:
            if self.keys.shape[2] >= mha.context_length:
                raise ValueError(f"context_length={mha.context_length} exceeded")
            self.keys = torch.cat((self.keys, k), dim=2)
            self.values = torch.cat((self.values, v), dim=2)
        weights = torch.softmax(q @ self.keys.transpose(2, 3) / math.sqrt(mha.head_dim), dim=-1)
        out = mha.dropout(weights) @ self.values
        return mha.out_proj(out.transpose(1, 2).contiguous().view(b, t, mha.d_out))

    def reset(self):
        self.keys = self.values = None


class HeadByHead:
    """Lists of what every step made, and one head after the other."""

    def __init__(self, mha):
        self.mha = mha
        self.reset()

    def reset(self):
        self.past = []

    def step(self, x):
        mha, d = self.mha, self.mha.head_dim
        assert len(self.past) < mha.context_length, f"no room for token {len(self.past) + 1}"
        token = x[:, 0]
        self.past.append((mha.W_key(token), mha.W_value(token)))
        query, outputs = mha.W_query(token), []
        for h in range(mha.num_heads):
            part = slice(h * d, (h + 1) * d)
            scores = torch.stack([(query[:, part] * key[:, part]).sum(-1) for key, _ in self.past], dim=1)
            weights = (scores * d**-0.5).softmax(1)
            outputs.append(sum(weights[:, i, None] * value[:, part] for i, (_, value) in enumerate(self.past)))
        return mha.out_proj(torch.cat(outputs, -1))[:, None]


class RoomForAll(nn.Module):
    """The whole memory at once, empty places hidden by a large negative number."""

    def __init__(self, mha):
        super().__init__()
        self.mha = mha
        self.register_buffer("memory", None, persistent=False)
        self.used = 0

    def reset(self):
        self.memory, self.used = None, 0

    def step(self, x):
        mha, n = self.mha, self.mha.context_length
        if self.used == n:
            raise ValueError(f"only {n} tokens")
        if self.memory is None:
            self.memory = x.new_zeros(2, len(x), mha.num_heads, n, mha.head_dim)
        q, k, v = (f(x).view(len(x), mha.num_heads, 1, mha.head_dim) for f in (mha.W_query, mha.W_key, mha.W_value))
        self.memory[0, :, :, self.used : self.used + 1] = k
        self.memory[1, :, :, self.used : self.used + 1] = v
        self.used += 1
        scores = q @ self.memory[0].mT / mha.head_dim**0.5
        scores = scores + (torch.arange(n) >= self.used).to(x.dtype) * -1e9
        return mha.out_proj((scores.softmax(-1) @ self.memory[1]).reshape(len(x), 1, -1))


class FusedKernel:
    def __init__(self, mha):
        self.mha, self.cache = mha, []

    def reset(self):
        self.cache = []

    def step(self, x):
        mha = self.mha
        q, k, v = (
            w(x).unflatten(2, (mha.num_heads, -1)).mT.mT.movedim(2, 1) for w in (mha.W_query, mha.W_key, mha.W_value)
        )
        if self.cache:
            k, v = torch.cat([self.cache[0], k], 2), torch.cat([self.cache[1], v], 2)
        if k.size(2) > mha.context_length:
            raise ValueError(f"{k.size(2)} tokens")
        self.cache = [k, v]
        return mha.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ByEinsum:
    """Weights themselves, keys as (B, t, H, D), no gradients and no views that autograd would keep."""

    def __init__(self, mha):
        self.mha, self.k, self.v = mha, [], []

    def reset(self):
        self.k.clear()
        self.v.clear()

    @torch.inference_mode()
    def step(self, x):
        m = self.mha
        if len(self.k) + 1 > m.context_length:
            raise ValueError("more than context_length = " + str(m.context_length))

        def project(layer):
            y = torch.einsum("bti,oi->bto", x, layer.weight)
            y = y if layer.bias is None else y + layer.bias
            return y.reshape(y.shape[0], m.num_heads, m.head_dim)

        self.k.append(project(m.W_key))
        self.v.append(project(m.W_value))
        keys, values = torch.stack(self.k, 1), torch.stack(self.v, 1)
        scores = torch.einsum("bhd,bthd->bht", project(m.W_query), keys)
        weights = F.softmax(scores / m.head_dim**0.5, dim=2)
        return m.out_proj(torch.einsum("bht,bthd->bhd", weights, values).flatten(1)).unsqueeze(1)


class OneWideProjection:
    """Query, key and value by one product with the three weights joined; they are joined once."""

    def __init__(self, mha):
        self.mha = mha
        layers = (mha.W_query, mha.W_key, mha.W_value)
        self.weight = torch.cat([layer.weight for layer in layers])
        self.bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        self.reset()

    def reset(self):
        self.past = None

    def step(self, x):
        m = self.mha
        q, k, v = (
            F.linear(x, self.weight, self.bias).unflatten(-1, (3, m.num_heads, m.head_dim)).movedim(1, -2).unbind(1)
        )
        new = torch.stack([k, v])
        past = new if self.past is None else torch.cat([self.past, new], dim=-2)
        if past.shape[-2] > m.context_length:
            raise ValueError(f"sequence of {past.shape[-2]}")
        self.past = past
        out = torch.softmax(q @ past[0].mT * m.head_dim**-0.5, -1) @ past[1]
        return m.out_proj(out.movedim(1, 2).flatten(2))


class LentKeys:
    """The module itself, which finds the remembered keys and values behind its own layers during the call."""

    def __init__(self, mha):
        self.mha = mha
        self.reset()

    def reset(self):
        self.kept = {}

    def step(self, x):
        room = self.mha.context_length
        if "key" in self.kept and self.kept["key"].shape[1] >= room:
            raise ValueError(f"the sequence is longer than {room}")

        def lend(name):
            def hook(module, inputs, output):
                self.kept[name] = torch.cat([self.kept[name], output], 1) if name in self.kept else output
                return self.kept[name]

            return hook

        handles = [getattr(self.mha, f"W_{name}").register_forward_hook(lend(name)) for name in ("key", "value")]
        try:
            return self.mha(x)
        finally:
            for handle in handles:
                handle.remove()


class GrowingList:
    """What the module takes as a cache, with an append of its own."""

    def __init__(self):
        self.parts = []

    @property
    def length(self):
        return len(self.parts)

    def append(self, keys, values):
        self.parts.append((keys, values))
        return tuple(torch.cat(joined, dim=-2) for joined in zip(*self.parts, strict=True))


class PassesItsOwnCache:
    def __init__(self, mha):
        self.mha, self.cache = mha, GrowingList()

    def step(self, x):
        return self.mha(x, self.cache)

    def reset(self):
        self.cache = GrowingList()


class OnACopy(JoinsPlainly):
    """A copy of the module, in eval mode whatever the original is in."""

    def __init__(self, mha):
        super().__init__(copy.deepcopy(mha).eval())


class DoublePrecisionInside:
    def __init__(self, mha):
        self.mha, self.steps = mha, deque()

    def reset(self):
        self.steps = deque()

    def step(self, x):
        m = self.mha
        if len(self.steps) == m.context_length:
            raise AssertionError(f"{m.context_length} steps were allowed")
        q, k, v = (layer(x).double().view(-1, m.num_heads, m.head_dim) for layer in (m.W_query, m.W_key, m.W_value))
        self.steps.append((k, v))
        k, v = (torch.stack(tensors, dim=-1) for tensors in zip(*self.steps, strict=True))  # (B, H, D, t)
        w = torch.softmax((q[..., None] * k).sum(-2, keepdim=True) / math.sqrt(m.head_dim), -1)
        return m.out_proj((w * v).sum(-1).flatten(1).to(x.dtype))[:, None, :]


class DoublesItsRoom:
    """Memory that is doubled whenever it is full; all heads' channels side by side."""

    def __init__(self, mha):
        self.mha = mha
        self.reset()

    def reset(self):
        self.k = self.v = None
        self.n = 0

    def step(self, x):
        m = self.mha
        if self.n >= m.context_length:
            raise ValueError(f"{self.n + 1} > context_length")
        if self.k is None:
            self.k, self.v = x.new_empty(2, x.shape[0], 1, m.d_out)
        elif self.n == self.k.shape[1]:
            self.k, self.v = (torch.cat([old, torch.empty_like(old)], 1) for old in (self.k, self.v))
        self.k[:, self.n], self.v[:, self.n] = m.W_key(x)[:, 0], m.W_value(x)[:, 0]
        self.n += 1
        q, k, v = (
            t.unflatten(-1, (m.num_heads, m.head_dim)).transpose(1, 2)
            for t in (m.W_query(x), self.k[:, : self.n], self.v[:, : self.n])
        )
        scores = q.matmul(k.transpose(-1, -2)).div(m.head_dim**0.5)
        return m.out_proj(scores.softmax(-1).matmul(v).transpose(1, 2).flatten(-2))


class Closures:
    def __init__(self, mha):
        memory = {"k": [], "v": []}

        def step(x):
            size = len(memory["k"]) + 1
            if size > mha.context_length:
                raise ValueError(f"length {size}")
            for name, layer in (("k", mha.W_key), ("v", mha.W_value)):
                memory[name].append(layer(x))
            k, v = (torch.cat(memory[name], 1) for name in "kv")
            heads = [piece.split(mha.head_dim, -1) for piece in (mha.W_query(x), k, v)]
            out = [torch.softmax(a @ b.mT / mha.head_dim**0.5, -1) @ c for a, b, c in zip(*heads, strict=True)]
            return mha.out_proj(torch.cat(out, -1))

        self.step, self.reset = step, lambda: [parts.clear() for parts in memory.values()]


@dataclasses.dataclass
class FirstTokenByTheModule:
    """With one token there is nothing to remember yet: the module itself gives its output."""

    mha: nn.Module
    past: tuple | None = None

    def reset(self):
        self.past = None

    def step(self, x):
        m = self.mha
        k, v = (f(x).view(len(x), m.num_heads, 1, -1) for f in (m.W_key, m.W_value))
        if self.past is None:
            self.past = k, v
            return m(x)
        k, v = (torch.cat(pair, 2) for pair in zip(self.past, (k, v), strict=True))
        if k.shape[2] > m.context_length:
            raise ValueError(f"{k.shape[2]} tokens are more than {m.context_length}")
        self.past = k, v
        q = m.W_query(x).view(len(x), m.num_heads, 1, -1)
        hidden = m.mask[k.shape[2] - 1, : k.shape[2]].bool()
        w = torch.softmax((q @ k.mT / m.head_dim**0.5).masked_fill(hidden, -torch.inf), -1)
        return m.out_proj((w @ v).view(len(x), 1, -1))


class KeepsInputsToo(JoinsPlainly):
    """The inputs are kept as well, for whoever wants to look at them; nothing is computed from them."""

    def __init__(self, mha):
        super().__init__(mha)
        self.inputs = torch.empty(0)

    def step(self, x):
        out = super().step(x)
        self.inputs = x.clone() if self.inputs.numel() == 0 else torch.cat([self.inputs, x], 1)
        return out

    def reset(self):
        super().reset()
        self.inputs = torch.empty(0)


class Subclass(CachedAttention):
    def step(self, x):
        if self.cache is not None and self.cache.length == self.mha.context_length:
            raise ValueError(f"full: {self.cache.length}")
        return super().step(x.contiguous())


class RunningSums:
    """Exponentials of the scores are taken against the largest so far; keys and values are still kept."""

    def __init__(self, mha):
        self.mha = mha
        self.reset()

    def reset(self):
        self.pairs = ()

    def step(self, x):
        m = self.mha
        if len(self.pairs) >= m.context_length:
            raise ValueError(m.context_length)
        q, k, v = (layer(x).view(-1, m.num_heads, m.head_dim) for layer in (m.W_query, m.W_key, m.W_value))
        self.pairs += ((k, v),)
        top = q.new_full((*q.shape[:2], 1), -torch.inf)
        below, above = torch.zeros_like(top), torch.zeros_like(q)
        for key, value in self.pairs:
            score = (q * key).sum(-1, keepdim=True) / m.head_dim**0.5
            new_top = torch.maximum(top, score)
            shrink, weight = (top - new_top).exp(), (score - new_top).exp()
            below, above, top = below * shrink + weight, above * shrink + weight * value, new_top
        return m.out_proj((above / below).flatten(1)).unsqueeze(1)


# 8.2 ------------------------------------------------------------------------------------------------


def bytes_by_product(cfg, batch_size, length, bytes_per_value):
    if length > cfg.context_length:
        raise ValueError(f"length {length} is more than {cfg.context_length}")
    return math.prod((2, cfg.n_layers, batch_size, length, cfg.emb_dim, bytes_per_value))


def bytes_by_heads(cfg, batch_size, length, bytes_per_value):
    assert length <= cfg.context_length, f"{length} tokens don't fit"
    head_dim = cfg.emb_dim // cfg.n_heads
    per_layer = batch_size * cfg.n_heads * length * head_dim * bytes_per_value
    return cfg.n_layers * (per_layer + per_layer)


def bytes_by_loop(cfg, batch_size, length, bytes_per_value):
    if not length <= cfg.context_length:
        raise ValueError(length)
    total = 0
    for _layer in range(cfg.n_layers):
        for _name in ("keys", "values"):
            total += batch_size * length * cfg.emb_dim * bytes_per_value
    return total


def bytes_of_shapes(cfg, batch_size, length, bytes_per_value):
    """Measured on tensors without memory."""
    if length > cfg.context_length:
        raise ValueError("Sequence length %d exceeds the context" % length)  # noqa: UP031
    shape = (2, cfg.n_layers, batch_size, cfg.n_heads, length, cfg.emb_dim // cfg.n_heads)
    return torch.empty(shape, device="meta").numel() * bytes_per_value


def bytes_from_a_dictionary(cfg, batch_size, length, bytes_per_value):
    sizes = dataclasses.asdict(cfg)
    if length in range(sizes["context_length"] + 1):
        return 2 * reduce(operator.mul, [sizes["n_layers"], sizes["emb_dim"], batch_size, length, bytes_per_value])
    raise ValueError(f"length must be 0 to {sizes['context_length']}, got {length}")


def bytes_rounded(cfg, batch_size, length, bytes_per_value):
    if length > cfg.context_length:
        raise ValueError(f"{length=}")
    return int(2.0 * cfg.n_layers * batch_size * length * cfg.emb_dim * bytes_per_value)


class Bytes:
    """An object in the place of a function."""

    def __call__(self, cfg, batch_size, length, bytes_per_value):
        if length > cfg.context_length:
            raise self.TooLongError(f"{length} > {cfg.context_length}")
        return batch_size * length * bytes_per_value * 2 * cfg.emb_dim * cfg.n_layers

    class TooLongError(ValueError):
        pass


# 8.3 ------------------------------------------------------------------------------------------------


def backward_at_the_end(model, x, y, micro_batch_size):
    total = 0
    for start in range(0, len(x), micro_batch_size):
        rows = slice(start, start + micro_batch_size)
        total = total + model(x[rows], y[rows])[1] * len(x[rows])
    mean = total / len(x)
    mean.backward()
    return mean.item()


def by_autograd_grad(model, x, y, micro_batch_size):
    parameters = [p for p in model.parameters() if p.requires_grad]
    mean = 0.0
    for xs, ys in zip(x.split(micro_batch_size), y.split(micro_batch_size), strict=True):
        loss = model(xs, ys)[1]
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            g = g * (xs.shape[0] / x.shape[0])
            p.grad = g if p.grad is None else p.grad + g
        mean += float(loss) * xs.shape[0] / x.shape[0]
    return mean


def while_loop(model, x, y, micro_batch_size):
    start, total, n = 0, 0.0, x.size(0)
    while start < n:
        stop = min(start + micro_batch_size, n)
        _logits, loss = model(x[start:stop], y[start:stop])
        weighted = (stop - start) * loss / n
        weighted.backward()
        total += weighted.detach().item()
        start = stop
    return total


def parts_of_nearly_equal_size(model, x, y, micro_batch_size):
    pieces = -(-len(x) // micro_batch_size)
    losses = []
    for xs, ys in zip(torch.tensor_split(x, pieces), torch.tensor_split(y, pieces), strict=True):
        loss = model(xs, ys)[1] / len(x) * len(xs)
        torch.autograd.backward(loss)
        losses.append(loss.detach())
    return torch.stack(losses).sum().item()


def row_by_row(model, x, y, micro_batch_size):
    """One row per pass is at most ``micro_batch_size`` rows."""
    total = 0.0
    for i in range(x.shape[0]):
        _, loss = model.forward(x[i : i + 1], y[i : i + 1])
        (loss / x.shape[0]).backward()
        total += loss.item()
    return total / x.shape[0]


def by_a_loader(model, x, y, micro_batch_size):
    rows, mean = len(x), 0.0
    for xs, ys in DataLoader(
        TensorDataset(x, y), batch_size=micro_batch_size, shuffle=False, generator=torch.Generator()
    ):
        loss = model(xs, ys)[1]
        loss.backward(torch.tensor(len(xs) / rows, dtype=loss.dtype))
        mean += loss.item() * len(xs)
    return mean / rows


def recursive(model, x, y, micro_batch_size):
    def part(x, y, rows):
        if len(x) > micro_batch_size:
            head, tail = slice(None, micro_batch_size), slice(micro_batch_size, None)
            return part(x[head], y[head], rows) + part(x[tail], y[tail], rows)
        _, loss = model(x, y)
        loss = loss * (len(x) / rows)
        loss.backward()
        return loss.item()

    return part(x, y, x.shape[0])


def last_part_first(model, x, y, micro_batch_size):
    total = 0.0
    for rows in reversed(torch.arange(len(x)).split(micro_batch_size)):
        loss = model(x[rows], y[rows])[1]
        (loss * rows.numel() / len(x)).backward()
        total += loss.item() * rows.numel() / len(x)
    return total


def rescaled_afterwards(model, x, y, micro_batch_size):
    """Gradients of the sum of all rows' losses, divided when all are there; then the old ones are put back."""
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    total = 0.0
    left = iter(range(len(x)))
    while rows := list(islice(left, micro_batch_size)):
        loss = model(x[rows], y[rows])[1] * len(rows)
        loss.backward()
        total += loss.item()
    with torch.no_grad():
        for p, old in zip(model.parameters(), before, strict=True):
            p.grad.div_(len(x))
            if old is not None:
                p.grad += old
    return total / len(x)


def losses_first(model, x, y, micro_batch_size):
    """A pass without gradients for the mean, another one for the gradients."""
    parts = list(zip(x.chunk(-(-len(x) // micro_batch_size)), y.chunk(-(-len(y) // micro_batch_size)), strict=True))
    with torch.no_grad():
        mean = math.fsum(model(a, b)[1].item() * len(a) for a, b in parts) / len(x)
    for a, b in parts:
        (model(a, b)[1] * (len(a) / len(x))).backward()
    return mean


def reference_with_names(model, x, y, micro_batch_size):
    return accumulate_gradients(model=model, x=x, y=y, micro_batch_size=micro_batch_size)


def on_a_copy(model, x, y, micro_batch_size):
    twin = copy.deepcopy(model)
    twin.zero_grad()
    mean = accumulate_gradients(twin, x, y, micro_batch_size)
    for mine, its in zip(model.parameters(), twin.parameters(), strict=True):
        mine.grad = its.grad if mine.grad is None else mine.grad.add(its.grad)
    return mean


# 8.4 ------------------------------------------------------------------------------------------------


def flops_in_steps(cfg):
    d = cfg.emb_dim
    attention, feed_forward = 4 * d * d, 2 * d * 4 * d
    n = cfg.n_layers * (attention + feed_forward) + d * cfg.vocab_size
    forward = 2 * n + 2 * 2 * cfg.n_layers * d * cfg.context_length
    return 3 * forward


def flops_by_loop(cfg):
    total = 6 * cfg.vocab_size * cfg.emb_dim
    for _ in range(cfg.n_layers):
        total += 72 * cfg.emb_dim**2 + 12 * cfg.emb_dim * cfg.context_length
    return total


def flops_of_modules(cfg):
    """Counted on layers without memory."""
    with torch.device("meta"):
        d = cfg.emb_dim
        block = [nn.Linear(d, d) for _ in range(4)] + [nn.Linear(d, 4 * d), nn.Linear(4 * d, d)]
        layers = [*block * cfg.n_layers, nn.Linear(d, cfg.vocab_size, bias=False)]
    n = sum(layer.weight.numel() for layer in layers)
    return 6 * n + 12 * cfg.n_layers * cfg.n_heads * (d // cfg.n_heads) * cfg.context_length


def flops_rounded(cfg):
    n = 12 * cfg.n_layers * math.pow(cfg.emb_dim, 2) + cfg.vocab_size * cfg.emb_dim
    return round(6.0 * n + 12.0 * cfg.n_layers * cfg.emb_dim * cfg.context_length)


def flops_from_a_dictionary(cfg):
    sizes = vars(cfg)
    layers, d, v, t = (sizes[name] for name in ("n_layers", "emb_dim", "vocab_size", "context_length"))
    return 6 * d * (layers * (12 * d + 2 * t) + v)


def flops_by_kinds(cfg):
    kinds = zip(count(), [3 * cfg.emb_dim**2, cfg.emb_dim**2, 8 * cfg.emb_dim**2], strict=False)
    per_layer = sum(weights for _, weights in kinds)
    attention = sum(2 * cfg.emb_dim * cfg.context_length for _ in ("scores", "contexts"))
    return 6 * (cfg.n_layers * per_layer + cfg.emb_dim * cfg.vocab_size) + 3 * cfg.n_layers * attention


RIGHT_ANSWERS = {
    "8.1": [
        ("joins plainly", JoinsPlainly),
        ("head by head", HeadByHead),
        ("room for all, -1e9", RoomForAll),
        ("fused kernel", FusedKernel),
        ("einsum in inference mode", ByEinsum),
        ("one wide projection", OneWideProjection),
        ("lent keys", LentKeys),
        ("passes its own cache", PassesItsOwnCache),
        ("on a copy", OnACopy),
        ("double precision inside", DoublePrecisionInside),
        ("doubles its room", DoublesItsRoom),
        ("closures", Closures),
        ("first token by the module", FirstTokenByTheModule),
        ("keeps inputs too", KeepsInputsToo),
        ("subclass", Subclass),
        ("running sums", RunningSums),
    ],
    "8.2": [
        ("product", bytes_by_product),
        ("heads", bytes_by_heads),
        ("loop", bytes_by_loop),
        ("shapes", bytes_of_shapes),
        ("dictionary", bytes_from_a_dictionary),
        ("rounded", bytes_rounded),
        ("object", Bytes()),
    ],
    "8.3": [
        ("backward at the end", backward_at_the_end),
        ("autograd.grad", by_autograd_grad),
        ("while loop", while_loop),
        ("nearly equal parts", parts_of_nearly_equal_size),
        ("row by row", row_by_row),
        ("loader", by_a_loader),
        ("recursive", recursive),
        ("last part first", last_part_first),
        ("rescaled afterwards", rescaled_afterwards),
        ("losses first", losses_first),
        ("by name", reference_with_names),
        ("on a copy", on_a_copy),
    ],
    "8.4": [
        ("in steps", flops_in_steps),
        ("loop", flops_by_loop),
        ("modules", flops_of_modules),
        ("rounded", flops_rounded),
        ("dictionary", flops_from_a_dictionary),
        ("kinds", flops_by_kinds),
    ],
}
