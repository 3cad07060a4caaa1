"""fairseq's ``transformer_lm`` decoder, written anew in plain torch from its published description, to compare with.

Names of parameters, the order of operations and the numbering of positions are fairseq's; dropout and caches are not
needed here.
"""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

PAD = 1
ACTIVATIONS = {"relu": functional.relu, "gelu": functional.gelu, "tanh": torch.tanh}


def namespace(**changes: Any) -> Namespace:
    """Arguments as fairseq saves them, among others that matter to nobody."""
    told = {
        "arch": "transformer_lm", "task": "language_modeling", "decoder_layers": 2, "decoder_embed_dim": 16,
        "decoder_ffn_embed_dim": 24, "decoder_attention_heads": 4, "decoder_normalize_before": True,
        "decoder_learned_pos": True, "activation_fn": "relu", "no_scale_embedding": True, "dropout": 0.1,
        "attention_dropout": 0.0, "share_decoder_input_output_embed": True, "max_target_positions": 32, "lr": [0.0005],
        "vocabulary": 40,
    }  # fmt: skip
    return Namespace(**(told | changes))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        each = width // self.heads
        q, k, v = (
            part(x).view(batch, length, self.heads, each).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = (q * each**-0.5) @ k.transpose(2, 3)
        future = torch.full((length, length), -math.inf).triu(1)
        mixed = torch.softmax(scores + future, -1) @ v
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    def __init__(self, args: Namespace) -> None:
        super().__init__()
        width = args.decoder_embed_dim
        self.before, self.activation = args.decoder_normalize_before, ACTIVATIONS[args.activation_fn]
        self.self_attn = Attention(width, args.decoder_attention_heads)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, args.decoder_ffn_embed_dim)
        self.fc2 = nn.Linear(args.decoder_ffn_embed_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        for norm, block in ((self.self_attn_layer_norm, self.self_attn), (self.final_layer_norm, self._feed)):
            x = x + block(norm(x)) if self.before else norm(x + block(x))
        return x

    def _feed(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Decoder(nn.Module):
    def __init__(self, args: Namespace) -> None:
        super().__init__()
        width, self.args = args.decoder_embed_dim, args
        self.embed_tokens = nn.Embedding(args.vocabulary, width, PAD)
        if args.decoder_learned_pos:
            self.embed_positions: nn.Module = nn.Embedding(args.max_target_positions + PAD + 1, width, PAD)
        else:
            self.embed_positions = nn.Module()
            self.embed_positions.register_buffer("_float_tensor", torch.zeros(1))
        self.layers = nn.ModuleList(Layer(args) for _ in range(args.decoder_layers))
        if args.decoder_normalize_before:
            self.layer_norm = nn.LayerNorm(width)
        self.output_projection = nn.Linear(width, args.vocabulary, bias=False)
        if args.share_decoder_input_output_embed:
            self.output_projection.weight = self.embed_tokens.weight
        self.register_buffer("version", torch.tensor([3.0]))

    def forward(self, tokens: Tensor) -> Tensor:
        width = self.args.decoder_embed_dim
        places = torch.arange(tokens.shape[1]) + PAD + 1
        table = self.embed_positions(places) if self.args.decoder_learned_pos else sinusoid(places, width)
        x = self.embed_tokens(tokens) * (1 if self.args.no_scale_embedding else math.sqrt(width)) + table
        for layer in self.layers:
            x = layer(x)
        return self.output_projection(self.layer_norm(x) if self.args.decoder_normalize_before else x)


def sinusoid(places: Tensor, width: int) -> Tensor:
    half = width // 2
    rates = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = places[:, None] * rates[None]
    return torch.cat([torch.sin(angles), torch.cos(angles)], 1)


def make(args: Namespace, seed: int = 0) -> Decoder:
    """A decoder with random weights, its norms and biases too."""
    torch.manual_seed(seed)
    decoder = Decoder(args)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.copy_(torch.randn_like(weight) * 0.3)
    return decoder.eval()


def save(decoder: Decoder, path: Path, *, joined: bool = False, **changes: Any) -> None:
    """The file as fairseq's trainer writes it; with ``joined`` as before 0.9, with one table for three projections."""
    model = {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    if joined:
        for number in range(decoder.args.decoder_layers):
            for kind in ("weight", "bias"):
                stem = f"decoder.layers.{number}.self_attn"
                parts = [model.pop(f"{stem}.{part}_proj.{kind}") for part in "qkv"]
                model[f"{stem}.in_proj_{kind}"] = torch.cat(parts)
    saved = {
        "args": decoder.args, "model": model, "extra_state": {"epoch": 1},
        "optimizer_history": [{"optimizer_name": "FairseqAdam", "num_updates": 7}],
        "last_optimizer_state": {"state": {}, "param_groups": []},
    }  # fmt: skip
    torch.save(saved | changes, path)
