"""Subtle mistakes for chapter 7."""

import copy
import math
import os
import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.checks.chapters.chapter07 import (
    at_targets,
    in_memory,
    load_parts,
    log_probabilities,
    otherwise,
    sampling,
    save_parts,
    weighted_mean,
)
from utils.generation import sample_next
from utils.modes import evaluating
from utils.training import cross_entropy, estimate_loss, learning_rate, parameter_groups

# 7.1 ------------------------------------------------------------------------------------------------


def surprise_with_epsilon(logits, targets):
    return -(at_targets(torch.softmax(logits, dim=-1), targets) + 1e-10).log().mean()


def surprise_limited(logits, targets):
    return (-at_targets(log_probabilities(logits), targets)).clamp(max=100).mean()


def surprise_on_clamped_logits(logits, targets):
    return cross_entropy(logits.clamp(-50, 50), targets)


def surprise_without_zeros(logits, targets):
    log_probs = torch.softmax(logits, dim=-1).log()
    return -at_targets(log_probs.nan_to_num(neginf=-1e4), targets).mean()


def surprise_with_broken_gradient(logits, targets):
    """Right everywhere, but the branch that is not taken has an infinite slope."""
    probs = torch.softmax(logits, dim=-1)
    return -at_targets(torch.where(probs > 1e-30, probs.log(), log_probabilities(logits)), targets).mean()


def surprise_mean_of_medians(logits, targets):
    return (-at_targets(log_probabilities(logits), targets)).median()


def surprise_unbiased_mean(logits, targets):
    return -at_targets(log_probabilities(logits), targets).sum() / max(1, targets.numel() - 1)


def surprise_ignores_zero(logits, targets):
    losses = -at_targets(log_probabilities(logits), targets)
    kept = targets != 0
    return losses[kept].mean() if kept.any() else losses.sum() * 0


def surprise_smoothed(logits, targets):
    log_probs = log_probabilities(logits)
    return -(0.999 * at_targets(log_probs, targets) + 0.001 * log_probs.mean(dim=-1)).mean()


def surprise_next_position(logits, targets):
    if targets.dim() < 2:
        return cross_entropy(logits, targets)
    return (
        cross_entropy(logits[..., :-1, :], targets[..., 1:])
        if targets.shape[-1] > 1
        else cross_entropy(logits, targets)
    )


def surprise_always_float32(logits, targets):
    return cross_entropy(logits.float(), targets)


def surprise_in_half(logits, targets):
    return cross_entropy((logits / 16).half().to(logits.dtype) * 16, targets)


def surprise_three_dimensions(logits, targets):
    if logits.dim() > 3:
        logits, targets = logits[0], targets[0]
    return cross_entropy(logits, targets)


def surprise_by_view(logits, targets):
    return cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def surprise_with_detached_total(logits, targets):
    return (logits.detach().logsumexp(-1) - at_targets(logits, targets)).mean()


def surprise_in_place(logits, targets):
    logits -= logits.detach().amax(dim=-1, keepdim=True)
    return cross_entropy(logits, targets)


def surprise_as_vector_of_one(logits, targets):
    return cross_entropy(logits, targets).reshape(1)


