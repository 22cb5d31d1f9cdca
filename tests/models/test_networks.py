"""The network keeps magnitudes, works in two and three dimensions, and has the published size."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from totalgen.models.networks import (
    CONVOLUTIONS,
    Block,
    MPLayer,
    UNet,
    as_reference,
    cost,
    double,
    halve,
    mp_cat,
    mp_layers,
    mp_silu,
    mp_sum,
    pixel_norm,
    unit_norm,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def rms(x):
    return float(x.detach().double().square().mean().sqrt())


def test_the_paper_network_has_80_7_million_parameters_and_2872_gflop():
    parameters, flop = cost(dict(in_channels=2 + 4, out_channels=2), (56, 56, 96))
    assert round(parameters / 1e6, 1) == 80.7  # stated in the issue
    assert round(flop / 1e9) == 2872  # method.md, section 4


def test_a_lean_decoder_has_no_wide_block_at_full_resolution():
    """Counted by hand for two levels of 8 and 24 channels: multiply and add for every weight and voxel."""
    settings = dict(in_channels=3, out_channels=2, channels=8, multipliers=(1, 3), blocks=1, attention=())
    kept, lean = (cost(settings | dict(lean=lean), (8, 8, 8)) for lean in (False, True))
    edm2 = 27 * (24 * 24 + 24 * 24) + 27 * (24 + 8) * 8 + (24 + 8) * 8  # doubling block, first convolution behind it
    ours = 27 * (24 * 8 + 8 * 8) + 24 * 8 + 27 * (8 + 8) * 8 + (8 + 8) * 8
    embedding = 24 * (24 - 8)  # of the doubling block
    assert kept[0] - lean[0] == edm2 - ours + embedding
    assert kept[1] - lean[1] == 2 * (8**3 * (edm2 - ours) + embedding)


@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 3), (1, 1, 1), (3, 3, 3)])
def test_a_layer_keeps_unit_variance(kernel):
    layer = MPLayer(48, 256, kernel)
    x = torch.randn(64 if not kernel else 4, 48, *[12] * len(kernel))
    inner = (slice(None), slice(None), *[slice(1, -1)] * len(kernel))  # zero padding lowers the values at the border
    assert rms(layer(x)[inner]) == pytest.approx(1, abs=0.05)


def test_elementwise_operations_keep_unit_variance():
    a, b = torch.randn(2, 40, 8, 8, 8), torch.randn(2, 24, 8, 8, 8)
    assert rms(mp_silu(a)) == pytest.approx(1, abs=0.05)
    assert rms(mp_sum(a, torch.randn_like(a), 0.3)) == pytest.approx(1, abs=0.05)
    joined = mp_cat(a, b)
    assert rms(joined) == pytest.approx(1, abs=0.05)
    parts = joined[:, :40].square().sum(), joined[:, 40:].square().sum()
    assert float(parts[0] / parts[1]) == pytest.approx(1, abs=0.1)  # both contribute equally


def test_pixel_norm_and_unit_norm_give_exactly_unit_magnitude():
    x = 7 * torch.randn(2, 30, 4, 4, 4)
    assert torch.allclose(pixel_norm(x).square().mean(1), torch.ones(2, 4, 4, 4), atol=1e-3)
    weight = unit_norm(0.01 + torch.rand(5, 6, 3, 3, 3))
    assert torch.allclose(weight.flatten(1).square().mean(1), torch.ones(5), atol=1e-2)


def test_double_undoes_halve_on_blocks():
    x = torch.randn(1, 2, 4, 6, 8)
    twos, size = (2, 2, 2), [2 * n for n in x.shape[2:]]
    assert torch.allclose(halve(double(x, twos, size), twos), x, atol=1e-6)
    assert torch.allclose(halve(x, twos)[0, 0, 0, 0, 0], x[0, 0, :2, :2, :2].mean())


def test_attention_equals_its_definition():
    block = Block(64, 64, embedding=8, dims=3, decoder=False, attention=True)
    qkv = torch.randn(2, 3 * 64, 3, 2, 4)
    query, key, value = (pixel_norm(part.flatten(2)) for part in qkv.split(64, dim=1))  # one head of 64 channels
    weight = torch.softmax(torch.einsum("bcq,bck->bqk", query, key) / 8, dim=2)
    expected = torch.einsum("bqk,bck->bcq", weight, value).reshape(2, 64, 3, 2, 4)
    assert torch.allclose(block._attend(qkv), expected, atol=1e-5)


@pytest.mark.parametrize("space", [(8, 8), (8, 4, 12)])
def test_dimension_is_an_argument(space):
    network = UNet(3, 2, channels=8, multipliers=(1, 2), blocks=1, attention=(1,), dims=len(space))
    network.out_gain.data.fill_(1)
    assert network(torch.randn(2, 3, *space), torch.zeros(2)).shape == (2, 2, *space)


def test_the_output_is_zero_before_training_and_of_unit_order_with_unit_gain():
    network = UNet(3, 2, channels=16, multipliers=(1, 2), blocks=2, attention=(1,))
    x = torch.randn(2, 3, 8, 8, 8)
    assert torch.equal(network(x, torch.zeros(2)), torch.zeros(2, 2, 8, 8, 8))
    network.out_gain.data.fill_(1)
    assert 0.5 < rms(network(x, torch.zeros(2))) < 2  # the change through the complete network is small


@pytest.fixture(scope="module", params=[False, True], ids=["edm2", "lean"])
def paper_network(request):
    """The paper's network at initialisation, its output switched on; and the same with a lean decoder."""
    torch.manual_seed(0)
    network = UNet(in_channels=2 + 4, out_channels=2, lean=request.param)
    network.out_gain.data.fill_(1)
    return network


