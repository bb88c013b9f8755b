"""The mask decoder's fast path for box prompts: the same weights, the same masks, about half the arithmetic.

A few tokens face 4096 image positions. SAM projects every position to 128 channels to compare them; here the
projections are folded into the token side instead, which is exact by associativity:

    (image W_k) q = image (W_k q)        and        P (image W_v) = (P image) W_v

so the products with the image are 8 heads x 7 tokens = 56 columns wide, no head is ever split off or transposed, and
nothing needs to be kept for a slice but its embedding. A bias of the keys adds the same number to all positions of a
softmax over positions, which cancels; a bias after a softmax passes through, because its weights sum to one.

The image stays (positions, channels), the layout in which each step is one matrix product; the two transposed
convolutions of kernel and stride 2 are products too. Only the mask token that is asked for is read off,
and of the last look at the image only it and the token of the predicted IoU have a use. Neither convolution sees beyond
its own position, so a mask that is wanted within a window alone is read off at the positions of that window.

A mask that prompts adds 16 features of each position to the image by one matrix. In the first layer, where objects
still share the image, they stay 16, and no object needs an image of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers import LayerNorm2d
from zoo.registry import EMBEDDING_SIZE
from zoo.sam.model import Sam
from zoo.sam.transformer import Attention, TwoWayAttentionBlock


@dataclass(frozen=True)
class PromptedImage:
    """An image, and what masks add to it: `image + features @ matrix`, (B, P, C), which is never written out.

    Attributes:
        image: (B or 1, P, C).
        features: (B, P, F) of masks; None where no mask prompts.
        matrix: (F, C).
        log_counts: (B, P, 1), logarithms of how many positions each stands for; None where each is one.
    """

    image: Tensor
    features: Tensor | None = None
    matrix: Tensor | None = None
    log_counts: Tensor | None = None

    def __add__(self, other: Tensor) -> PromptedImage:
        """The sum with (B or 1, P, C)."""
        return replace(self, image=self.image + other)

    def times(self, columns: Tensor) -> Tensor:
        """Its product with (B, C, K): (B, P, K)."""
        product = self.image @ columns
        if self.features is None or self.matrix is None:
            return product
        return product + self.features @ (self.matrix @ columns)

    def attention(self, columns: Tensor) -> Tensor:
        """How queries, as (B, C, K), share their attention among positions: (B, P, K)."""
        scores = self.times(columns)
        return torch.softmax(scores if self.log_counts is None else scores + self.log_counts, dim=1)

    def sums(self, weights: Tensor) -> Tensor:
        """Weighted sums over positions, by weights (B, P, K): (B, K, C)."""
        weights = weights.transpose(1, 2)
        summed = weights @ self.image
        if self.features is None or self.matrix is None:
            return summed
        return summed + (weights @ self.features) @ self.matrix

    def plus_product(self, weights: Tensor, values: Tensor) -> Tensor:
        """The sum, written out, with a product of weights (B, P, K) and values (B, K, C): (B, P, C)."""
        if self.features is None or self.matrix is None:
            return weights @ values + self.image
        matrix = self.matrix.expand(values.shape[0], -1, -1).to(values.dtype)
        weights = torch.cat([weights, self.features.to(weights.dtype)], dim=2)
        return weights @ torch.cat([values, matrix], dim=1) + self.image


class FastDecoder(nn.Module):
    """Prompt encoder and mask decoder for box prompts, with clicks and masks if need be, one mask a box.

    Shares the parameters of `sam`; equal to its plain decoder up to rounding, and as good to train with.

    Args:
        sam: whose prompt encoder and mask decoder it runs.
        side: of the embedding in positions; smaller than 64 when training on smaller images.
    """

    image_pe: Tensor

    def __init__(self, sam: Sam, side: int = EMBEDDING_SIZE) -> None:
        super().__init__()
        self.side = side
        self.prompt_encoder, self.decoder = sam.prompt_encoder, sam.mask_decoder
        self.register_buffer("image_pe", positions_first(sam.prompt_encoder.pe_layer.grid(side)[None].detach()))

    def forward(self, embedding: Tensor, boxes: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Masks of B boxes on one image, or on one image each.

        Args:
            embedding: (1 or B, 256, 64, 64).
            boxes: (B, 4) xyxy in the prompt frame.
            masks: as in `decode`.

        Returns:
            Low-resolution logits (B, 1, 256, 256) and predicted IoU (B, 1).
        """
        return self.decode(embedding, self.prompt_encoder.embed_boxes(boxes), masks)

    def decode(self, embedding: Tensor, prompts: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `forward`, of sparse prompt embeddings (B, T, 256), whatever they are of, and masks, if need be.

        Args:
            embedding: (1 or B, 256, side, side).
            prompts: (B, T, 256).
            masks: logits (B, 1, 4 * side, 4 * side) that prompt, too.
        """
        image, mask_token, iou = self._look(positions_first(embedding), prompts, masks)
        batch, side = image.shape[0], self.side
        logits = self._upscale(image.flatten(0, 1)).view(batch, side * side * 16, -1) @ mask_token[:, :, None]
        pixels = _in_rows(logits).view(batch, side, side, 4, 4)
        return pixels.transpose(2, 3).reshape(batch, 1, 4 * side, 4 * side), iou

    def at_positions(
        self, embedding: Tensor, boxes: Tensor, positions: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, of which only some positions of the embedding are wanted.

        Args:
            embedding: (1 or B, 4096, 256), see `positions_first`.
            boxes: (B, 4) xyxy in the prompt frame.
            positions: int64 (N,), counted through all rows of the first box's mask, then those of the next.
            masks: as in `decode`.

        Returns:
            The 4x4 low-resolution logits of each position (N, 4, 4), and predicted IoU (B, 1).
        """
        image, mask_token, iou = self._look(embedding, self.prompt_encoder.embed_boxes(boxes), masks)
        return self.pixels(image, mask_token, positions), iou

    def pixels(self, image: Tensor, mask_token: Tensor, places: Tensor) -> Tensor:
        """Pixels (N, 4, 4) by tokens (B, 32) at places (N,) of an image (B, P, 256), counted through all rows."""
        box = places // image.shape[1]
        return _in_rows(self._upscale(image.flatten(0, 1)[places]) @ mask_token[box][:, :, None])

    def _look(self, image: Tensor, prompts: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """As `answer`, of a whole image (1 or B, P, 256)."""
        features = None if masks is None else positions_first(self._features(masks))
        return self.answer(prompts, self.prompted(image, features), self.image_pe)

    def answer(self, prompts: Tensor, image: PromptedImage, image_pe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What prompts make of an image.

        Args:
            prompts: sparse embeddings (B, T, 256).
            image: of P positions.
            image_pe: (B or 1, P, 256), the encoding of its positions.

        Returns:
            The image (B, P, 256) as each prompt made it, the mask's token (B, 32) and predicted IoU (B, 1).
        """
        iou_and_mask, seen = self._attend(self._tokens(prompts), image, image_pe)
        iou = self.decoder.iou_prediction_head(iou_and_mask[:, 0])[:, :1]
        return seen, self.decoder.output_hypernetworks_mlps[0](iou_and_mask[:, 1]), iou

    def _features(self, masks: Tensor) -> Tensor:
        """Masks (B, 1, H, W) to the features of each position: (B, 16, H / 4, W / 4)."""
        for layer in self.prompt_encoder.mask_downscaling[:-1]:
            masks = layer(masks)
        return masks

    def prompted(self, image: Tensor, features: Tensor | None) -> PromptedImage:
        """An image (B or 1, P, 256) with what is added to it where masks of features (B, P, 16) prompt, or none."""
        if features is None:
            no_mask: Tensor = self.prompt_encoder.no_mask_embed.weight
            return PromptedImage(image + no_mask)
        last = self.prompt_encoder.mask_downscaling[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        return PromptedImage(image + last.bias, features, last.weight.flatten(1).T)

    def _tokens(self, prompts: Tensor) -> Tensor:
        """The decoder's own tokens and the prompts': (B, 5 + T, 256)."""
        own = torch.cat([self.decoder.iou_token.weight, self.decoder.mask_tokens.weight])
        return torch.cat([own.expand(prompts.shape[0], -1, -1), prompts], dim=1)

    def _attend(self, tokens: Tensor, image: PromptedImage, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """The two-way transformer: tokens (B, T, 256) and image (B, P, 256) to two of the tokens and the image."""
        transformer, token_pe = self.decoder.transformer, tokens
        layer: TwoWayAttentionBlock
        for layer in transformer.layers:  # type: ignore[assignment]
            if layer.is_first:
                tokens = layer.self_attn(tokens, tokens, tokens)
            else:
                queries = tokens + token_pe
                tokens = tokens + layer.self_attn(queries, queries, tokens)
            tokens = layer.norm1(tokens)
            keys = image + image_pe
            tokens = layer.norm2(
                tokens + _look_at_image(layer.cross_attn_token_to_image, tokens + token_pe, keys, image)
            )
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            told = _tell_image(layer.cross_attn_image_to_token, keys, tokens + token_pe, tokens, image)
            image = PromptedImage(layer.norm4(told), log_counts=image.log_counts)
        iou_and_mask = tokens[:, :2]
        queries = iou_and_mask + token_pe[:, :2]
        looked = _look_at_image(transformer.final_attn_token_to_image, queries, image + image_pe, image)
        return transformer.norm_final_attn(iou_and_mask + looked), image.image

    def _upscale(self, image: Tensor) -> Tensor:
        """Positions (N, 256) by two transposed convolutions to their 4x4 pixels (N, 16, 32), see `_in_rows`."""
        first: nn.ConvTranspose2d
        second: nn.ConvTranspose2d
        norm: LayerNorm2d
        first, norm, _, second, _ = self.decoder.output_upscaling  # type: ignore[assignment]
        x = _transposed_convolution(first, image)
        x = F.gelu(norm.of_last(x))
        x = F.gelu(_transposed_convolution(second, x.view(-1, first.out_channels)))
        return x.view(-1, 16, second.out_channels)


def _in_rows(logits: Tensor) -> Tensor:
    """Logits of each position's 16 pixels, by place in the first 2x2 and then in the second, to (N, 4, 4)."""
    return logits.view(-1, 2, 2, 2, 2).transpose(2, 3).reshape(-1, 4, 4)


def positions_first(image: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H*W, C), contiguous."""
    return image.permute(0, 2, 3, 1).flatten(1, 2).contiguous()


def _look_at_image(attention: Attention, queries: Tensor, keys: PromptedImage, image: PromptedImage) -> Tensor:
    """Tokens (B, T, C) attend to the image (B or 1, P, C), whose keys carry its positions: (B, T, C)."""
    heads = attention.heads
    depth = attention.q_proj.out_features // heads
    q = attention.q_proj(queries).unflatten(2, (heads, depth)) / math.sqrt(depth)
    folded = torch.einsum("bthd,hdc->bthc", q, _by_head(attention.k_proj.weight, heads)).flatten(1, 2)
    seen = image.sums(keys.attention(folded.transpose(1, 2))).unflatten(1, (-1, heads))
    mixed = torch.einsum("bthc,hdc->bthd", seen, _by_head(attention.v_proj.weight, heads)).flatten(2)
    return attention.out_proj(mixed + attention.v_proj.bias)


def _tell_image(
    attention: Attention, keys: PromptedImage, token_keys: Tensor, tokens: Tensor, image: PromptedImage
) -> Tensor:
    """The image (B or 1, P, C) attends to tokens (B, T, C) and adds what it gets to itself: (B, P, C)."""
    heads = attention.heads
    depth = attention.k_proj.out_features // heads
    k = attention.k_proj(token_keys).unflatten(2, (heads, depth)) / math.sqrt(depth)
    folded = torch.einsum("bthd,hdc->bthc", k, _by_head(attention.q_proj.weight, heads)).flatten(1, 2)
    offset = torch.einsum("bthd,hd->bth", k, _by_head(attention.q_proj.bias, heads)).flatten(1)
    scores = keys.times(folded.transpose(1, 2)) + offset[:, None]
    # Tokens before heads: the softmax over seven tokens then runs over a row of eight neighbours in memory.
    weights = torch.softmax(scores.unflatten(2, (-1, heads)), dim=2).flatten(2)
    v = attention.v_proj(tokens).unflatten(2, (heads, depth))
    told = torch.einsum("bthd,chd->bthc", v, attention.out_proj.weight.unflatten(1, (heads, depth)))
    # The weights of each head sum to one, so the output's bias may ride on the first head's values.
    told[:, :, 0] += attention.out_proj.bias
    return image.plus_product(weights, told.flatten(1, 2))


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """A projection's rows by head: (heads * depth, ...) to (heads, depth, ...)."""
    return weight.unflatten(0, (heads, -1))


def _transposed_convolution(convolution: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Kernel and stride 2 as a matrix product: (N, C) to (N, 4, C'), the four pixels of each position."""
    weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)
    assert convolution.bias is not None
    return torch.addmm(convolution.bias.repeat(4), x, weight).view(-1, 4, convolution.out_channels)