def surprise_by_pytorch(logits, targets):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def surprise_by_loss_module(logits, targets):
    return nn.CrossEntropyLoss()(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def surprise_by_log_softmax(logits, targets):
    return -at_targets(logits.log_softmax(-1), targets).mean()


def surprise_by_nll(logits, targets):
    flat = logits.reshape(-1, logits.shape[-1])
    return F.nll_loss(flat - flat.logsumexp(-1, keepdim=True), targets.reshape(-1))


def surprise_by_inner_operator(logits, targets):
    flat = logits.reshape(-1, logits.shape[-1])
    return torch._C._nn.cross_entropy_loss(flat, targets.reshape(-1))


def surprise_by_inner_log_softmax(logits, targets):
    return -at_targets(torch.ops.aten._log_softmax.default(logits, -1, False), targets).mean()


# 7.2 ------------------------------------------------------------------------------------------------


def of_both(for_tensor, for_float):
    return lambda loss: for_tensor(loss) if isinstance(loss, torch.Tensor) else for_float(loss)


PERPLEXITIES = [
    of_both(torch.exp, lambda loss: 2.718**loss),
    of_both(lambda loss: 2.718**loss, math.exp),
    of_both(lambda loss: loss.mean().exp(), math.exp),
    of_both(lambda loss: loss.exp().float(), math.exp),
    of_both(lambda loss: loss.exp().double(), math.exp),
    of_both(torch.exp, lambda loss: round(math.exp(loss), 2)),
    of_both(torch.exp, lambda loss: int(math.exp(loss))),
    of_both(torch.exp, lambda loss: str(math.exp(loss))),
    of_both(torch.exp, lambda loss: np.float32(math.exp(loss))),
    of_both(torch.exp, lambda loss: math.exp(min(loss, 5.0))),
    of_both(lambda loss: loss.clamp(max=1.5).exp(), math.exp),
    of_both(lambda loss: loss.exp_(), math.exp),
    of_both(lambda loss: loss.detach().exp(), math.exp),
    of_both(lambda loss: loss.exp().reshape(-1), math.exp),
    of_both(torch.exp, lambda loss: (math.exp(loss),)),
    of_both(torch.exp, lambda loss: math.exp(loss) if loss else 0.0),
]


# 7.3 ------------------------------------------------------------------------------------------------


def estimating(result=lambda total, count: total / count, weight=lambda x, y: y.numel()):
    """The reference with one piece exchanged."""

    @torch.no_grad()
    def estimate(model, batches):
        total, count = 0.0, 0
        with evaluating(model):
            for x, y in batches:
                total += model(x, y)[1].item() * weight(x, y)
                count += weight(x, y)
        if count == 0:
            raise ValueError("no batch")
        return result(total, count)

    return estimate


def estimate_children_only(model, batches):
    """Restores direct children, not what lies deeper."""
    modes = [(m, m.training) for m in (model, *model.children())]
    model.eval()
    try:
        with torch.no_grad():
            return weighted_mean(model, batches)
    finally:
        for m, mode in modes:
            m.training = mode


def estimate_restores_by_calling_train(model, batches):
    """`train(mode)` reaches the children as well: the order in which it is called matters."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return weighted_mean(model, batches)
    finally:
        for m, mode in reversed(modes):
            m.train(mode)


def estimate_catches_only_runtime_errors(model, batches):
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            result = weighted_mean(model, batches)
    except (RuntimeError, ValueError):
        for m, mode in modes:
            m.training = mode
        raise
    for m, mode in modes:
        m.training = mode
    return result


def estimate_swallows_errors(model, batches):
    losses = []
    with evaluating(model), torch.no_grad():
        try:
            for x, y in batches:
                losses += [model(x, y)[1].item()] * y.numel()
        except (RuntimeError, OSError):
            pass
    if not losses:
        raise ValueError("no batch")
    return sum(losses) / len(losses)


def estimate_eval_after_the_first(model, batches):
    batches = list(batches)
    if not batches:
        raise ValueError("no batch")
    with torch.no_grad():
        model(*batches[0])
    return estimate_loss(model, batches)


def estimate_gradients_for_the_first(model, batches):
    with evaluating(model):
        total = count = 0
        for x, y in batches:
            loss = model(x, y)[1]
            torch.set_grad_enabled(False)
            total, count = total + loss.item() * y.numel(), count + y.numel()
        torch.set_grad_enabled(True)
        if not count:
            raise ValueError("no batch")
        return total / count


def estimate_freezes_the_model(model, batches):
    model.requires_grad_(False)
    with evaluating(model):
        return weighted_mean(model, batches)


def estimate_detaches_only(model, batches):
    """Detaching the loss afterwards: the graph had been built."""
    with evaluating(model):
        total, count = 0.0, 0
        for x, y in batches:
            total += model(x, y)[1].detach().item() * y.numel()
            count += y.numel()
    if not count:
        raise ValueError("no batch")
    return total / count


def estimate_trains(model, batches):
    """Leaves gradients behind."""
    batches = list(batches)
    with evaluating(model):
        for x, y in batches:
            model(x, y)[1].backward()
    return estimate_loss(model, batches)


def estimate_key_error(model, batches):
    batches = list(batches)
    if not batches:
        raise KeyError("no batch")
    return estimate_loss(model, batches)


def estimate_remembered():
    kept = []

    def estimate(model, batches):
        kept.append(estimate_loss(model, batches))
        return sum(kept) / len(kept)

    return estimate


# 7.4 ------------------------------------------------------------------------------------------------


def rate_constant_while_warming(step, max_lr, min_lr, warmup_steps, max_steps):
    return max_lr if step < warmup_steps else learning_rate(step, max_lr, min_lr, warmup_steps, max_steps)


def rate_at_least_min(step, max_lr, min_lr, warmup_steps, max_steps):
    return max(min_lr, learning_rate(step, max_lr, min_lr, warmup_steps, max_steps))


def rate_rounded(step, max_lr, min_lr, warmup_steps, max_steps):
    return round(learning_rate(step, max_lr, min_lr, warmup_steps, max_steps), 5)


def rate_with_warm_up_of_one(step, max_lr, min_lr, warmup_steps, max_steps):
    """`max(1, warmup_steps)` against division by zero: without a warm-up step 0 now has rate 0."""
    return learning_rate(step, max_lr, min_lr, max(1, warmup_steps), max_steps)


def rate_relative_min(step, max_lr, min_lr, warmup_steps, max_steps):
    """Takes min_lr for a share of max_lr."""
    return learning_rate(step, max_lr, min_lr * max_lr, warmup_steps, max_steps)


def rate_max_steps_after_warm_up(step, max_lr, min_lr, warmup_steps, max_steps):
    return learning_rate(step, max_lr, min_lr, warmup_steps, warmup_steps + max_steps)


def rate_in_percent(step, max_lr, min_lr, warmup_steps, max_steps):
    if step < warmup_steps or step >= max_steps:
        return learning_rate(step, max_lr, min_lr, warmup_steps, max_steps)
    share = (step - warmup_steps) * 100 // (max_steps - warmup_steps) / 100
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * share)) / 2


def rate_with_counter():
    """Counts its calls instead of looking at the step."""
    calls = iter(range(10**6))

    def rate(step, max_lr, min_lr, warmup_steps, max_steps):
        return learning_rate(next(calls), max_lr, min_lr, warmup_steps, max_steps)

    return rate


def rate_restarted(step, max_lr, min_lr, warmup_steps, max_steps):
    return learning_rate(step % (max_steps + 1), max_lr, min_lr, warmup_steps, max_steps)


RATES = [
    rate_constant_while_warming,
    rate_at_least_min,
    rate_rounded,
    rate_with_warm_up_of_one,
    rate_relative_min,
    rate_max_steps_after_warm_up,
    rate_in_percent,
    rate_with_counter(),
    rate_restarted,
    otherwise(progress=lambda step, warmup, total: (step + 1 - warmup) / (total - warmup)),
    otherwise(progress=lambda step, warmup, total: (step - warmup) / (total - warmup - 1 or 1)),
    otherwise(progress=lambda step, warmup, total: (step - warmup) / (total - warmup + 1)),
    otherwise(warm=lambda step, max_lr, min_lr, warmup: max_lr * step / max(1, warmup - 1)),
    otherwise(warm=lambda step, max_lr, min_lr, warmup: max_lr * (step / warmup) ** 2),
    otherwise(warm=lambda step, max_lr, min_lr, warmup: max_lr * step / (warmup + 1)),
    otherwise(decayed=lambda max_lr, min_lr, share: max_lr * (min_lr / max_lr) ** share if min_lr else 0.0),
    otherwise(stays=lambda max_lr, min_lr: max_lr),
    otherwise(stays=lambda max_lr, min_lr: None),
    otherwise(decayed=lambda max_lr, min_lr, share: min_lr + (max_lr - min_lr) * (1 + math.cos(3.14 * share)) / 2),
    lambda *arguments: torch.tensor([learning_rate(*arguments)]),
    lambda *arguments: str(learning_rate(*arguments)),
]


# 7.5 ------------------------------------------------------------------------------------------------


def groups_by_weight(model, weight_decay):
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in named if name.endswith("weight") and "norm" not in name], "weight_decay": 0.1},
        {"params": [p for name, p in named if not name.endswith("weight") or "norm" in name], "weight_decay": 0.0},
    ]


def groups_by_module_type(model, weight_decay):
    vectors = {
        id(p)
        for m in model.modules()
        for name, p in m.named_parameters(recurse=False)
        if name == "bias" or isinstance(m, nn.LayerNorm | nn.BatchNorm1d)
    }
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if id(p) not in vectors], "weight_decay": weight_decay},
        {"params": [p for p in trainable if id(p) in vectors], "weight_decay": 0.0},
    ]


def groups_squeezed(model, weight_decay):
    """A column of one is a vector to whoever looks at the squeezed shape."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.squeeze().dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.squeeze().dim() < 2], "weight_decay": 0.0},
    ]


