"""`Sam`: an image encoder with SAM's prompt encoder and mask decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE, EncoderSpec
from zoo.sam.mask_decoder import MaskDecoder
from zoo.sam.prompt_encoder import PromptEncoder
from zoo.sam.transformer import TwoWayTransformer

if TYPE_CHECKING:
    from zoo.weights import WeightsId


class Sam(nn.Module):
    """The three parts under the names of the published checkpoints. Predict with `SamPredictor`.

    Attributes:
        spec: of the image encoder.
        weights: which weights it holds; set by `create_sam`.
    """

    def __init__(self, image_encoder: nn.Module, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.weights: WeightsId | None = None
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(EMBEDDING_CHANNELS, EMBEDDING_SIZE, spec.prompt_frame)
        transformer = TwoWayTransformer(depth=2, width=EMBEDDING_CHANNELS, heads=8, hidden=2048)
        for norm in (module for module in transformer.modules() if isinstance(module, nn.LayerNorm)):
            norm.eps = spec.decoder_norm_eps
        self.mask_decoder = MaskDecoder(transformer, EMBEDDING_CHANNELS)

    @property
    def weights_name(self) -> str:
        """Of the weights that it holds, for messages."""
        return self.weights.name if self.weights else "unnamed weights"