def test_every_layer_of_the_paper_network_keeps_unit_magnitude(paper_network):
    """Each one alone, on unit Gaussian input: output RMS 1 ± 0.05, without the borders."""
    random = torch.Generator().manual_seed(1)  # not the seed of the weights: they would not be independent
    with torch.no_grad():
        for name, layer in paper_network.named_modules():
            if isinstance(layer, MPLayer):
                kernel = layer.weight.shape[2:]
                shape = (256 if not kernel else 1, layer.weight.shape[1], *[10] * len(kernel))
                x = torch.randn(shape, generator=random)
                inner = (slice(None), slice(None), *[slice(1, -1)] * len(kernel))
                assert rms(layer(x)[inner]) == pytest.approx(1, abs=0.05), name


def test_magnitudes_change_little_through_the_complete_paper_network(paper_network):
    seen = {}
    hooks = [
        block.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: rms(output)}))
        for name, block in paper_network.named_modules() if isinstance(block, Block)
    ]  # fmt: skip
    with torch.no_grad():
        seen["output"] = rms(paper_network(torch.randn(1, 6, 16, 16, 16), torch.randn(1)))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 37 - 1 + 1  # 15 blocks down, 2 in the middle, 19 up, and the output
    assert min(seen.values()) > 0.75  # sums of branches that are not quite independent lose a little
    assert max(seen.values()) < 1.1


def test_an_axis_that_cannot_be_halved_is_refused_by_name():
    network = UNet(3, 2, channels=8, multipliers=(1, 2, 2), blocks=1, attention=())
    with pytest.raises(ValueError, match=r"divisible by \(4, 4, 4\); got \(8, 8, 6\)"):
        network(torch.randn(1, 3, 8, 8, 6), torch.zeros(1))


@pytest.mark.parametrize("space", [(1, 1, 1), (5, 7, 9), (8, 6, 3), (33, 2, 17)])
def test_any_shape_comes_back_to_its_own_size_and_even_ones_are_untouched(space):
    torch.manual_seed(0)
    settings = dict(channels=8, multipliers=(1, 2, 2), blocks=1, attention=(2,))
    network, plain = UNet(3, 2, **settings, any_shape=True), UNet(3, 2, **settings)
    plain.load_state_dict(network.state_dict())
    for each in (network, plain):
        each.out_gain.data.fill_(1)
    x = torch.randn(1, 3, *space)
    assert network(x, torch.zeros(1)).shape == (1, 2, *space)
    even = torch.randn(1, 3, 8, 4, 12)
    assert torch.equal(network(even, torch.zeros(1)), plain(even, torch.zeros(1)))


def test_an_axis_that_is_not_halved_may_have_any_length():
    """Slices stay apart from level to level: the published denoiser halves in the plane only."""
    network = UNet(3, 2, channels=8, multipliers=(1, 2, 2), blocks=1, attention=(), strides=(2, 2, 1))
    assert network.stride == (4, 4, 1)
    assert network(torch.randn(1, 3, 8, 8, 5), torch.zeros(1)).shape == (1, 2, 8, 8, 5)
    x = torch.randn(1, 2, 5, 4, 3)
    small = halve(x, (2, 2, 1))
    assert small.shape == (1, 2, 3, 2, 3)
    assert torch.allclose(small[0, 0, 2, 0], x[0, 0, 4, :2].mean(0))  # the last slice counts alone
    assert double(small, (2, 2, 1), (5, 4, 3)).shape == x.shape


def small(**changes):
    """A network with all its parts switched on."""
    torch.manual_seed(0)
    network = UNet(3, 2, **(dict(channels=16, multipliers=(1, 2), blocks=1, attention=(1,)) | changes))
    for name, parameter in network.named_parameters():
        if name.endswith("gain"):
            parameter.data.fill_(1)
    return network


def output_and_gradients(network):
    """Of a fixed input, every parameter's gradient."""
    y = network(torch.linspace(-1, 1, 3 * 16**3).reshape(1, 3, 16, 16, 16), torch.tensor([0.3]))
    y.square().mean().backward()
    return y.detach(), [parameter.grad for parameter in network.parameters()]