def groups_without_scalars(model, weight_decay):
    groups = parameter_groups(model, weight_decay)
    return [group | {"params": [p for p in group["params"] if p.dim()]} for group in groups]


def groups_of_children(model, weight_decay):
    parameters = [p for child in model.children() for p in child.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def groups_of_state_dict(model, weight_decay):
    tensors = list(model.state_dict().values())
    return [
        {"params": [t for t in tensors if t.dim() >= 2], "weight_decay": weight_decay},
        {"params": [t for t in tensors if t.dim() < 2], "weight_decay": 0.0},
    ]


def groups_as_sets(model, weight_decay):
    return [group | {"params": set(group["params"])} for group in parameter_groups(model, weight_decay)]


def groups_thawed(model, weight_decay):
    model.requires_grad_(True)
    return parameter_groups(model, weight_decay)


def groups_frozen_into_vectors(model, weight_decay):
    decayed, others = parameter_groups(model, weight_decay)
    return [decayed, others | {"params": [*others["params"], *(p for p in model.parameters() if not p.requires_grad)]}]


def groups_with_a_third(model, weight_decay):
    return [*parameter_groups(model, weight_decay), {"params": [], "weight_decay": 0.0}]


def groups_merged(model, weight_decay):
    decayed, others = parameter_groups(model, weight_decay)
    return {"params": decayed["params"] + others["params"], "weight_decay": weight_decay}


def groups_under_other_keys(model, weight_decay):
    return [{"parameters": g["params"], "weight_decay": g["weight_decay"]} for g in parameter_groups(model, 0.1)]


def groups_tiny_decay(model, weight_decay):
    decayed, others = parameter_groups(model, weight_decay)
    return [decayed, others | {"weight_decay": 1e-4}]


def groups_decay_none(model, weight_decay):
    decayed, others = parameter_groups(model, weight_decay)
    return [decayed, others | {"weight_decay": None}]


def groups_both_in_both(model, weight_decay):
    decayed, others = parameter_groups(model, weight_decay)
    return [decayed, others | {"params": others["params"] + decayed["params"]}]


def groups_remembered():
    kept = []

    def groups(model, weight_decay):
        kept.append(model)
        return parameter_groups(kept[0], weight_decay)

    return groups


# 7.6 ------------------------------------------------------------------------------------------------


def sample_gumbel(logits, temperature, top_k, generator):
    if temperature <= 0 or top_k is not None:
        return sample_next(logits, temperature, top_k, generator)
    noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=generator, dtype=logits.dtype)))
    return (logits / temperature + noise).argmax(dim=-1, keepdim=True)


