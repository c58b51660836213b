"""Other right answers for chapter 7."""

import contextlib
import copy
import functools
import io
import itertools
import math
import os
import pathlib
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# 7.1 ------------------------------------------------------------------------------------------------


def surprise_flattened(logits, targets):
    logits, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    log_probs = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -log_probs[torch.arange(len(targets)), targets].mean()


def surprise_by_logsumexp(logits, targets):
    return (torch.logsumexp(logits, dim=-1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)).mean()


def surprise_one_hot(logits, targets):
    shifted = logits - logits.max(dim=-1, keepdim=True).values
    log_probs = shifted - shifted.exp().sum(-1, keepdim=True).log()
    hot = F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    return -(hot * log_probs).sum() / targets.numel()


def surprise_by_loop(logits, targets):
    losses = []
    for row, target in zip(logits.reshape(-1, logits.size(-1)), targets.reshape(-1), strict=True):
        largest = row.max()
        losses.append(largest + (row - largest).exp().sum().log() - row[target])
    return sum(losses) / len(losses)


def surprise_recursive(logits, targets):
    if targets.dim() == 0:
        return torch.logsumexp(logits, 0) - logits[targets]
    return torch.stack([surprise_recursive(row, target) for row, target in zip(logits, targets, strict=True)]).mean()


def surprise_in_float64(logits, targets):
    wide = logits.double()
    picked = torch.take_along_dim(wide, targets[..., None], dim=-1)[..., 0]
    return (wide.logsumexp(-1) - picked).mean().to(logits.dtype)


def surprise_by_differences(logits, targets):
    """log of the sum of exp(z_j - z_target): the target's own term is 1."""
    return (logits - logits.gather(-1, targets[..., None])).logsumexp(-1).mean()


def surprise_by_log_add_exp(logits, targets):
    total = functools.reduce(torch.logaddexp, logits.unbind(-1))
    return torch.mean(total - logits.gather(-1, targets[..., None])[..., 0])


def surprise_by_einsum(logits, targets):
    flat = logits.flatten(0, -2) if logits.dim() > 1 else logits[None]
    log_probs = flat - flat.logsumexp(1, keepdim=True)
    return -torch.einsum("nv,nv->", log_probs, torch.eye(flat.shape[1], dtype=flat.dtype)[targets.reshape(-1)]) / len(
        flat
    )


def surprise_by_softplus(logits, targets):
    """The surprise of the target against all others together: softplus of a difference of scores."""
    target = logits.gather(-1, targets[..., None])
    others = logits.scatter(-1, targets[..., None], -math.inf)
    if logits.shape[-1] == 1:
        return (0 * target).mean()
    difference = others.logsumexp(-1) - target[..., 0]
    return (difference.clamp(min=0) + torch.log1p(torch.exp(-difference.abs()))).mean()


def surprise_by_distribution(logits, targets):
    return -torch.distributions.Categorical(logits=logits).log_prob(targets).mean()


class SurpriseModule(nn.Module):
    def forward(self, scores, answers):
        largest = scores.detach().amax(-1, keepdim=True)
        total = torch.exp(scores - largest).sum(-1, keepdim=True)
        return (largest + total.log() - scores.gather(-1, answers.unsqueeze(-1))).mean()


class WithOwnCrossEntropy:
    def cross_entropy(self, logits, targets):
        return surprise_by_logsumexp(logits, targets)

    def __call__(self, logits, targets):
        """Not F.cross_entropy(logits, targets)."""
        return self.cross_entropy(logits, targets)


# 7.2 ------------------------------------------------------------------------------------------------


def perplexity_by_type(loss):
    if isinstance(loss, float):
        return math.exp(loss)
    return torch.exp(loss)


def perplexity_by_power(loss):
    return math.e**loss


def perplexity_by_duck(loss):
    try:
        return loss.exp()
    except AttributeError:
        return float(np.exp(loss))


def perplexity_through_tensor(loss):
    if torch.is_tensor(loss):
        return torch.pow(math.e, loss)
    return torch.tensor(loss, dtype=torch.float64).exp().item()


