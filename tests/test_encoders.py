"""The contract of an encoder, over the whole registry."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compress.reparam import reparameterise
from zoo.encoders.repvit import SIZES, RepVggDepthwise, RepViTEncoder, SqueezeExcite
from zoo.errors import InputError
from zoo.layers import ConvBn
from zoo.registry import Cost, create_encoder, encoder_spec, list_encoders

#: 1024 px takes many seconds and gigabytes; where an encoder has a smaller form, the contract is tested on that.
TESTED_AS = {"vit_b": "vit_b@256", "sam_vit_b": "sam_vit_b@256"}
#: Minutes of convolution at 1024 px, or of a size that differs from its neighbours in numbers only.
SLOW = {
    "efficientvit_sam_l1",
    "efficientvit_sam_l2",
    "mobile_sam",
    "repvit_sam",
    "repvit_m1_1",
    "repvit_m1_5",
    "repvit_m2_3",
}
ENCODERS = [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in list_encoders()]


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(0)


def randomise_statistics(module: nn.Module) -> None:
    """BatchNorms as after training: with fresh statistics a fold that forgets one would go unseen."""
    generator = torch.Generator().manual_seed(0)
    for bn in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        assert bn.running_mean is not None
        assert bn.running_var is not None
        bn.running_mean.normal_(0, 0.2, generator=generator)
        bn.running_var.uniform_(0.5, 1.5, generator=generator)
        bn.weight.data.uniform_(0.7, 1.3, generator=generator)
        bn.bias.data.normal_(0, 0.2, generator=generator)


@pytest.mark.parametrize("name", ENCODERS)
def test_contract(name: str) -> None:
    tested = TESTED_AS.get(name, name)
    spec, encoder = encoder_spec(tested), create_encoder(tested)
    assert not encoder.training
    with torch.inference_mode():
        embedding = encoder(torch.rand(1, 3, spec.image_size, spec.image_size))
    assert embedding.shape == (1, 256, 64, 64)
    assert embedding.dtype == torch.float32
    assert embedding.isfinite().all()
    assert all((spec.title, spec.paper, spec.licence, spec.weights_from))


@pytest.mark.parametrize("name", list_encoders())
def test_reference_cost(name: str) -> None:
    """A change here is a change of architecture. Counted without memory, by the counter that watches operators."""
    spec = encoder_spec(name)
    with torch.device("meta"), torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        encoder = create_encoder(name)
        with FlopCounterMode(display=False) as counter:
            encoder(torch.zeros(1, 3, spec.image_size, spec.image_size))
    found = Cost(sum(p.numel() for p in encoder.parameters()) / 1e6, round(counter.get_total_flops() / 2e9, 4))
    assert spec.reference_cost is not None, f"expected in the spec: reference_cost={found}"
    assert found.params_m == pytest.approx(spec.reference_cost.params_m, abs=1e-9)
    assert found.gmacs == pytest.approx(spec.reference_cost.gmacs, abs=1e-3)


#: Multiply-adds as their authors give them. They leave out attention products, or count the neck apart: hence 10 %.
PUBLISHED_GMACS = {
    "repvit": 32.1,
    "tinyvit": 38.1,
    "efficientvit_sam_l0": 35.0,
    "efficientvit_sam_l1": 49.0,
    "efficientvit_sam_l2": 69.0,
}


@pytest.mark.parametrize("name", PUBLISHED_GMACS)
def test_cost_is_near_the_published_one(name: str) -> None:
    cost = encoder_spec(name).reference_cost
    assert cost is not None
    assert cost.gmacs == pytest.approx(PUBLISHED_GMACS[name], rel=0.1)


@pytest.mark.parametrize("name", ENCODERS)
def test_images_of_a_batch_do_not_mix(name: str) -> None:
    tested = TESTED_AS.get(name, name)
    encoder, size = create_encoder(tested), encoder_spec(tested).image_size
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images)[1:], encoder(images[1:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["repvit", "tinyvit", "repvit_sam", "edge_sam", "efficientvit_sam_l0", "light_repvit"])
def test_folding_changes_nothing(name: str) -> None:
    # In float64, where a deep encoder's own rounding does not hide a wrong fold or look like one.
    encoder = create_encoder(name).double()
    randomise_statistics(encoder)
    folded = reparameterise(encoder)
    # Some of the pixels show a wrong fold as well as all of them.
    size = min(encoder_spec(name).image_size, 256)
    image = torch.rand(1, 3, size, size, dtype=torch.float64)
    with torch.inference_mode():
        before, after = encoder(image), folded(image)
    assert (after - before).norm() / before.norm() <= 1e-12
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules()), "works on a copy"


def test_folding_refuses_training_mode() -> None:
    with pytest.raises(ValueError, match="eval mode"):
        reparameterise(create_encoder("repvit").train())


def test_folding_refuses_a_batchnorm_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="1 BatchNorms"):
        reparameterise(nn.Sequential(ConvBn(3, 4), nn.ReLU(), nn.BatchNorm2d(4)).eval())


def test_folded_depthwise_is_one_convolution() -> None:
    block = RepVggDepthwise(8).eval()
    randomise_statistics(block)
    folded = reparameterise(block)
    assert isinstance(folded, nn.Conv2d)
    image = torch.rand(1, 8, 9, 9)
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), block(image), rtol=1e-5, atol=1e-5)


def test_blocks_are_those_of_timm() -> None:
    """timm's RepViT is an independent implementation: equal stages, given equal weights."""
    theirs = timm.create_model("repvit_m1_0", num_classes=0).eval()
    randomise_statistics(theirs)
    ours = RepViTEncoder(SIZES["m1_0"]).eval()
    block = ours.features[1]
    source = theirs.stages[0].blocks[0]
    assert isinstance(block.token_mixer[1], SqueezeExcite)
    block.token_mixer[0].load_state_dict(source.token_mixer.state_dict())
    block.token_mixer[1].load_state_dict(source.se.state_dict())
    mixer = source.channel_mixer.state_dict()
    renamed = {k.replace("conv1.", "0.").replace("conv2.", "2."): v for k, v in mixer.items()}
    block.channel_mixer.m.load_state_dict(renamed)
    image = torch.randn(1, 56, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(block(image), source(image), rtol=1e-5, atol=1e-5)


def test_unknown_encoder_suggests_the_right_one() -> None:
    with pytest.raises(InputError, match="did you mean repvit"):
        create_encoder("repvitt")


def test_size_of_an_encoder_that_has_one() -> None:
    with pytest.raises(InputError, match="256 px, the only one"):
        encoder_spec("repvit@512")


@pytest.mark.parametrize(("name", "told"), [
    ("light_repvit@0", "0 px; expected 16 to 4096 px"),
    ("vit_b@8", "8 px; expected 16 to 4096 px"),
    ("light_repvit@99999", "99999 px; expected 16 to 4096 px"),
    ("vit_b@100", "100 px; expected a multiple of 16 px"),
    ("light_repvit@²", "NAME@SIZE with a size in pixels"),
])  # fmt: skip
def test_sizes_that_none_can_be_built_for(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        create_encoder(name)


def test_size_follows_the_name() -> None:
    assert encoder_spec("vit_b@256").prompt_frame == 256
    assert encoder_spec("vit_b@1024") == encoder_spec("vit_b")