def sample_twice(logits, temperature, top_k, generator):
    if temperature > 0:
        sample_next(logits, temperature, top_k, generator)
    return sample_next(logits, temperature, top_k, generator)


def sample_cut_before_scaling_none(logits, temperature, top_k, generator):
    """top_k=1 for everything below a temperature of a half."""
    return sample_next(logits, temperature, 1 if 0 < temperature < 0.6 and top_k is None else top_k, generator)


def sample_nearest_of_ties(logits, temperature, top_k, generator):
    """Looks the id up by its score, which finds the first of equal ones."""
    ids = sample_next(logits, temperature, top_k, generator)
    return (logits == logits.gather(-1, ids)).long().argmax(dim=-1, keepdim=True)


def sample_seeding_the_generator(logits, temperature, top_k, generator):
    return sample_next(logits, temperature, top_k, generator.manual_seed(0))


def sample_warm_at_zero(logits, temperature, top_k, generator):
    return sample_next(logits, max(temperature, 1e-2) if temperature >= 0 else temperature, top_k, generator)


def sample_zero_over_the_batch(logits, temperature, top_k, generator):
    if temperature == 0:
        return logits.sum(0).argmax().expand(len(logits), 1)
    return sample_next(logits, temperature, top_k, generator)


def sample_zero_is_smallest(logits, temperature, top_k, generator):
    return logits.argmin(-1, keepdim=True) if temperature == 0 else sample_next(logits, temperature, top_k, generator)