@functools.singledispatch
def perplexity_dispatched(loss):
    return math.exp(loss)


@perplexity_dispatched.register
def _(loss: torch.Tensor):
    return 1 / torch.exp(-loss)


def perplexity_float32(loss):
    return loss.exp() if isinstance(loss, torch.Tensor) else torch.tensor(loss).exp().item()


class PerplexityModule(nn.Module):
    def forward(self, loss):
        return torch.exp2(loss / math.log(2)) if isinstance(loss, torch.Tensor) else np.exp(loss)


# 7.3 ------------------------------------------------------------------------------------------------


def modes_of(model):
    return {name: module.training for name, module in model.named_modules()}


@torch.no_grad()
def estimate_by_names(model, batches):
    before = modes_of(model)
    model.eval()
    try:
        total = count = 0
        for x, y in batches:
            _, loss = model(x, y)
            total += float(loss) * y.numel()
            count += y.numel()
    finally:
        for name, mode in before.items():
            model.get_submodule(name).training = mode
    if not count:
        raise ValueError("nothing to average")
    return total / count


@contextlib.contextmanager
def eval_mode(model):
    flags = [module.training for module in model.modules()]
    model.train(False)
    try:
        yield model
    finally:
        for module, flag in zip(model.modules(), flags, strict=True):
            module.training = flag


def estimate_inference_mode(model, batches):
    losses, sizes = [], []
    with eval_mode(model), torch.inference_mode():
        for batch in batches:
            x, y = batch
            losses.append(model(x, y)[1])
            sizes.append(y.shape[0] * y.shape[1])
    assert sizes, "no batches"
    weights = torch.tensor(sizes, dtype=torch.float64)
    return ((torch.stack(losses).double() * weights).sum() / weights.sum()).item()


def estimate_on_a_copy(model, batches):
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    pairs = [(frozen(x, y)[1].item(), y.numel()) for x, y in batches]
    if not pairs:
        raise ValueError("no batch")
    return sum(a * b for a, b in pairs) / sum(b for _, b in pairs)


def estimate_listed(model, batches):
    batches = list(batches)
    if len(batches) == 0:
        raise ValueError("need at least one batch")
    states = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            pieces = torch.tensor([[model(x, targets=y)[1], y.numel()] for x, y in batches], dtype=torch.float64)
    finally:
        for m, mode in states:
            m.training = mode
    return float(pieces.prod(dim=1).sum() / pieces[:, 1].sum())


def estimate_running_mean(model, batches):
    mean, count = 0.0, 0
    stack = contextlib.ExitStack()
    with stack:
        for module in model.modules():
            stack.callback(setattr, module, "training", module.training)
        model.eval()
        stack.enter_context(torch.no_grad())
        for x, y in batches:
            count += x.numel()
            mean += (model(x, y)[1].item() - mean) * x.numel() / count
        if count == 0:
            raise ValueError("empty")
    return mean


def estimate_by_iterator(model, batches):
    iterator = iter(batches)
    try:
        first = next(iterator)
    except StopIteration:
        raise ValueError("there is no batch") from None
    device = next(model.parameters()).device
    with eval_mode(model), torch.set_grad_enabled(False):
        sums = np.zeros(2)
        for x, y in itertools.chain([first], iterator):
            logits, loss = model(x.to(device), y.to(device))
            sums += np.array([loss.item(), 1.0]) * logits.shape[0] * logits.shape[1]
    return sums[0] / sums[1]


class Estimator:
    def __call__(self, model, batches):
        with torch.no_grad():
            return self.run(model, batches)

    def run(self, model, batches):
        training = [module for module in model.modules() if module.training]
        for module in training:
            module.training = False
        try:
            losses = torch.cat([model(x, y)[1].repeat(y.numel()) for x, y in batches] or [torch.zeros(0)])
        finally:
            for module in training:
                module.training = True
        if len(losses) == 0:
            raise AssertionError
        return losses.mean().item()


