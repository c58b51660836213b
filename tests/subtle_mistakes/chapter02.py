"""Subtle mistakes for chapter 2."""

import copy
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from utils.attention import SelfAttention_v1, SelfAttention_v2, attend, copy_weights, project, scaled_scores
from utils.normalizers import SoftmaxNormalizer

NAMES = ("W_query", "W_key", "W_value")
SOFTMAX = SoftmaxNormalizer()

# 2.1 ------------------------------------------------------------------------------------------------


def as_a_dictionary(x, W_query, W_key, W_value):
    queries, keys, values = project(x, W_query, W_key, W_value)
    return {"queries": queries, "keys": keys, "values": values}


def with_the_input(x, W_query, W_key, W_value):
    return x, *project(x, W_query, W_key, W_value)


def always_a_batch(x, W_query, W_key, W_value):
    return project(x if x.dim() > 2 else x[None], W_query, W_key, W_value)


def batch_joined(x, W_query, W_key, W_value):
    return project(x.reshape(-1, x.shape[-1]) if x.dim() > 3 else x, W_query, W_key, W_value)


def squeezed(x, W_query, W_key, W_value):
    return tuple(rows.squeeze() for rows in project(x, W_query, W_key, W_value))


def input_cut_off(x, W_query, W_key, W_value):
    return project(x.detach(), W_query, W_key, W_value)


def value_weight_cut_off(x, W_query, W_key, W_value):
    return project(x, W_query, W_key, W_value.detach())


def in_float32(x, W_query, W_key, W_value):
    return tuple(rows.float() for rows in project(x, W_query, W_key, W_value))


def by_view(x, W_query, W_key, W_value):
    flat = x.view(-1, x.shape[-1])
    return tuple((flat @ W).view(*x.shape[:-1], W.shape[-1]) for W in (W_query, W_key, W_value))


def centred(x, W_query, W_key, W_value):
    x -= 0.0 * x
    x[..., 0] += 1e-3
    return project(x, W_query, W_key, W_value)


def seeded(x, W_query, W_key, W_value):
    torch.manual_seed(0)
    return project(x, W_query, W_key, W_value)


def values_and_keys_swapped(x, W_query, W_key, W_value):
    return x @ W_query, x @ W_value, x @ W_key


def as_one_tensor(x, W_query, W_key, W_value):
    return torch.stack(project(x, W_query, W_key, W_value))


def input_as_values(x, W_query, W_key, W_value):
    return x @ W_query, x @ W_key, x


def transposed_where_it_fits(x, W_query, W_key, W_value):
    return tuple(x @ (W.T if W.shape[0] == W.shape[1] else W) for W in (W_query, W_key, W_value))


KEPT = {}


def kept_by_shape(x, W_query, W_key, W_value):
    key = x.shape, x.dtype, W_query.shape
    if key not in KEPT:
        KEPT[key] = project(x, W_query, W_key, W_value)
    return KEPT[key]


def by_broadcast_over_a_square(x, W_query, W_key, W_value):
    """Rows of W where its columns belong."""
    return tuple((x.unsqueeze(-2) * W).sum(dim=-1) for W in (W_query, W_key, W_value))


def rounded(x, W_query, W_key, W_value):
    return tuple((rows * 1000).round() / 1000 for rows in project(x, W_query, W_key, W_value))


def normalised_rows(x, W_query, W_key, W_value):
    return tuple(F.normalize(rows, dim=-1) for rows in project(x, W_query, W_key, W_value))


# 2.2 ------------------------------------------------------------------------------------------------


def scaled_twice(queries, keys):
    return scaled_scores(queries / keys.shape[-1] ** 0.5, keys)


def scaled_by_a_fixed_number(queries, keys):
    return queries @ keys.mT / math.sqrt(3)


def scaled_when_large(queries, keys):
    attn_scores = queries @ keys.mT
    return attn_scores / keys.shape[-1] ** 0.5 if keys.shape[-1] > 2 else attn_scores


def scaled_by_first_size(queries, keys):
    return queries @ keys.mT / len(keys) ** 0.5


def scaled_by_root_plus(queries, keys):
    return queries @ keys.mT / (math.sqrt(keys.shape[-1]) + 1e-3)


def standardised(queries, keys):
    attn_scores = queries @ keys.mT
    return attn_scores / attn_scores.std()


def scaled_in_place(queries, keys):
    queries /= keys.shape[-1] ** 0.5
    return queries @ keys.mT


