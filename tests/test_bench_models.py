"""Benchmarks of encoders and decoders: run once by `make test`, timed by `make bench`, compared by nobody's clock."""

from __future__ import annotations

import pytest
from conftest import filled_sam
from pytest_benchmark.fixture import BenchmarkFixture

from bench.latency import decoder_input, encoder_input
from compress.reparam import reparameterise
from zoo.backends import Backend, create_backend
from zoo.sam.model import Sam

pytestmark = pytest.mark.bench


def backend_of(encoder: str, layout: str) -> Backend:
    """The encoder as `bench` runs it by default: folded."""
    trained = filled_sam(encoder, layout)
    sam = Sam(reparameterise(trained.image_encoder), trained.spec).eval()
    sam.prompt_encoder, sam.mask_decoder = trained.prompt_encoder, trained.mask_decoder
    return create_backend("torch", sam)


@pytest.mark.benchmark(group="encoder")
@pytest.mark.parametrize(("encoder", "layout"), [("repvit", "rep_medsam"), ("tinyvit", "lite_medsam")])
def test_encoder(benchmark: BenchmarkFixture, encoder: str, layout: str) -> None:
    backend = backend_of(encoder, layout)
    embedding = benchmark(backend.encode, encoder_input(backend))
    assert embedding.shape == (1, 256, 64, 64)


@pytest.mark.benchmark(group="decoder, one box")
@pytest.mark.parametrize("path", ["plain", "fast"])
def test_decoder(benchmark: BenchmarkFixture, light_backend: Backend, path: str) -> None:
    embedding, prompts = decoder_input(light_backend)
    assert prompts.boxes is not None
    if path == "plain":
        logits, _ = benchmark(light_backend.decode, embedding, prompts)
    else:
        logits, _ = benchmark(light_backend.decode_boxes, embedding, prompts.boxes)
    assert logits.shape == (1, 1, 256, 256)