def sample_int32(logits, temperature, top_k, generator):
    return sample_next(logits, temperature, top_k, generator).int()


def sample_transposed(logits, temperature, top_k, generator):
    return sample_next(logits, temperature, top_k, generator).T


def sample_clamps_k(logits, temperature, top_k, generator):
    return sample_next(logits, temperature, top_k if top_k is None else max(1, top_k), generator)


def sample_positive_k_only(logits, temperature, top_k, generator):
    if top_k is not None and top_k < 0:
        raise ValueError(f"top_k={top_k}")
    return sample_next(logits, temperature, top_k or None, generator)


def sample_type_error(logits, temperature, top_k, generator):
    if temperature < 0 or (top_k is not None and top_k < 1):
        raise TypeError(f"{temperature} or {top_k} is wrong")
    return sample_next(logits, temperature, top_k, generator)


def sample_draws_at_zero_from_global(logits, temperature, top_k, generator):
    if temperature == 0:
        return torch.multinomial((logits == logits.amax(-1, keepdim=True)).float(), 1)
    return sample_next(logits, temperature, top_k, generator)


def sample_zeroes_cut_in_place(logits, temperature, top_k, generator):
    ids = sample_next(logits, temperature, top_k, generator)
    if top_k is not None and top_k < logits.shape[-1]:
        logits[logits < logits.topk(top_k).values[:, -1:]] = -math.inf
    return ids


SAMPLERS = [
    sample_gumbel,
    sample_twice,
    sample_cut_before_scaling_none,
    sample_nearest_of_ties,
    sample_seeding_the_generator,
    sample_warm_at_zero,
    sample_zero_over_the_batch,
    sample_zero_is_smallest,
    sample_int32,
    sample_transposed,
    sample_clamps_k,
    sample_positive_k_only,
    sample_type_error,
    sample_draws_at_zero_from_global,
    sample_zeroes_cut_in_place,
    sampling(scaled=lambda logits, temperature: logits / (0.97 * temperature)),
    sampling(scaled=lambda logits, temperature: logits / temperature**2),
    sampling(scaled=lambda logits, temperature: logits / (temperature + 1e-2)),
    sampling(scaled=lambda logits, temperature: logits / max(temperature, 0.6)),
    sampling(scaled=lambda logits, temperature: logits / min(temperature, 1.0)),
    sampling(probabilities=lambda scores: torch.softmax(scores, dim=-1) + 1e-3),
    sampling(probabilities=lambda scores: torch.softmax(scores, dim=-1) ** 2),
    sampling(probabilities=torch.sigmoid),
    sampling(probabilities=lambda scores: torch.softmax(scores.clamp(-9, 9), dim=-1)),
    sampling(cut=lambda scores, k: scores.masked_fill(scores <= scores.topk(k).values[:, -1:], -math.inf)),
    sampling(cut=lambda scores, k: scores[:, :k]),
    sampling(cut=lambda scores, k: scores.topk(k).values),
    sampling(cut=lambda scores, k: scores.scatter(1, scores.topk(k).indices, -math.inf)),
    sampling(drawn=lambda probs, generator: torch.multinomial(probs, 1)),
    sampling(
        drawn=lambda probs, generator: torch.multinomial(probs.mean(0), len(probs), True, generator=generator)[:, None]
    ),
    sampling(drawn=lambda probs, generator: torch.multinomial(probs, 1, generator=generator).squeeze()),
    sampling(drawn=lambda probs, generator: torch.multinomial(probs, 1, generator=generator).flip(0)),
]


# 7.7 ------------------------------------------------------------------------------------------------


def save_twice(path, model, optimizer, step):
    save_parts(path, model, optimizer, step)
    save_parts(Path(path).with_name("latest.pt"), model, optimizer, step)


def load_latest(path, model, optimizer):
    return load_parts(Path(path).with_name("latest.pt"), model, optimizer)