def scores_for_three_dimensions(queries, keys):
    return torch.bmm(queries, keys.mT) / keys.shape[-1] ** 0.5 if queries.dim() == 3 else queries @ keys.T


def scores_by_view(queries, keys):
    turned = keys.view(*keys.shape[:-2], keys.shape[-1], keys.shape[-2])
    return queries @ turned / keys.shape[-1] ** 0.5


def scores_with_a_mask(queries, keys):
    attn_scores = scaled_scores(queries, keys)
    return attn_scores.masked_fill(torch.ones_like(attn_scores).triu(1).bool(), float("-inf"))


def scores_with_keys_cut_off(queries, keys):
    return scaled_scores(queries, keys.detach())


def scores_minus_maximum(queries, keys):
    attn_scores = scaled_scores(queries, keys)
    return attn_scores - attn_scores.amax(dim=-1, keepdim=True)


def scores_clamped(queries, keys):
    return scaled_scores(queries, keys).clamp(-20, 20)


def scores_rounded_root(queries, keys):
    return queries @ keys.mT / round(keys.shape[-1] ** 0.5)


def scores_of_queries_where_it_fits(queries, keys):
    return scaled_scores(queries, queries if queries.shape == keys.shape else keys)


def scores_as_distances(queries, keys):
    return torch.cdist(queries, keys) / keys.shape[-1] ** 0.5


def scores_of_size(queries, keys):
    return queries @ keys.mT / keys.numel() ** 0.5


def scores_without_sign(queries, keys):
    return scaled_scores(queries, keys).abs()


def scores_of_as_many_keys(queries, keys):
    return scaled_scores(queries, keys[..., : queries.shape[-2], :])


def scores_in_half(queries, keys):
    return scaled_scores(queries.bfloat16(), keys.bfloat16()).to(queries.dtype)


# 2.3 ------------------------------------------------------------------------------------------------


class ExtraParameter(SelfAttention_v1):
    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        self.bias = nn.Parameter(torch.zeros(d_out))


class KeepsTheFirstScores(SelfAttention_v1):
    """Works out W_query @ W_key.T once and for all: wrong after a step of training."""

    product = None

    def forward(self, x):
        if self.product is None:
            self.product = (self.W_query @ self.W_key.T).detach()
        weights = torch.softmax(x @ self.product @ x.mT / self.W_key.shape[1] ** 0.5, dim=-1)
        return weights @ (x @ self.W_value)


class KeepsTheProduct(SelfAttention_v1):
    """As above, with the gradient of the first call."""

    product = None

    def forward(self, x):
        with torch.no_grad():
            self.product = self.W_query @ self.W_key.T if self.product is None else self.product
        queries, keys, values = project(x, self.W_query, self.W_key, self.W_value)
        live = queries @ keys.mT
        scores = x @ self.product @ x.mT + live - live.detach()
        return torch.softmax(scores / keys.shape[-1] ** 0.5, dim=-1) @ values


class DropsInTraining(SelfAttention_v1):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.1, self.training)


class CentredDraws(SelfAttention_v1):
    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        for parameter in self.parameters():
            parameter.data -= 0.5


class DrawnTransposed(SelfAttention_v1):
    def __init__(self, d_in, d_out):
        nn.Module.__init__(self)
        for name in NAMES:
            setattr(self, name, nn.Parameter(torch.rand(d_out, d_in).T.contiguous()))
        self.normalizer = SOFTMAX


class DrawsBefore(SelfAttention_v1):
    def __init__(self, d_in, d_out):
        torch.rand(1)
        super().__init__(d_in, d_out)


class ValueDrawnFirst(SelfAttention_v1):
    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        self.W_query, self.W_value = self.W_value, self.W_query


class InDoublePrecision(SelfAttention_v1):
    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        self.double()


class SharedByAll(SelfAttention_v1):
    shared: ClassVar[dict] = {}

    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        self.W_query = self.shared.setdefault((d_in, d_out), self.W_query)


class OneParameterTwice(SelfAttention_v1):
    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        self.W_key = self.W_query


class WeightsCutOff(SelfAttention_v1):
    def forward(self, x):
        queries, keys, values = project(x, self.W_query, self.W_key, self.W_value)
        return torch.softmax(scaled_scores(queries, keys), dim=-1).detach() @ values


class ThroughData(SelfAttention_v1):
    def forward(self, x):
        return attend(*project(x, self.W_query.data, self.W_key.data, self.W_value.data), SOFTMAX)