# 7.4 ------------------------------------------------------------------------------------------------


def rate_nano(it, learning_rate, min_lr, warmup_iters, lr_decay_iters):
    if it < warmup_iters:
        return learning_rate * it / warmup_iters
    if it > lr_decay_iters:
        return min_lr
    decay_ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    coeff = 0.5 * (1.0 + math.cos(math.pi * decay_ratio))
    return min_lr + coeff * (learning_rate - min_lr)


def rate_clamped(step, max_lr, min_lr, warmup_steps, max_steps):
    if step < warmup_steps:
        return step / warmup_steps * max_lr
    progress = min(1.0, (step - warmup_steps) / (max_steps - warmup_steps))
    return (max_lr + min_lr) / 2 + (max_lr - min_lr) / 2 * math.cos(progress * math.pi)


def rate_in_torch(step, max_lr, min_lr, warmup_steps, max_steps):
    if step < warmup_steps:
        return torch.tensor(max_lr) * step / warmup_steps
    progress = torch.tensor((step - warmup_steps) / (max_steps - warmup_steps)).clamp(max=1.0)
    return min_lr + (max_lr - min_lr) * (1 + torch.cos(torch.pi * progress)) / 2


def rate_in_numpy(step, max_lr, min_lr, warmup_steps, max_steps):
    knots = [-1, *([0] if warmup_steps else []), warmup_steps]
    if step < warmup_steps:
        return np.interp(step, knots[1:], [0, max_lr])
    progress = np.clip((step - warmup_steps) / (max_steps - warmup_steps), 0, 1)
    return min_lr + (max_lr - min_lr) * np.cos(np.pi / 2 * progress) ** 2


def rate_by_fractions(step, max_lr, min_lr, warmup_steps, max_steps):
    if step >= max_steps:
        return min_lr
    if step < warmup_steps:
        return float(Fraction(step, warmup_steps) * Fraction(max_lr))
    share = Fraction(step - warmup_steps, max_steps - warmup_steps)
    return max_lr - (max_lr - min_lr) * math.sin(math.pi / 2 * share) ** 2


def rate_by_min(step, max_lr, min_lr, warmup_steps, max_steps):
    step = min(step, max_steps)
    warm = step / warmup_steps if step < warmup_steps else 1.0
    position = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)
    cosine = (1 + math.cos(math.pi * position)) / 2
    return warm * max_lr if warm < 1 else min_lr * (1 - cosine) + max_lr * cosine


def rate_by_pytorch(step, max_lr, min_lr, warmup_steps, max_steps):
    """PyTorch's own schedule, in its closed form."""
    if step < warmup_steps:
        return max_lr * (step / warmup_steps)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=max_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max_steps - warmup_steps, eta_min=min_lr)
    schedule.last_epoch = min(step, max_steps) - warmup_steps
    return schedule._get_closed_form_lr()[0]


# 7.5 ------------------------------------------------------------------------------------------------


def groups_by_filter(model, weight_decay):
    trainable = list(filter(lambda p: p.requires_grad, model.parameters()))
    return (
        dict(params=filter(lambda p: p.ndim > 1, trainable), weight_decay=weight_decay),  # noqa: C408
        dict(params=(p for p in trainable if p.ndim <= 1), weight_decay=0),  # noqa: C408
    )


def groups_vectors_first(model, weight_decay):
    vectors, others = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (others if len(parameter.shape) >= 2 else vectors).append(parameter)
    return [{"weight_decay": 0.0, "params": tuple(vectors)}, {"weight_decay": weight_decay, "params": others}]


def groups_by_names(model, weight_decay):
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decay = sorted(name for name, p in named.items() if p.dim() >= 2)
    rest = sorted(named.keys() - set(decay))
    return [
        {"params": [named[name] for name in decay], "weight_decay": weight_decay, "name": "decay"},
        {"params": [named[name] for name in rest], "weight_decay": 0.0, "name": "no decay", "lr": 1e-3},
    ]