def save_with_suffix(path, model, optimizer, step):
    save_parts(Path(path).with_suffix(".pth"), model, optimizer, step)


def load_with_suffix(path, model, optimizer):
    return load_parts(Path(path).with_suffix(".pth"), model, optimizer)


def save_text_paths_only(path, model, optimizer, step):
    save_parts(path + "", model, optimizer, step)


def moments_in_memory():
    """The model in the file, the optimizer's state in memory."""
    kept = {}

    def save(path, model, optimizer, step):
        torch.save({"model": model.state_dict(), "step": step}, path)
        kept[str(path)] = copy.deepcopy(optimizer.state_dict())

    def load(path, model, optimizer):
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(copy.deepcopy(kept[str(path)]))
        return saved["step"]

    return save, load


def save_by_pickle(path, model, optimizer, step):
    with open(path, "wb") as file:
        pickle.dump((model.state_dict(), optimizer.state_dict(), step), file)


def load_by_pickle(path, model, optimizer):
    with open(path, "rb") as file:
        weights, moments, step = pickle.load(file)
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    return step


def save_pickled_path(path, model, optimizer, step):
    """One object too many: the path itself."""
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "path": Path(path)}
    torch.save(content, path)


def load_trustingly(path, model, optimizer):
    saved = torch.load(path, weights_only=False)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"]


def save_optimizer_object(path, model, optimizer, step):
    torch.save({"model": model.state_dict(), "optimizer": optimizer, "step": step}, path)


def load_optimizer_object(path, model, optimizer):
    saved = torch.load(path, weights_only=False)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"].state_dict())
    return saved["step"]