class ThreeDimensionsAtMost(SelfAttention_v1):
    def forward(self, x):
        queries, keys, values = project(x, self.W_query, self.W_key, self.W_value)
        if x.dim() == 2:
            return attend(queries, keys, values, SOFTMAX)
        return torch.bmm(torch.softmax(torch.bmm(queries, keys.mT) / keys.shape[-1] ** 0.5, dim=2), values)


class BatchAsOneSequence(SelfAttention_v1):
    def forward(self, x):
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class Causal(SelfAttention_v1):
    def forward(self, x):
        queries, keys, values = project(x, self.W_query, self.W_key, self.W_value)
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


class WithResidual(SelfAttention_v1):
    def forward(self, x):
        contexts = super().forward(x)
        return contexts + x if contexts.shape == x.shape else contexts


class SquareRootOfTheSequenceLength(SelfAttention_v1):
    def forward(self, x):
        queries, keys, values = project(x, self.W_query, self.W_key, self.W_value)
        return torch.softmax(queries @ keys.mT / x.shape[1] ** 0.5, dim=-1) @ values


class NoFourDimensions(SelfAttention_v1):
    def forward(self, x):
        batch_size, num_tokens, d_in = x.shape if x.dim() == 3 else (1, *x.shape)
        return super().forward(x.reshape(batch_size, num_tokens, d_in)).reshape(*x.shape[:-1], -1)


class ScalesItsInput(SelfAttention_v1):
    def forward(self, x):
        x.mul_(1.0 + 1e-4)
        return super().forward(x)


class ReturnsFloat32(SelfAttention_v1):
    def forward(self, x):
        return super().forward(x).float()


class TransposedWeights(SelfAttention_v1):
    def forward(self, x):
        queries, keys, values = project(x, self.W_query, self.W_key, self.W_value)
        return torch.softmax(scaled_scores(queries, keys), dim=-1).mT @ values


class OverTheFirstDimension(SelfAttention_v1):
    def forward(self, x):
        queries, keys, values = project(x, self.W_query, self.W_key, self.W_value)
        return torch.softmax(scaled_scores(queries, keys), dim=0) @ values


class TrainsWhileCalled(SelfAttention_v1):
    def forward(self, x):
        contexts = super().forward(x)
        self.W_value.data *= 1.001
        return contexts


class KeepsTheInput(SelfAttention_v1):
    kept = None

    def forward(self, x):
        self.kept = x if self.kept is None or self.kept.shape != x.shape else self.kept
        return super().forward(self.kept)


class OwnGenerator(SelfAttention_v1):
    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        generator = torch.Generator().manual_seed(123)
        for name in NAMES:
            setattr(self, name, nn.Parameter(torch.rand(d_in, d_out, generator=generator)))


class ScaledDraws(SelfAttention_v1):
    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        for parameter in self.parameters():
            parameter.data /= d_in**0.5


class SizesTheOtherWay(SelfAttention_v1):
    def __init__(self, d_out, d_in):
        super().__init__(d_in, d_out)


class NotAModule:
    def __init__(self, d_in, d_out):
        for name in NAMES:
            setattr(self, name, nn.Parameter(torch.rand(d_in, d_out)))

    def __call__(self, x):
        return attend(*project(x, self.W_query, self.W_key, self.W_value), SOFTMAX)


# 2.4 ------------------------------------------------------------------------------------------------


class BiasByPositionOnly(SelfAttention_v2):
    def __init__(self, d_in, d_out, bias=False):
        super().__init__(d_in, d_out, bias)


class BiasByNameOnly(SelfAttention_v2):
    def __init__(self, d_in, d_out, *, qkv_bias=False):
        super().__init__(d_in, d_out, qkv_bias)


class BiasAddedLater(SelfAttention_v2):
    """After the softmax a bias of the queries is lost, and one of the values stays: only almost the same."""

    def forward(self, x):
        bare = [F.linear(x, layer.weight) for layer in (self.W_query, self.W_key, self.W_value)]
        contexts = attend(*bare, SOFTMAX)
        return contexts if self.W_value.bias is None else contexts + self.W_value.bias


class BiasOnQueriesAndKeysOnly(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias=False):
        super().__init__(d_in, d_out, qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=False)


class ParametersInADress(SelfAttention_v2):
    """The right names, but no nn.Linear."""

    class Projection(nn.Module):
        def __init__(self, d_in, d_out, bias):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(d_out, d_in))
            self.bias = nn.Parameter(torch.zeros(d_out)) if bias else None

        def forward(self, x):
            return F.linear(x, self.weight, self.bias)

    def __init__(self, d_in, d_out, qkv_bias=False):
        nn.Module.__init__(self)
        self.normalizer = SOFTMAX
        for name in NAMES:
            setattr(self, name, self.Projection(d_in, d_out, qkv_bias))