def groups_by_modules(model, weight_decay):
    seen, groups = set(), {True: [], False: []}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            if p.requires_grad and id(p) not in seen:
                seen.add(id(p))
                groups[p.dim() > 1].append(p)
    return [{"params": ps, "weight_decay": weight_decay * decays} for decays, ps in groups.items()]


def groups_yielded(model, weight_decay):
    for decays in (False, True):
        members = {id(p): p for p in model.parameters() if p.requires_grad and (p.dim() >= 2) == decays}
        yield {"params": members.values(), "weight_decay": weight_decay if decays else 0.0}


def groups_as_parameter_lists(model, weight_decay):
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": nn.ParameterList(p for p in trainable if p.dim() >= 2), "weight_decay": torch.tensor(weight_decay)},
        {"params": nn.ParameterList(p for p in trainable if not p.dim() >= 2), "weight_decay": torch.tensor(0.0)},
    ]


def groups_from_optimizer(model, weight_decay):
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([p for p in trainable if p.dim() >= 2], weight_decay=weight_decay)
    optimizer.add_param_group({"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0})
    return optimizer.param_groups


# 7.6 ------------------------------------------------------------------------------------------------


def refuse(temperature, top_k):
    if temperature < 0:
        raise ValueError(f"temperature {temperature} is negative")
    if top_k is not None and top_k <= 0:
        raise ValueError(f"top_k = {top_k}")


def sample_by_scatter(logits, temperature, top_k, generator):
    refuse(temperature, top_k)
    if not temperature:
        return torch.argmax(logits, -1, True)
    if top_k is not None:
        values, indices = torch.topk(logits, min(top_k, logits.size(-1)))
        logits = torch.full_like(logits, float("-inf")).scatter(1, indices, values)
    return torch.multinomial(F.softmax(logits / temperature, dim=-1), 1, generator=generator)


def sample_row_by_row(logits, temperature, top_k, generator):
    refuse(temperature, top_k)
    rows = []
    for row in logits:
        order = row.argsort(descending=True)[:top_k]
        if temperature == 0:
            rows.append(order[:1])
        else:
            probs = (row[order] / temperature).softmax(0)
            rows.append(order[torch.multinomial(probs, 1, generator=generator)])
    return torch.stack(rows)


def sample_from_sorted(logits, temperature, top_k, generator):
    assert temperature >= 0, f"bad temperature: {temperature}"
    assert top_k is None or top_k >= 1, f"bad top_k: {top_k}"
    ordered, ids = logits.double().sort(dim=-1, descending=True, stable=True)
    if temperature == 0:
        return ids[:, :1]
    weights = ((ordered - ordered[:, :1]) / temperature).exp()
    if top_k is not None:
        weights[:, top_k:] = 0
    return torch.take_along_dim(ids, weights.multinomial(1, generator=generator), dim=1)


def sample_ascending(logits, temperature, top_k, generator):
    refuse(temperature, top_k)
    vocab_size = logits.shape[-1]
    k = vocab_size if top_k is None else min(top_k, vocab_size)
    if temperature == 0 or k == 1:
        return logits.max(dim=-1, keepdim=True).indices
    order = logits.argsort(dim=-1)[:, vocab_size - k :]
    chosen = torch.gather(logits, 1, order).div(temperature).softmax(dim=1)
    return order.gather(1, torch.multinomial(chosen, num_samples=1, replacement=True, generator=generator))


def sample_tie_at_random(logits, temperature, top_k, generator):
    """At temperature 0 any of the likeliest tokens, drawn evenly."""
    refuse(temperature, top_k)
    if temperature == 0:
        ties = (logits == logits.amax(-1, keepdim=True)).float()
        return torch.multinomial(ties, 1, generator=generator)
    return sample_by_scatter(logits, temperature, top_k, generator)


def sample_last_of_ties(logits, temperature, top_k, generator):
    flipped = sample_by_scatter(logits.flip(-1), temperature, top_k, generator)
    return logits.shape[-1] - 1 - flipped


def sample_by_in_place_mask(logits, temperature, top_k, generator):
    refuse(temperature, top_k)
    scores = logits.clone()
    if top_k is not None and top_k < scores.shape[-1]:
        rest = scores.topk(scores.shape[-1] - top_k, largest=False).indices
        scores.scatter_(-1, rest, -math.inf)
    if temperature == 0:
        return scores.argmax(-1).unsqueeze(-1)
    scores -= scores.amax(-1, keepdim=True)
    scores /= temperature
    probs = scores.exp()
    return torch.multinomial(input=probs / probs.sum(-1, keepdim=True), num_samples=1, generator=generator)


class Sampler(nn.Module):
    @torch.no_grad()
    def forward(self, logits, temperature=1.0, top_k=None, generator=None):
        refuse(temperature, top_k)
        best = logits.topk(logits.shape[-1] if top_k is None else min(logits.shape[-1], top_k), dim=-1)
        if temperature == 0:
            return best.indices[..., :1]
        scores = nn.Softmax(dim=-1)(best.values.mul(1 / temperature))
        return best.indices.gather(-1, scores.multinomial(num_samples=1, generator=generator))


# 7.7 ------------------------------------------------------------------------------------------------


def save_three(path, model, optimizer, step):
    torch.save([model.state_dict(), optimizer.state_dict(), step], path)


def load_three(path, model, optimizer):
    weights, moments, step = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    return step


def save_with_random_state(path, model, optimizer, step):
    path = pathlib.Path(path)
    path.parent.mkdir(exist_ok=True)
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    torch.save(content | {"step": torch.tensor(step)}, path)


def load_with_random_state(path, model, optimizer):
    saved = torch.load(pathlib.Path(path))
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["random"])
    return saved["step"].item()


def save_beside_first(path, model, optimizer, step):
    buffer = io.BytesIO()
    torch.save({"a": model.state_dict(), "b": optimizer.state_dict(), "c": int(step)}, buffer)
    beside = os.fspath(path) + ".new"
    with open(beside, "wb") as file:
        file.write(buffer.getvalue())
    os.replace(beside, path)


def load_from_bytes(path, model, optimizer):
    with open(path, "rb") as file:
        saved = torch.load(io.BytesIO(file.read()), weights_only=True)
    model.load_state_dict(saved["a"], strict=True)
    optimizer.load_state_dict(saved["b"])
    model.train()
    return int(saved["c"])


def save_flat(path, model, optimizer, step):
    """Tensors under flat names, and the optimizer's state by hand."""
    flat = {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    flat["optimizer"] = copy.deepcopy(optimizer.state_dict())
    flat["step"] = step
    torch.save(flat, str(path), _use_new_zipfile_serialization=False)


@torch.no_grad()
def load_flat(path, model, optimizer):
    flat = torch.load(str(path), weights_only=False)
    own = dict(itertools.chain(model.named_parameters(), model.named_buffers()))
    for name, tensor in own.items():
        tensor.copy_(flat[f"model.{name}"])
    optimizer.load_state_dict(flat["optimizer"])
    return flat["step"]


class Keeper:
    """Two methods of one object, which keeps nothing."""

    names = ("model", "optimizer")

    def save(self, path, *objects):
        *things, step = objects
        states = {name: thing.state_dict() for name, thing in zip(self.names, things, strict=True)}
        with open(path, "wb") as file:
            torch.save({**states, "training": {"step": step}}, file)

    def load(self, path, *things):
        saved = torch.load(path, mmap=True, weights_only=True)
        for name, thing in zip(self.names, things, strict=True):
            thing.load_state_dict(copy.deepcopy(saved[name]))
        return saved["training"]["step"]


def save_text_inside(path, model, optimizer, step):
    """As bytes of two files in one, which are plain tensors to whoever reads them."""
    pieces = []
    for thing in (model, optimizer):
        buffer = io.BytesIO()
        torch.save(thing.state_dict(), buffer)
        pieces.append(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8))
    torch.save((pieces, step), path)


def load_text_inside(path, model, optimizer):
    pieces, step = torch.load(path, weights_only=True)
    for thing, piece in zip((model, optimizer), pieces, strict=True):
        thing.load_state_dict(torch.load(io.BytesIO(piece.numpy().tobytes()), weights_only=True))
    return step


def save_old_protocol(path, model, optimizer, step):
    states = dict(model=model.state_dict(), optim=optimizer.state_dict(), steps_done=step)  # noqa: C408
    torch.save(states, f=path, pickle_protocol=2)


def load_optimizer_first(path, model, optimizer):
    saved = torch.load(f=path)
    optimizer.load_state_dict(saved["optim"])
    missing = model.load_state_dict(saved["model"])
    assert not missing.missing_keys
    return saved["steps_done"]


def save_in_two_files(path, model, optimizer, step):
    torch.save({"model": model.state_dict(), "step": step}, path)
    torch.save(optimizer.state_dict(), f"{path}.optimizer")


def load_from_two_files(path, model, optimizer):
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(torch.load(f"{path}.optimizer", weights_only=True))
    return saved["step"]


KEEPER = Keeper()


RIGHT_ANSWERS = {
    "7.1": [
        ("flattened", surprise_flattened),
        ("logsumexp", surprise_by_logsumexp),
        ("one-hot", surprise_one_hot),
        ("loop", surprise_by_loop),
        ("recursive", surprise_recursive),
        ("float64", surprise_in_float64),
        ("differences", surprise_by_differences),
        ("logaddexp", surprise_by_log_add_exp),
        ("einsum", surprise_by_einsum),
        ("softplus", surprise_by_softplus),
        ("distribution", surprise_by_distribution),
        ("module", SurpriseModule()),
        ("own method", WithOwnCrossEntropy()),
    ],
    "7.2": [
        ("by type", perplexity_by_type),
        ("power", perplexity_by_power),
        ("duck", perplexity_by_duck),
        ("through a tensor", perplexity_through_tensor),
        ("dispatched", perplexity_dispatched),
        ("float32", perplexity_float32),
        ("module", PerplexityModule()),
    ],
    "7.3": [
        ("by names", estimate_by_names),
        ("inference mode", estimate_inference_mode),
        ("copy", estimate_on_a_copy),
        ("listed", estimate_listed),
        ("running mean", estimate_running_mean),
        ("iterator", estimate_by_iterator),
        ("object", Estimator()),
    ],
    "7.4": [
        ("nanoGPT", rate_nano),
        ("clamped", rate_clamped),
        ("torch", rate_in_torch),
        ("numpy", rate_in_numpy),
        ("fractions", rate_by_fractions),
        ("min", rate_by_min),
        ("PyTorch's", rate_by_pytorch),
    ],
    "7.5": [
        ("filter", groups_by_filter),
        ("vectors first", groups_vectors_first),
        ("by names", groups_by_names),
        ("by modules", groups_by_modules),
        ("yielded", groups_yielded),
        ("parameter lists", groups_as_parameter_lists),
        ("from an optimizer", groups_from_optimizer),
    ],
    "7.6": [
        ("scatter", sample_by_scatter),
        ("row by row", sample_row_by_row),
        ("sorted", sample_from_sorted),
        ("ascending", sample_ascending),
        ("tie at random", sample_tie_at_random),
        ("last of ties", sample_last_of_ties),
        ("masked in place", sample_by_in_place_mask),
        ("module", Sampler()),
    ],
    "7.7": [
        ("list", (save_three, load_three)),
        ("random state", (save_with_random_state, load_with_random_state)),
        ("beside first", (save_beside_first, load_from_bytes)),
        ("flat", (save_flat, load_flat)),
        ("methods", (KEEPER.save, KEEPER.load)),
        ("bytes", (save_text_inside, load_text_inside)),
        ("two files", (save_in_two_files, load_from_two_files)),
        ("optimizer first", (save_old_protocol, load_optimizer_first)),
    ],
}
