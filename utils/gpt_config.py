"""The sizes of GPT-2 and of its relatives."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a model; the defaults are the small GPT-2 as published, but for the tied head.

    Attributes:
        vocab_size: V.
        context_length: the longest sequence.
        emb_dim: d, channels of a token.
        n_heads: H; must divide ``emb_dim``.
        n_layers: transformer blocks.
        drop_rate: of every dropout.
        qkv_bias: whether queries, keys and values have a bias.
        tied: whether the head shares its weight with the token embedding.
        fused: whether attention and LayerNorm use PyTorch's fused kernels; the written-out steps otherwise.
        init_std: spread of the initial weights, as GPT-2 has 0.02; None leaves PyTorch's own initialisation.

    Raises:
        ValueError: a size is below 1, or the heads can't share the channels evenly.

    Example:
        >>> GPTConfig(vocab_size=65, context_length=8, emb_dim=6, n_heads=4)
        Traceback (most recent call last):
            ...
        ValueError: emb_dim must be a multiple of n_heads, got emb_dim=6, n_heads=4
    """

    vocab_size: int = 50257
    context_length: int = 1024
    emb_dim: int = 768
    n_heads: int = 12
    n_layers: int = 12
    drop_rate: float = 0.1
    qkv_bias: bool = True
    tied: bool = False
    fused: bool = True
    init_std: float | None = 0.02

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.emb_dim % self.n_heads:
            raise ValueError(
                f"emb_dim must be a multiple of n_heads, got emb_dim={self.emb_dim}, n_heads={self.n_heads}"
            )


PRESETS: dict[str, GPTConfig] = {
    "gpt2": GPTConfig(tied=True),
    "gpt2-medium": GPTConfig(emb_dim=1024, n_heads=16, n_layers=24, tied=True),
    "gpt2-large": GPTConfig(emb_dim=1280, n_heads=20, n_layers=36, tied=True),
    "gpt2-xl": GPTConfig(emb_dim=1600, n_heads=25, n_layers=48, tied=True),
}