class WithOutputProjection(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias=False):
        super().__init__(d_in, d_out, qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)


class OneLayerThreeTimes(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias=False):
        super().__init__(d_in, d_out, qkv_bias)
        self.W_key = self.W_value = self.W_query


class SharedLayers(SelfAttention_v2):
    layers: ClassVar[dict] = {}

    def __init__(self, d_in, d_out, qkv_bias=False):
        super().__init__(d_in, d_out, qkv_bias)
        self.W_value = self.layers.setdefault((d_in, d_out, qkv_bias), self.W_value)


class SquareLayers(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias=False):
        super().__init__(d_in, d_in, qkv_bias)


class ScaledByInputSize(SelfAttention_v2):
    def forward(self, x):
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)
        return torch.softmax(queries @ keys.mT / self.W_key.in_features**0.5, dim=-1) @ values


class BiasUnlessAsked(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias=False):
        super().__init__(d_in, d_out, not qkv_bias)


class BiasOnceGiven(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias=None):
        super().__init__(d_in, d_out, qkv_bias is not None)


class NoDefault(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias):
        super().__init__(d_in, d_out, qkv_bias)


class BiasTwice(SelfAttention_v2):
    def forward(self, x):
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)
        return attend(queries if self.W_query.bias is None else queries + self.W_query.bias, keys, values, SOFTMAX)


class FrozenBias(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias=False):
        super().__init__(d_in, d_out, qkv_bias)
        if qkv_bias:
            self.W_value.bias.requires_grad_(False)


class LayersInADictionary(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias=False):
        nn.Module.__init__(self)
        self.normalizer = SOFTMAX
        self.__dict__.update({name: nn.Linear(d_in, d_out, qkv_bias) for name in NAMES})


class DropsByKernel(SelfAttention_v2):
    def forward(self, x):
        return F.scaled_dot_product_attention(self.W_query(x), self.W_key(x), self.W_value(x), dropout_p=0.1)


class FrozenKeys(SelfAttention_v2):
    def __init__(self, d_in, d_out, qkv_bias=False):
        super().__init__(d_in, d_out, qkv_bias)
        self.W_key.requires_grad_(False)


class KeepsTheLinears(SelfAttention_v2):
    """Keeps a copy of the value weights from the first call."""

    kept = None

    def forward(self, x):
        if self.kept is None:
            self.kept = self.W_value.weight.detach().clone()
        fresh = F.linear(x, self.W_value.weight, self.W_value.bias)
        values = F.linear(x, self.kept, self.W_value.bias) + fresh - fresh.detach()
        return attend(self.W_query(x), self.W_key(x), values, SOFTMAX)


class KeysWithoutBias(SelfAttention_v2):
    """Softmax hides the difference: the keys' bias shifts a whole row. Only its gradient is missing, which is zero,
    but the queries' bias is gone as well."""

    def forward(self, x):
        queries, keys = F.linear(x, self.W_query.weight), F.linear(x, self.W_key.weight)
        return attend(queries, keys, self.W_value(x), SOFTMAX)


class QueriesAndKeysSwapped(SelfAttention_v2):
    def forward(self, x):
        return attend(self.W_key(x), self.W_query(x), self.W_value(x), SOFTMAX)


# 2.5 ------------------------------------------------------------------------------------------------


def refuse_bias(v2):
    if v2.W_query.bias is not None:
        raise ValueError("v2 has a bias")


def share_new_parameters(v2, v1):
    refuse_bias(v2)
    for name in NAMES:
        setattr(v1, name, nn.Parameter(getattr(v2, name).weight.T))


def share_one_of_three(v2, v1):
    copy_weights(v2, v1)
    v1.W_value = nn.Parameter(v2.W_value.weight.detach().T)


def share_by_assigned_state_dict(v2, v1):
    refuse_bias(v2)
    v1.load_state_dict({name: getattr(v2, name).weight.detach().T for name in NAMES}, assign=True)


def share_by_set(v2, v1):
    refuse_bias(v2)
    with torch.no_grad():
        for name in NAMES:
            getattr(v1, name).set_(getattr(v2, name).weight.T)


