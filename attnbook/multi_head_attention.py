"""Multi-head attention: several small attentions side by side, each with projections of its own.

`forward` runs PyTorch's fused kernel; `attend` runs the textbook formula and returns each head's
weights too; `step` decodes a few tokens at a time and keeps keys and values in a KeyValueCache. The
weights of nn.MultiheadAttention load unchanged.

Axes: i queries, j keys, d features of a head; q, k and v features of the three inputs, e of the
output; heads of the queries, kv heads of keys and values, group = heads / kv. The features of all
heads lie one head after the other: (heads d).

Paper: Vaswani et al. (2017), section 3.2.2, https://arxiv.org/abs/1706.03762.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnbook.attention import attend, attend_fused, causal_mask, seen
from attnbook.checks import (
    check_bias,
    check_features,
    check_flag,
    check_inputs,
    check_mask,
    check_number,
    check_size,
    check_tensor,
    fits,
)
from attnbook.module import Module


class MultiHeadAttention(Module):
    """Attention with several heads, each of which looks at features of its own.

    head_h = softmax(q_h k_h^T / sqrt(d)) v_h,    output = [head_1, ..., head_H] W_o

    q_h, k_h and v_h are the h-th slices, d = embed_dim / num_heads wide, of query W_q, key W_k and
    value W_v. W_q and W_o are (embed_dim, embed_dim), W_k is (kdim, kv d), W_v is (vdim, kv d);
    kdim and vdim are embed_dim by default. With `num_kv_heads`, kv of them, fewer than num_heads,
    each head of keys and values serves num_heads / kv neighbouring heads of queries (grouped
    queries, https://arxiv.org/abs/2305.13245). `dropout` acts on the weights, in training only.

    `rotary` turns the queries and keys of each head, (batch, heads, length, d). Keys are at 0, 1,
    ..., and the last query at the last key. It is called as rotary(x) where queries and keys are
    equally many, and only where they are not, and by `step`, as rotary(x, positions=...): a module
    that does not know `positions` will do for self-attention. RotaryEncoding's complex numbers make
    torch.compile warn, and run in PyTorch's own kernel there.

    Initial values are those of nn.MultiheadAttention: biases 0, W_o as in nn.Linear, W_q, W_k and
    W_v uniform by Glorot's rule, for the three stacked to one matrix if their inputs are all
    embed_dim wide, else for each. Its state_dict loads unchanged, unless it has bias_k and bias_v
    (add_bias_kv). `add_zero_attn` leaves no trace there: `attnbook.from_torch` refuses that too.

    torch.fx.symbolic_trace cannot look inside, since inputs are checked; it goes around the layer
    where a tracer's is_leaf_module says so, in torchvision create_feature_extractor(...,
    tracer_kwargs={"leaf_modules": [MultiHeadAttention]}).

    >>> attention = MultiHeadAttention(embed_dim=8, num_heads=2)
    >>> output, weights = attention.attend(torch.randn(3, 5, 8), is_causal=True)
    >>> output.shape, weights.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 5, 5]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        rotary: nn.Module | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up the four projections.

        Args:
            embed_dim: features of a query and of the output; num_heads must divide it.
            num_heads: heads of the queries, at least 1.
            num_kv_heads: heads of keys and values, a divisor of num_heads; num_heads by default.
            kdim: features of a key; embed_dim by default.
            vdim: features of a value; embed_dim by default.
            bias: whether the projections have biases, True by default; not to be confused with the
                `bias` of a call, which is added to the scores.
            dropout: how likely a weight is dropped in training, 0 by default.
            rotary: a module such as RotaryEncoding(embed_dim // num_heads) that turns queries and
                keys by their positions; none by default.
            device: where the parameters lie; PyTorch's default device by default.
            dtype: their type; PyTorch's default type by default.

        Raises:
            TypeError: a size is no whole number, dropout no number, bias neither True nor False,
                or rotary no module.
            ValueError: a size below 1, sizes that do not divide, or a dropout outside 0 to 1.
        """
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        kdim = embed_dim if kdim is None else kdim
        vdim = embed_dim if vdim is None else vdim
        sizes = {
            "embed_dim": embed_dim,
            "num_heads": num_heads,
            "num_kv_heads": num_kv_heads,
            "kdim": kdim,
            "vdim": vdim,
        }
        for name, size in sizes.items():
            check_size(name, size)
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim} is not divisible by num_heads={num_heads}")
        if num_heads % num_kv_heads:
            raise ValueError(
                f"num_heads={num_heads} is not divisible by num_kv_heads={num_kv_heads}"
            )
        check_flag("bias", bias)
        check_number("dropout", dropout, least=0, most=1, why="it is a probability")
        if rotary is not None and not isinstance(rotary, nn.Module):
            raise TypeError(
                f"rotary has type {type(rotary).__name__}, but must be a torch.nn.Module, such as "
                f"RotaryEncoding({embed_dim // num_heads})"
            )
        self.embed_dim, self.num_heads, self.num_kv_heads = embed_dim, num_heads, num_kv_heads
        self.head_dim = embed_dim // num_heads
        self.kdim, self.vdim = kdim, vdim
        self.dropout = dropout
        self.rotary = rotary
        kv_dim = num_kv_heads * self.head_dim
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.k_proj = nn.Linear(kdim, kv_dim, bias=bias, device=device, dtype=dtype)
        self.v_proj = nn.Linear(vdim, kv_dim, bias=bias, device=device, dtype=dtype)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()
        self.register_load_state_dict_pre_hook(_rename_pytorchs_parameters)

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        self.out_proj.reset_parameters()
        projections = (self.q_proj, self.k_proj, self.v_proj)
        stacked = all(projection.in_features == self.embed_dim for projection in projections)
        stacked_rows = sum(projection.out_features for projection in projections)
        for projection in projections:
            rows = stacked_rows if stacked else projection.out_features
            bound = math.sqrt(6 / (projection.in_features + rows))
            nn.init.uniform_(projection.weight, -bound, bound)
        for projection in (*projections, self.out_proj):
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Float[Tensor, "*#batch i q"],
        key: Float[Tensor, "*#batch j k"] | None = None,
        value: Float[Tensor, "*#batch j v"] | None = None,
        *,
        mask: Bool[Tensor, "*_ #i #j"] | None = None,
        bias: Float[Tensor, "*_ #i #j"] | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "*batch i e"]:
        """Return one vector per query, (batch, i, embed_dim), computed by PyTorch's fused kernel.

        query: (batch, i, embed_dim); key: (batch, j, kdim), by default the query; value:
        (batch, j, vdim), by default the key. All three may come without a batch axis.

        `mask` is boolean, True where a query may attend to a key; `bias` is added to the scores.
        Their number of axes says what they are: 2 (queries, keys), 3 (batch, queries, keys) and
        never (heads, queries, keys), 4 (batch, heads, queries, keys), with 1 where it is shared.
        For padding: (batch, 1, keys), as padding_mask makes it; (batch, keys) would be read as
        (queries, keys) where there are as many queries as sequences. With `is_causal`, no query
        sees a key later than itself, the last query being aligned with the last key; a mask
        forbids more.

        A query that may see no key gets the output's bias. A key that `mask` hides from every query
        of its sequence may hold anything, NaN too, and reaches no output but, in self-attention,
        its own position's. The fused kernels have no second derivatives and no forward-mode ones:
        `attend` has, and so has this under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

        Raises:
            TypeError: an input is not floating-point, their dtypes differ, the mask is not boolean,
                the bias not floating-point, or is_causal neither True nor False.
            ValueError: a wrong number of axes or features, key and value of different length, or
                batches, a mask or a bias that do not fit.
        """
        query, key, value = self._inputs(query, key, value, is_causal)
        # Without a mask in memory the kernel skips the upper triangle, but it aligns the first
        # query with the first key. An `if`, since a compiler has to decide on sizes it may not
        # know: their equality as a value would not be a bool there.
        by_kernel = False
        if is_causal and mask is None and bias is None and query.shape[-2] == key.shape[-2]:
            by_kernel = True
        q, k, v, mask, bias = self._project(
            query, key, value, mask, bias, is_causal and not by_kernel
        )
        return self._fused(q, k, v, mask, bias, by_kernel, query.ndim)

    def attend(
        self,
        query: Float[Tensor, "*#batch i q"],
        key: Float[Tensor, "*#batch j k"] | None = None,
        value: Float[Tensor, "*#batch j v"] | None = None,
        *,
        mask: Bool[Tensor, "*_ #i #j"] | None = None,
        bias: Float[Tensor, "*_ #i #j"] | None = None,
        is_causal: bool = False,
    ) -> tuple[Float[Tensor, "*batch i e"], Float[Tensor, "*batch heads i j"]]:
        """Return what `forward` returns, and each head's weights, by the textbook formula.

        The arguments and errors are those of `forward`. The weights are (batch, heads, i, j),
        before dropout.
        """
        query, key, value = self._inputs(query, key, value, is_causal)
        q, k, v, mask, bias = self._project(query, key, value, mask, bias, is_causal)
        k, v = (_repeated(x, q.shape[1]) for x in (k, v))
        context, weights = attend(
            q, k, v, mask=mask, bias=bias, dropout_p=self.dropout if self.training else 0.0
        )
        output = self._merge(context, query.ndim)
        return output, weights if query.ndim == 3 else rearrange(weights, "1 h i j -> h i j")

    @torch.no_grad()
    def step(
        self,
        x: Float[Tensor, "*batch i e"],
        cache: KeyValueCache,
        *,
        mask: Bool[Tensor, "*_ #i #j"] | None = None,
        bias: Float[Tensor, "*_ #i #j"] | None = None,
    ) -> Float[Tensor, "*batch i e"]:
        """Return one vector per new token, (batch, i, embed_dim), and put their keys in the cache.

        x: (batch, i, embed_dim), or (i, embed_dim): the tokens that follow those in the cache, as a
        prompt of many and then one at a time. Each sees itself and all before it: all steps
        together give what `forward(x, is_causal=True)` gives for all tokens at once. Only the new
        ones are projected.

        `mask` and `bias` are those of `forward`, for i queries and cache.length + i keys, those in
        the cache first: for example alibi_bias(num_heads, i, cache.length + i)[None]. With
        `rotary`, the new tokens stand at cache.length, cache.length + 1, ...; keys are kept turned.

        For inference: no gradients are recorded; to train, call `forward`. torch.compile takes a
        cache from outside; vmap, torch.export and ONNX export do not, since it is no tensor, but
        they do take a function that makes its cache and runs all its steps.

        Raises:
            TypeError: x is not floating-point, cache is no KeyValueCache, the cache holds another
                dtype, the mask is not boolean, or the bias not floating-point.
            ValueError: a wrong number of axes or features, kdim or vdim other than embed_dim, a
                mask or a bias that do not fit, a full cache, or one begun with another batch, other
                heads or on another device. The cache is then left as it was.

        >>> attention, x = MultiHeadAttention(8, 2), torch.randn(3, 5, 8)
        >>> cache = KeyValueCache(max_length=5)
        >>> steps = [attention.step(part, cache) for part in x.split([3, 1, 1], dim=1)]
        >>> torch.allclose(torch.cat(steps, dim=1), attention(x, is_causal=True), atol=1e-6)
        True
        """
        check_inputs(x=x)
        if x.ndim not in (2, 3):
            raise ValueError(
                f"x has {x.ndim} axes, but needs 3 (batch, length, features) or 2 (length, "
                "features)"
            )
        for size in (self.embed_dim, self.kdim, self.vdim):
            check_features("x", x, size)
        if not isinstance(cache, KeyValueCache):
            raise TypeError(f"cache has type {type(cache).__name__}, but must be a KeyValueCache")
        q, k, v = (self._split(layer(x)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        batch, heads, new, _ = q.shape
        first, keys = cache.length, cache.length + new
        # The kernel aligns the first query with the first key, as it has to be where they are
        # equally many. An `if`, for the reason given in `forward`.
        by_kernel = False
        if first == 0 and mask is None and bias is None:
            by_kernel = True
        # A single new token is the last one and sees all: no mask is needed.
        is_causal = new > 1 and not by_kernel
        mask, bias = _mask_and_bias(mask, bias, is_causal, (batch, heads, new, keys), q.device)
        if self.rotary is not None:
            positions = torch.arange(first, keys, device=q.device)
            q, k = (self.rotary(turned, positions=positions) for turned in (q, k))
        k, v = cache.extend(k, v)
        if mask is not None:
            of_any_head = mask.any(dim=1, keepdim=True) if mask.ndim == 4 else mask
            k, v = seen(k, of_any_head), seen(v, of_any_head)
        bias = None if bias is None else bias.to(q.dtype)
        return self._fused(q, k, v, mask, bias, by_kernel, x.ndim)

    def extra_repr(self) -> str:
        """Say in `print(module)` what the projections do not show."""
        return f"{self.num_heads} heads, {self.num_kv_heads} of keys and values"

    def _inputs(
        self, query: Tensor, key: Tensor | None, value: Tensor | None, is_causal: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        key = query if key is None else key
        value = key if value is None else value
        check_inputs(query=query, key=key, value=value)
        check_flag("is_causal", is_causal)
        axes = (query.ndim, key.ndim, value.ndim)
        if axes not in ((2, 2, 2), (3, 3, 3)):
            raise ValueError(
                f"query, key and value have {axes} axes, but need 3 each (batch, length, features) "
                "or 2 each (length, features)"
            )
        check_features("query", query, self.embed_dim)
        check_features("key", key, self.kdim)
        check_features("value", value, self.vdim)
        if key.shape[-2] != value.shape[-2]:
            raise ValueError(
                f"there are {key.shape[-2]} keys but {value.shape[-2]} values: "
                "each key needs one value"
            )
        return query, key, value

    def _project(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        is_causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return q, k and v, a row of axes for each head, and what acts on their scores."""
        q = self._split(self.q_proj(query))
        (batch,) = torch.broadcast_shapes(q.shape[:1], key.shape[:-2] or (1,))
        shape = (batch, q.shape[1], q.shape[2], key.shape[-2])
        mask, bias = _mask_and_bias(mask, bias, is_causal, shape, q.device)
        if mask is not None:
            of_any_head = mask.any(dim=1) if mask.ndim == 4 else mask
            key, value = seen(key, of_any_head), seen(value, of_any_head)
        k, v = self._split(self.k_proj(key)), self._split(self.v_proj(value))
        if self.rotary is not None:
            queries, keys = q.shape[-2], k.shape[-2]
            if queries == keys:
                q = self.rotary(q)
            else:
                q = self.rotary(q, positions=torch.arange(keys - queries, keys, device=q.device))
            k = self.rotary(k)
        return q, k, v, mask, None if bias is None else bias.to(q.dtype)

    def _fused(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        is_causal: bool,
        axes: int,
    ) -> Tensor:
        # By PyTorch's documentation one kernel alone on a GPU, FlashAttention, lets heads share
        # keys, and it takes half types and no mask. (Its newer source lets others do so, too.) All
        # else may fall to the formula, which repeats the keys as well, and keeps every weight; with
        # keys repeated here, a kernel that keeps none runs.
        shared = self.num_kv_heads != self.num_heads
        by_flash = mask is None and bias is None and q.dtype in (torch.float16, torch.bfloat16)
        if shared and q.device.type != "cpu" and not by_flash:
            k, v, shared = _repeated(k, q.shape[1]), _repeated(v, q.shape[1]), False
        context = attend_fused(
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
            enable_gqa=shared,
        )
        return self._merge(context, axes)

    def _split(self, x: Tensor) -> Tensor:
        # By the width of a head, not by their number: tensor parallelism leaves a process with some
        # of the heads only.
        if x.ndim == 2:
            x = rearrange(x, "i features -> 1 i features")
        return rearrange(x, "batch i (heads d) -> batch heads i d", d=self.head_dim)

    def _merge(self, context: Tensor, axes: int) -> Tensor:
        output = self.out_proj(rearrange(context, "batch heads i d -> batch i (heads d)"))
        return output if axes == 3 else rearrange(output, "1 i e -> i e")


class KeyValueCache:
    """The keys and values of the tokens so far, which `MultiHeadAttention.step` reads and extends.

    A decoder asks for one more token again and again. The keys and values of those before do not
    change, so they are kept and not projected anew. One cache serves one layer and one batch of
    sequences; a model has one for each of its layers.

    The first step sets the memory aside for max_length tokens and every later one writes into it:

        bytes = 2 * batch * num_kv_heads * max_length * head_dim * bytes of a number

    Keys and values are kept by the heads of their own, before grouped queries share them: with
    num_kv_heads = num_heads / 8 they take an eighth. To go on from one prefix in several ways, copy
    it (`copy.deepcopy`).

    Attributes:
        length: how many tokens the cache holds.
        memory: keys and values, (2, batch, num_kv_heads, max_length, head_dim), of which the first
            `length` places of each head are filled; None before the first step.

    >>> cache = KeyValueCache(max_length=100)
    >>> output = MultiHeadAttention(64, 8, num_kv_heads=2).step(torch.randn(3, 5, 64), cache)
    >>> cache.length, cache.memory.nbytes, 2 * 3 * 2 * 100 * 8 * 4
    (5, 38400, 38400)
    """

    def __init__(self, max_length: int) -> None:
        """Make an empty cache.

        Args:
            max_length: how many tokens there is room for, those of the prompt included.

        Raises:
            TypeError: max_length is no whole number.
            ValueError: max_length is below 1.
        """
        check_size("max_length", max_length)
        self.max_length = max_length
        self.length = 0
        self.memory: Tensor | None = None

    def extend(
        self, keys: Float[Tensor, "batch kv i d"], values: Float[Tensor, "batch kv i d"]
    ) -> tuple[Float[Tensor, "batch kv j d"], Float[Tensor, "batch kv j d"]]:
        """Append the keys and values of i tokens and return all, views into the memory.

        Both are (batch, num_kv_heads, i, head_dim), and come back with j = length for i.

        Raises:
            TypeError: they are not floating-point, or of another dtype than those before.
            ValueError: they have not both the same four axes, do not all fit, or come in another
                batch, in other heads or on another device than those before.
        """
        check_inputs(keys=keys, values=values)
        if keys.ndim != 4 or keys.shape != values.shape:
            raise ValueError(
                f"keys of shape {tuple(keys.shape)} and values of shape {tuple(values.shape)} need "
                "the same 4 axes: (batch, heads, tokens, features)"
            )
        batch, heads, new, features = keys.shape
        length, memory = self.length + new, self.memory
        if length > self.max_length:
            raise ValueError(
                f"the cache holds {self.length} of max_length={self.max_length} tokens: "
                f"{new} more do not fit"
            )
        if memory is None:
            memory = keys.new_empty(2, batch, heads, self.max_length, features)
        if keys.dtype != memory.dtype:
            raise TypeError(f"the cache holds {memory.dtype}, but the new keys are {keys.dtype}")
        if keys.device != memory.device:
            raise ValueError(f"the cache is on {memory.device}, but the new keys on {keys.device}")
        if batch != memory.shape[1]:
            raise ValueError(
                f"the cache holds a batch of {memory.shape[1]}, but the new keys are one of {batch}"
            )
        if (heads, features) != (memory.shape[2], memory.shape[4]):
            raise ValueError(
                f"the cache holds {memory.shape[2]} heads of {memory.shape[4]} features, but the "
                f"new keys have {heads} of {features}: each layer needs a cache of its own"
            )
        memory[0, :, :, self.length : length] = keys
        memory[1, :, :, self.length : length] = values
        self.memory, self.length = memory, length
        keys, values = memory[:, :, :, :length]
        return keys, values


def _repeated(x: Tensor, heads: int) -> Tensor:
    """Return keys or values for `heads` heads: those of each head of their own, several times."""
    group = heads // x.shape[1]
    return repeat(x, "batch kv j d -> batch (kv group) j d", group=group)


def _mask_and_bias(
    mask: Tensor | None,
    bias: Tensor | None,
    is_causal: bool,
    shape: tuple[int, int, int, int],
    device: torch.device,
) -> tuple[Tensor | None, Tensor | None]:
    """Return both so that they broadcast to the scores; `is_causal` becomes a part of the mask."""
    if mask is not None:
        check_mask(mask, _scores_shape("mask", mask, shape))
    if bias is not None:
        check_bias(bias, _scores_shape("bias", bias, shape))
    mask, bias = (
        rearrange(term, "batch i j -> batch 1 i j") if term is not None and term.ndim == 3 else term
        for term in (mask, bias)
    )
    if is_causal:
        causal = causal_mask(*shape[-2:], device=device)
        mask = causal if mask is None else causal & mask
    return mask, bias


def _scores_shape(name: str, term: Tensor, shape: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Return the shape that a mask or bias has to broadcast to, told by its number of axes."""
    check_tensor(name, term)
    if term.ndim not in (2, 3, 4):
        raise ValueError(
            f"{name} has {term.ndim} axes, but needs 2 (queries, keys), 3 (batch, queries, keys) "
            "or 4 (batch, heads, queries, keys)"
        )
    if term.ndim != 3:
        return shape
    batch, _, queries, keys = shape
    if not fits(term.shape[:1], (batch,)):
        raise ValueError(
            f"{name} of shape {tuple(term.shape)} has 3 axes, (batch, queries, keys), but there "
            f"is a batch of {batch}; one for each head needs 4: (batch, heads, queries, keys)"
        )
    return batch, queries, keys


def _rename_pytorchs_parameters(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *arguments: Any
) -> None:
    """Before loading: give the parameters of an nn.MultiheadAttention the names they have here.

    PyTorch stacks W_q, W_k and W_v to one in_proj_weight where their inputs are equally wide, and
    their biases always. `load_state_dict` hands each module a copy of the caller's dictionary.
    """
    local_metadata, *_ = arguments
    assigned = local_metadata.get("assign_to_params_buffers", True)
    for kind in ("weight", "bias"):
        stacked = state_dict.pop(f"{prefix}in_proj_{kind}", None)
        if stacked is not None:
            for name, part in zip("qkv", stacked.tensor_split(3), strict=True):
                # Three views of one storage would each be saved as all of it, or refused.
                state_dict[f"{prefix}{name}_proj.{kind}"] = part.clone() if assigned else part
    for name in "qkv":
        weight = state_dict.pop(f"{prefix}{name}_proj_weight", None)
        if weight is not None:
            state_dict[f"{prefix}{name}_proj.weight"] = weight
    extra_key = state_dict.pop(f"{prefix}bias_k", None)
    extra_value = state_dict.pop(f"{prefix}bias_v", None)
    if extra_key is not None or extra_value is not None:
        *_, error_messages = arguments
        error_messages.append(
            f"{prefix}bias_k and {prefix}bias_v (add_bias_kv=True) cannot be loaded: "
            f"{type(module).__name__} has no learned extra key and value."
        )