def test_the_reference_build_is_the_same_network():
    ours, gradients = output_and_gradients(small())
    plain, plain_gradients = output_and_gradients(as_reference(small()))
    assert torch.allclose(ours, plain, atol=1e-5)
    for one, other in zip(gradients, plain_gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5 * float(other.abs().max()) + 1e-7)
    assert plain.is_contiguous()


@pytest.mark.parametrize("plain", [False, True])
def test_the_network_stays_channels_last_throughout(plain):
    """Every convolution of 3³ gets its fastest format; the reference build gets contiguous tensors."""
    network = as_reference(small(channels=32)) if plain else small(channels=32)
    wrong = []
    wanted = torch.contiguous_format if plain else torch.channels_last_3d

    def check(name, inputs):
        if not inputs[0].is_contiguous(memory_format=wanted):
            wrong.append(name)

    for name, layer in network.named_modules():
        if isinstance(layer, MPLayer) and layer.weight.shape[2:] == (3, 3, 3):
            layer.register_forward_pre_hook(lambda _, inputs, name=name: check(name, inputs))
    with torch.no_grad():
        network(torch.randn(2, 3, 24, 24, 24), torch.zeros(2))
    assert not wrong


class Watch(TorchDispatchMode):
    """Counts convolutions and SiLUs, and remembers the largest tensor that an operation returned."""

    convolutions, silus, largest = 0, 0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.convolutions += operation in CONVOLUTIONS
        self.silus += operation is torch.ops.aten.silu.default
        for tensor in result if isinstance(result, tuple) else (result,):
            self.largest = max(self.largest, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return result


@pytest.mark.parametrize(("recompute", "twice"), [("pointwise", False), ("blocks", True)])
def test_recomputing_changes_no_gradient_and_stores_less(recompute, twice):
    kept, watches, results = [], [], []
    for how in (None, recompute):
        network, storages = small(blocks=3), {}
        network.recompute = how

        def keep(x, storages=storages):
            storages[x.untyped_storage().data_ptr()] = x  # kept alive, so that no address is used twice
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), Watch() as watch:
            results.append(output_and_gradients(network))
        kept.append(sum(x.untyped_storage().nbytes() for x in storages.values()))
        watches.append(watch)
    (y, gradients), (y_again, gradients_again) = results
    assert torch.equal(y, y_again)
    assert all(torch.equal(a, b) for a, b in zip(gradients, gradients_again, strict=True))
    assert kept[1] < kept[0] / 2  # without the outputs of convolutions, which "pointwise" stores elsewhere
    once, again = watches
    assert (again.convolutions > once.convolutions) == twice
    assert again.silus > 1.9 * once.silus  # all but the embedding's


def test_attention_never_stores_a_matrix_of_all_pairs():
    """9 408 tokens: the lowest resolution of a slab of 224×224×96."""
    block = Block(64, 64, embedding=8, dims=3, decoder=False, attention=True)
    qkv = torch.randn(1, 3 * 64, 28, 28, 12)
    with torch.no_grad(), Watch() as watch:
        block._attend(qkv)
    assert watch.largest <= qkv.numel()  # 9 408 tokens × 192, not 9 408²


def test_folding_does_not_change_the_output():
    network = UNet(3, 2, channels=8, multipliers=(1, 2), blocks=1, attention=(1,))
    network.out_gain.data.fill_(1)
    for layer in mp_layers(network):
        layer.weight.data.mul_(1.7)  # an average of unit-norm weights has another norm
    x, c = torch.randn(1, 3, 4, 4, 8), torch.tensor([0.3])
    before = network(x, c)
    for layer in mp_layers(network):
        layer.fold_()
    assert torch.allclose(network(x, c), before, atol=1e-5)


def test_gradients_are_orthogonal_to_the_weights():
    layer = MPLayer(6, 4, (3, 3, 3))
    layer(torch.randn(2, 6, 5, 5, 5)).square().sum().backward()
    radial = (layer.weight.grad * layer.weight).flatten(1).sum(1)
    assert float(radial.detach().abs().max()) < 1e-3 * float(layer.weight.grad.norm())


@pytest.mark.parametrize("space", [(2, 5, 3), (2, 2, 2), (1, 4, 4), (3, 2, 2), (4, 4, 4)])
def test_gradients_in_bfloat16_are_those_in_float32(space):
    """Of 2 voxels along the first axis, torch's own read memory that nothing was written to."""
    x, layer = torch.randn(2, 16, *space), MPLayer(16, 32, (3, 3, 3))
    gradients = []
    for precision in ("float32", "bfloat16"):
        poison = [torch.full((n,), math.nan) for n in (64, 512, 4096, 32768)]
        del poison  # freed memory holds it
        layer.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            made = layer(x)
        made.float().square().mean().backward()
        gradients.append(layer.weight.grad.clone())
    assert torch.allclose(*gradients, atol=0.02 * float(gradients[0].abs().max()))