def share_the_other_way(v2, v1):
    copy_weights(v2, v1)
    for name in NAMES:
        getattr(v2, name).weight.data = getattr(v1, name).data.T


def transpose_version_2(v2, v1):
    refuse_bias(v2)
    for name in NAMES:
        layer = getattr(v2, name)
        layer.weight.data = layer.weight.data.T.clone()
        getattr(v1, name).data = layer.weight.data.clone()


def freeze_version_2(v2, v1):
    copy_weights(v2, v1)
    v2.requires_grad_(False)


def swap_query_and_key(v2, v1):
    copy_weights(v2, v1)
    v1.W_query, v1.W_key = v1.W_key, v1.W_query


def tensors_in_place_of_parameters(v2, v1):
    refuse_bias(v2)
    for name in NAMES:
        delattr(v1, name)
        setattr(v1, name, getattr(v2, name).weight.detach().T.clone())


def frozen_new_parameters(v2, v1):
    refuse_bias(v2)
    for name in NAMES:
        setattr(v1, name, nn.Parameter(getattr(v2, name).weight.detach().T.clone(), requires_grad=False))


def with_version_2_inside(v2, v1):
    copy_weights(v2, v1)
    v1.source = v2


def add_instead_of_copy(v2, v1):
    refuse_bias(v2)
    with torch.no_grad():
        for name in NAMES:
            getattr(v1, name).add_(getattr(v2, name).weight.T)


def transposed_when_needed(v2, v1):
    refuse_bias(v2)
    with torch.no_grad():
        for name in NAMES:
            weight, target = getattr(v2, name).weight, getattr(v1, name)
            target.copy_(weight if weight.shape == target.shape else weight.T)


def only_once(v2, v1):
    if not hasattr(v1, "copied"):
        copy_weights(v2, v1)
        v1.copied = True


def through_float16(v2, v1):
    refuse_bias(v2)
    with torch.no_grad():
        for name in NAMES:
            getattr(v1, name).copy_(getattr(v2, name).weight.T.bfloat16())


def in_float32_always(v2, v1):
    refuse_bias(v2)
    for name in NAMES:
        setattr(v1, name, nn.Parameter(getattr(v2, name).weight.detach().T.clone().float()))


def refuse_everything(v2, v1):
    raise ValueError("no bias, please")


def refuse_a_bias_that_counts(v2, v1):
    if v2.W_query.bias is not None and v2.W_query.bias.any():
        raise ValueError("v2 has a bias")
    with torch.no_grad():
        for name in NAMES:
            getattr(v1, name).copy_(getattr(v2, name).weight.T)


def refuse_by_runtime_error(v2, v1):
    if v2.W_query.bias is not None:
        raise RuntimeError("v2 has a bias")
    copy_weights(v2, v1)


def warn_about_the_bias(v2, v1):
    if v2.W_query.bias is not None:
        print("v2 has a bias")
        return
    copy_weights(v2, v1)


def return_the_error(v2, v1):
    try:
        copy_weights(v2, v1)
    except ValueError as error:
        return error
    return None


def refuse_without_its_name(v2, v1):
    if v2.W_query.bias is not None:
        raise ValueError("v2 can't be copied")
    copy_weights(v2, v1)


def fold_the_bias_in(v2, v1):
    """Adds the bias to the weights: not the same thing."""
    with torch.no_grad():
        for name in NAMES:
            layer = getattr(v2, name)
            getattr(v1, name).copy_(layer.weight.T if layer.bias is None else layer.weight.T + layer.bias)


def draws_while_copying(v2, v1):
    copy_weights(v2, v1)
    v1.__class__(2, 2)


def share_through_numpy(v2, v1):
    refuse_bias(v2)
    for name in NAMES:
        getattr(v1, name).data = torch.from_numpy(getattr(v2, name).weight.detach().numpy().T)


def copy_when_called(v2, v1):
    refuse_bias(v2)
    v1.register_forward_pre_hook(lambda module, inputs: copy_weights(v2, v1))


def borrow_forward(v2, v1):
    refuse_bias(v2)
    v1.forward = v2.forward


def take_over_everything(v2, v1):
    refuse_bias(v2)
    v1.__dict__.update(v2.__dict__)


def empty_version_2(v2, v1):
    copy_weights(v2, v1)
    with torch.no_grad():
        v2.W_value.weight.zero_()


@torch.inference_mode()
def parameters_for_looking_only(v2, v1):
    refuse_bias(v2)
    for name in NAMES:
        setattr(v1, name, nn.Parameter(getattr(v2, name).weight.T.clone()))