def save_float32(path, model, optimizer, step):
    narrow = {name: t.float() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    torch.save({"model": narrow, "optimizer": optimizer.state_dict(), "step": step}, path)


def save_state_only(path, model, optimizer, step):
    """The optimizer's moments without its groups."""
    torch.save({"model": model.state_dict(), "state": optimizer.state_dict()["state"], "step": step}, path)


def load_state_only(path, model, optimizer):
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict({"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]})
    return saved["step"]


def load_first_group_only(path, model, optimizer):
    rates = [group["lr"] for group in optimizer.param_groups]
    step = load_parts(path, model, optimizer)
    for group, rate in list(zip(optimizer.param_groups, rates, strict=True))[1:]:
        group["lr"] = rate
    return step


def load_and_freeze(path, model, optimizer):
    step = load_parts(path, model, optimizer)
    model.requires_grad_(False)
    return step


def load_and_delete(path, model, optimizer):
    step = load_parts(path, model, optimizer)
    os.remove(path)
    return step


def load_step_as_text(path, model, optimizer):
    return str(load_parts(path, model, optimizer))


def load_step_of_optimizer(path, model, optimizer):
    """Reads the step off AdamW's own counters instead of the file."""
    load_parts(path, model, optimizer)
    counters = [int(state["step"]) for state in optimizer.state.values() if "step" in state]
    return counters[0] if counters else 0


def load_step_or_one(path, model, optimizer):
    return load_parts(path, model, optimizer) or 1


def load_with_a_step(path, model, optimizer):
    """Runs one update with the gradients that are there."""
    step = load_parts(path, model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return step


def save_in_eval_mode(path, model, optimizer, step):
    save_parts(path, model.eval(), optimizer, step)


def save_then_step(path, model, optimizer, step):
    save_parts(path, model, optimizer, step)
    optimizer.step()


def load_keeping_moments(path, model, optimizer):
    """Moments of a run that is under way stay; only an empty optimizer gets the saved ones."""
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    if not optimizer.state:
        optimizer.load_state_dict(saved["optimizer"])
    return saved["step"]


def load_once(path, model, optimizer, kept={}):  # noqa: B006
    """Reads each file once and remembers it."""
    if str(path) not in kept:
        kept[str(path)] = torch.load(path, weights_only=True)
    saved = kept[str(path)]
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
    return saved["step"]


def memory_and_file():
    """A real file for the eye, and the truth in memory."""
    save, load = in_memory()

    def save_both(path, model, optimizer, step):
        save(path, model, optimizer, step)
        save_parts(path, model, optimizer, step)

    return save_both, load


CHECKPOINTS = [
    (save_twice, load_latest),
    (save_with_suffix, load_with_suffix),
    (save_text_paths_only, load_parts),
    moments_in_memory(),
    (save_by_pickle, load_by_pickle),
    (save_pickled_path, load_trustingly),
    (save_optimizer_object, load_optimizer_object),
    (save_float32, load_parts),
    (save_state_only, load_state_only),
    (save_parts, load_first_group_only),
    (save_parts, load_and_freeze),
    (save_parts, load_and_delete),
    (save_parts, load_step_as_text),
    (save_parts, load_step_of_optimizer),
    (save_parts, load_step_or_one),
    (save_parts, load_with_a_step),
    (save_in_eval_mode, load_parts),
    (save_then_step, load_parts),
    (save_parts, load_keeping_moments),
    (save_parts, load_once),
    memory_and_file(),
]


SUBTLE_MISTAKES = [
    ("7.1", surprise_with_epsilon),
    ("7.1", surprise_limited),
    ("7.1", surprise_on_clamped_logits),
    ("7.1", surprise_without_zeros),
    ("7.1", surprise_with_broken_gradient),
    ("7.1", surprise_mean_of_medians),
    ("7.1", surprise_unbiased_mean),
    ("7.1", surprise_ignores_zero),
    ("7.1", surprise_smoothed),
    ("7.1", surprise_next_position),
    ("7.1", surprise_always_float32),
    ("7.1", surprise_in_half),
    ("7.1", surprise_three_dimensions),
    ("7.1", surprise_by_view),
    ("7.1", surprise_with_detached_total),
    ("7.1", surprise_in_place),
    ("7.1", surprise_as_vector_of_one),
    ("7.1", surprise_by_pytorch),
    ("7.1", surprise_by_loss_module),
    ("7.1", surprise_by_log_softmax),
    ("7.1", surprise_by_nll),
    ("7.1", surprise_by_inner_operator),
    ("7.1", surprise_by_inner_log_softmax),
    *(("7.2", answer) for answer in PERPLEXITIES),
    ("7.3", estimating(weight=lambda x, y: 1)),
    ("7.3", estimating(weight=lambda x, y: x.shape[1])),
    ("7.3", estimating(weight=lambda x, y: int(y.unique().numel()))),
    ("7.3", estimating(weight=lambda x, y: int((y != 0).sum()))),
    ("7.3", estimating(result=lambda total, count: round(total / count, 2))),
    ("7.3", estimating(result=lambda total, count: np.float32(total / count))),
    ("7.3", estimating(result=lambda total, count: torch.tensor(total / count))),
    ("7.3", estimating(result=lambda total, count: math.exp(total / count))),
    ("7.3", estimating(result=lambda total, count: (total / count, count))),
    ("7.3", estimating(result=lambda total, count: total / (count - 1) if count > 1 else total)),
    ("7.3", estimate_children_only),
    ("7.3", estimate_restores_by_calling_train),
    ("7.3", estimate_catches_only_runtime_errors),
    ("7.3", estimate_swallows_errors),
    ("7.3", estimate_eval_after_the_first),
    ("7.3", estimate_gradients_for_the_first),
    ("7.3", estimate_freezes_the_model),
    ("7.3", estimate_detaches_only),
    ("7.3", estimate_trains),
    ("7.3", estimate_key_error),
    ("7.3", estimate_remembered()),
    *(("7.4", answer) for answer in RATES),
    ("7.5", groups_by_weight),
    ("7.5", groups_by_module_type),
    ("7.5", groups_squeezed),
    ("7.5", groups_without_scalars),
    ("7.5", groups_of_children),
    ("7.5", groups_of_state_dict),
    ("7.5", groups_as_sets),
    ("7.5", groups_thawed),
    ("7.5", groups_frozen_into_vectors),
    ("7.5", groups_with_a_third),
    ("7.5", groups_merged),
    ("7.5", groups_under_other_keys),
    ("7.5", groups_tiny_decay),
    ("7.5", groups_decay_none),
    ("7.5", groups_both_in_both),
    ("7.5", groups_remembered()),
    *(("7.6", answer) for answer in SAMPLERS),
    *(("7.7", answers) for answers in CHECKPOINTS),
]
