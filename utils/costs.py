"""What a model costs before it is built: parameters, memory of the cache, arithmetic. All by formula."""

from utils.gpt_config import GPTConfig
from utils.masking import check_length


def count_parameters(cfg: GPTConfig, tied: bool) -> int:
    """How many numbers a model learns.

    Args:
        cfg: its sizes.
        tied: whether the head shares the token embedding.

    Example:
        >>> count_parameters(GPTConfig(qkv_bias=False), tied=False), count_parameters(GPTConfig(), tied=True)
        (163009536, 124439808)
    """
    d, vocab_size = cfg.emb_dim, cfg.vocab_size
    projections = 3 * (d * d + (d if cfg.qkv_bias else 0)) + d * d + d  # queries, keys, values; then the output
    feed_forward = d * 4 * d + 4 * d + 4 * d * d + d
    norm = 2 * d
    embeddings = vocab_size * d + cfg.context_length * d
    head = 0 if tied else d * vocab_size
    return embeddings + cfg.n_layers * (projections + feed_forward + 2 * norm) + norm + head


def kv_cache_bytes(cfg: GPTConfig, batch_size: int, length: int, bytes_per_value: int) -> int:
    """Memory that the keys and values of all layers take.

    Args:
        cfg: sizes of the model.
        batch_size: sequences at a time.
        length: tokens held per sequence.
        bytes_per_value: 4 for float32, 2 for the half precisions.

    Raises:
        ValueError: ``length`` exceeds ``context_length``.

    Example:
        >>> kv_cache_bytes(GPTConfig(), batch_size=1, length=1024, bytes_per_value=4) // 2**20
        72
    """
    check_length(length, cfg.context_length)
    return 2 * cfg.n_layers * batch_size * length * cfg.emb_dim * bytes_per_value


def flops_per_token(cfg: GPTConfig) -> int:
    """Floating-point operations to train on one token: forward and backward, multiply and add counted apart.

    Two per matrix weight in the forward pass and four in the backward pass, plus the products of attention
    over the whole context. Look-ups, biases and norms are left out.
    Source: Chowdhery et al., "PaLM" (2022), appendix B.

    Example:
        >>> flops_per_token(GPTConfig())
        854438400
    """
    weights = 12 * cfg.n_layers * cfg.emb_dim**2 + cfg.vocab_size * cfg.emb_dim
    return 6 * weights + 12 * cfg.n_layers * cfg.emb_dim * cfg.context_length