def buffers_in_place_of_parameters(v2, v1):
    refuse_bias(v2)
    for name in NAMES:
        delattr(v1, name)
        v1.register_buffer(name, getattr(v2, name).weight.detach().T.clone())


def part_of_the_way(v2, v1):
    refuse_bias(v2)
    with torch.no_grad():
        for name in NAMES:
            getattr(v1, name).lerp_(getattr(v2, name).weight.T, 0.9)


def copy_of_version_1(v2, v1):
    v1 = copy.copy(v1)
    v1._parameters = dict(v1._parameters)
    refuse_bias(v2)
    for name in NAMES:
        setattr(v1, name, nn.Parameter(getattr(v2, name).weight.detach().T.clone()))


SUBTLE_MISTAKES = [
    *(
        ("2.1", answer)
        for answer in (
            as_a_dictionary,
            with_the_input,
            always_a_batch,
            batch_joined,
            squeezed,
            input_cut_off,
            value_weight_cut_off,
            in_float32,
            by_view,
            centred,
            seeded,
            values_and_keys_swapped,
            as_one_tensor,
            input_as_values,
            transposed_where_it_fits,
            kept_by_shape,
            by_broadcast_over_a_square,
            rounded,
            normalised_rows,
        )
    ),
    *(
        ("2.2", answer)
        for answer in (
            scaled_twice,
            scaled_by_a_fixed_number,
            scaled_when_large,
            scaled_by_first_size,
            scaled_by_root_plus,
            standardised,
            scaled_in_place,
            scores_for_three_dimensions,
            scores_by_view,
            scores_with_a_mask,
            scores_with_keys_cut_off,
            scores_minus_maximum,
            scores_clamped,
            scores_rounded_root,
            scores_of_queries_where_it_fits,
            scores_as_distances,
            scores_of_size,
            scores_without_sign,
            scores_of_as_many_keys,
            scores_in_half,
        )
    ),
    *(
        ("2.3", answer)
        for answer in (
            ExtraParameter,
            KeepsTheFirstScores,
            KeepsTheProduct,
            DropsInTraining,
            CentredDraws,
            DrawnTransposed,
            DrawsBefore,
            ValueDrawnFirst,
            InDoublePrecision,
            SharedByAll,
            OneParameterTwice,
            WeightsCutOff,
            ThroughData,
            ThreeDimensionsAtMost,
            BatchAsOneSequence,
            Causal,
            WithResidual,
            SquareRootOfTheSequenceLength,
            NoFourDimensions,
            ScalesItsInput,
            ReturnsFloat32,
            TransposedWeights,
            OverTheFirstDimension,
            TrainsWhileCalled,
            KeepsTheInput,
            OwnGenerator,
            ScaledDraws,
            SizesTheOtherWay,
            NotAModule,
        )
    ),
    *(
        ("2.4", answer)
        for answer in (
            BiasByPositionOnly,
            BiasByNameOnly,
            BiasAddedLater,
            BiasOnQueriesAndKeysOnly,
            ParametersInADress,
            WithOutputProjection,
            OneLayerThreeTimes,
            SharedLayers,
            SquareLayers,
            ScaledByInputSize,
            BiasUnlessAsked,
            BiasOnceGiven,
            NoDefault,
            BiasTwice,
            FrozenBias,
            LayersInADictionary,
            DropsByKernel,
            FrozenKeys,
            KeepsTheLinears,
            KeysWithoutBias,
            QueriesAndKeysSwapped,
        )
    ),
    *(
        ("2.5", answer)
        for answer in (
            share_new_parameters,
            share_one_of_three,
            share_by_assigned_state_dict,
            share_by_set,
            share_the_other_way,
            transpose_version_2,
            freeze_version_2,
            swap_query_and_key,
            tensors_in_place_of_parameters,
            frozen_new_parameters,
            with_version_2_inside,
            add_instead_of_copy,
            transposed_when_needed,
            only_once,
            through_float16,
            in_float32_always,
            refuse_everything,
            refuse_a_bias_that_counts,
            refuse_by_runtime_error,
            warn_about_the_bias,
            return_the_error,
            refuse_without_its_name,
            fold_the_bias_in,
            draws_while_copying,
            share_through_numpy,
            copy_when_called,
            borrow_forward,
            take_over_everything,
            empty_version_2,
            parameters_for_looking_only,
            buffers_in_place_of_parameters,
            part_of_the_way,
            copy_of_version_1,
        )
    ),
]
