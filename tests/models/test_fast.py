"""The folded network and the fast one against the network that they were made of."""

import pytest
import torch
from torch import nn

from unpool.models import FCN, DeconvNet, fast
from unpool.models.fast import accelerate, fold

TABLES = [((1, 4), (2, 6)), ((2, 6), (1, 3), (2, 8))]


@pytest.fixture(params=[7, None], ids=["code", "no-code"])
def code(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request):
    if request.param == torch.bfloat16:
        request.getfixturevalue("bf16")
    return request.param


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("eps", [1e-9, 1e-2, 0.0])
@torch.no_grad()
def test_folding_changes_nothing_but_rounding(filled, table, code, eps, seed):
    net = filled(DeconvNet(4, table, code, 16, eps), seed)
    x = torch.randn(3, 3, 22, 19, generator=torch.Generator().manual_seed(seed))
    expected, got = net(x), fold(net)(x)
    assert expected.std() > 0.1
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))
    best = expected.topk(2, 1).values
    clear = best[:, 0] - best[:, 1] > 1e-4 * expected.std()
    assert clear.float().mean() > 0.99
    assert torch.equal(got.argmax(1)[clear], expected.argmax(1)[clear])


def test_deconvolutions_are_scaled_by_their_output_channels(filled):
    """By hand, where input and output channels are as many: the wrong axis would fit, too."""
    net = filled(DeconvNet(2, ((2, 5),), None, 16))
    deconv, norm = net.decoder[0][0], net.decoder[0][1]
    assert deconv.in_channels == deconv.out_channels
    weight = fold(net).decoder[0][0].weight
    for i in range(5):
        scale = norm.weight[i] / (norm.running_var[i] + 1e-9) ** 0.5
        assert torch.allclose(weight[:, i], deconv.weight[:, i] * scale)


def test_the_network_itself_stays_as_it_is(filled, code):
    for eps in (1e-9, None):
        net = filled(DeconvNet(4, TABLES[0], code, 16, eps)).train()
        before = {k: v.clone() for k, v in net.state_dict().items()}
        folded = fold(net)
        assert folded is not net
        assert net.training
        assert not folded.training
        with torch.no_grad():
            for parameter in folded.to(torch.bfloat16).parameters():
                parameter.zero_()
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
        assert all(p.dtype == torch.float32 for p in net.parameters())


def test_the_folded_network_is_a_network_without_batch_norm(filled, code):
    net = filled(DeconvNet(4, TABLES[0], code, 16))
    folded = fold(net)
    assert type(folded) is DeconvNet
    assert folded.arguments == {**net.arguments, "eps": None}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert not any(t.is_meta for t in folded.state_dict().values())
    filters = [p for p in folded.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)
    twice = fold(folded)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(twice(x), folded(x))


@pytest.mark.parametrize("learned", [False, True])
def test_an_fcn_has_nothing_to_fold(filled, code, learned):
    net = filled(FCN(4, ((1, 4), (2, 6)), code, 4, 1, 3, learned=learned)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    folded = fold(net)
    assert type(folded) is FCN
    assert net.training
    assert not folded.training
    assert folded.arguments == net.arguments
    assert [p.requires_grad for p in folded.parameters()] == [
        p.requires_grad for p in net.parameters()
    ]
    x = torch.randn(2, 3, 22, 19)
    with torch.no_grad():
        assert torch.allclose(folded(x), net.eval()(x), rtol=1e-4, atol=1e-6)
        for parameter in folded.parameters():
            parameter.zero_()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    filters = [p for p in folded.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)


def close(got, expected, unit=1e-4):
    return torch.allclose(got, expected, rtol=unit, atol=unit * float(expected.std()))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("eps", [1e-9, 1e-2, None])
@pytest.mark.parametrize("size", [(16, 16), (22, 19)])
def test_the_fast_form_changes_nothing_but_rounding(
    filled, monkeypatch, table, code, eps, size, fused
):
    """At the design size the code is a matrix product, above it a convolution."""
    net = filled(DeconvNet(4, table, code, 16, eps), 1)
    if not fused:
        monkeypatch.setattr(fast, "_fuses", lambda x: False)
    x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        quick = accelerate(net)
        for part in (x, x[:1], x.contiguous(memory_format=torch.channels_last)):
            expected, got = net(part), quick(part)
            assert expected.std() > 0.05
            assert close(got, expected)
    assert not any(isinstance(m, nn.BatchNorm2d | nn.ReLU) for m in quick.modules())
    assert not any(m.is_plain for m in quick.modules() if isinstance(m, fast.Fast))


@pytest.mark.parametrize("options", [{}, {"learned": True}, {"at_once": True}, {"pad": 10}])
def test_the_fast_form_of_an_fcn(filled, code, options):
    net = filled(FCN(4, ((1, 4), (2, 6)), code, 4, **{"pad": 1, "window": 3, **options}))
    x = torch.randn(2, 3, 22, 19)
    with torch.inference_mode():
        assert close(accelerate(net)(x), net(x))


def test_the_fast_form_works_with_gradients_switched_on(filled):
    net = filled(DeconvNet(4, TABLES[0], 7, 16))
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    accelerate(net)(x).sum().backward()
    got = x.grad.clone()
    x.grad = None
    net(x).sum().backward()
    assert close(got, x.grad)


def test_bfloat16_is_near_where_the_switches_stay(filled, bf16):
    """Without pooling ties to flip: one channel a stage, far from zero."""
    net = filled(DeconvNet(4, TABLES[0], None, 16))
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        quick = accelerate(net, torch.bfloat16)
        got, expected = quick(x.to(torch.bfloat16)), net(x)
    assert got.dtype == torch.float32  # of the last layer
    assert quick.score.weight.dtype == torch.float32
    assert {p.dtype for p in quick.decoder.parameters()} == {torch.bfloat16}
    assert (got - expected).abs().median() < 0.05 * expected.std()


def test_a_layer_that_goes_wrong_is_found_out(filled, monkeypatch):
    net = filled(DeconvNet(4, TABLES[0], 7, 16))
    x = torch.randn(2, 3, 16, 16)
    quick = accelerate(net)
    right = fast.Expansion.quick
    monkeypatch.setattr(fast.Expansion, "quick", lambda self, x: right(self, x) * 1.01)
    with torch.inference_mode():
        with pytest.warns(UserWarning, match="fast form of Expansion"):
            first = quick(x)
        again = quick(x)  # no second warning, which would be an error
        assert close(first, net(x))
        assert torch.equal(first, again)


def test_the_original_network_is_unchanged(filled, code, dtype):
    net = filled(DeconvNet(4, TABLES[0], code, 16)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    quick = accelerate(net, dtype)
    quick.to(torch.float64)
    assert net.training
    assert not quick.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in net.parameters())


def test_layers_without_a_fast_form_lose_their_batch_norm_only():
    stage = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)
    )
    for value in (stage[1].running_mean, stage[1].weight.data, stage[1].bias.data):
        nn.init.normal_(value)
    net = nn.ModuleDict({"stage": stage}).eval()
    x = torch.randn(2, 3, 11, 11)
    with torch.inference_mode():
        quick = accelerate(net)["stage"]
        assert [type(m) for m in quick] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
        assert close(quick(x), stage(x))


def test_a_network_can_be_used_up(filled, code, dtype):
    """It becomes its own fast form, with the same weights as that of a copy, to rounding."""
    net, other = (filled(DeconvNet(4, TABLES[0], code, 16)) for _ in range(2))
    used = accelerate(net, dtype, consume=True)
    assert used is net
    x = torch.randn(2, 3, 16, 16).to(dtype)
    with torch.inference_mode():
        assert close(used(x), accelerate(other, dtype)(x))
        assert torch.equal(accelerate(used, dtype)(x), used(x))  # nothing is left to do
    old = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d | nn.ConvTranspose2d)]
    assert not old


@pytest.mark.parametrize("consume", [False, True])
@pytest.mark.parametrize("broken", ["as_convolution", "_folded", "Reduction", "Expansion"])
def test_a_wrong_fast_form_is_found_and_left_out(filled, monkeypatch, broken, dtype, consume):
    """Filters that are not turned, a norm that is folded wrongly, weights laid out wrongly."""
    right = getattr(fast, broken)

    def wrong(*arguments, **options):
        if broken == "as_convolution":
            return right(*arguments).flip(2, 3)
        weight, bias = right(*arguments, **options)
        return 2 * weight, bias

    net = filled(DeconvNet(4, ((1, 4), (2, 6)), 7, 16))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = net(x)
        if broken in ("Reduction", "Expansion"):
            monkeypatch.setattr(right, "__init__", _laid_out_wrongly(right))
        else:
            monkeypatch.setattr(fast, broken, wrong)
        with pytest.warns(UserWarning, match="fast form of .* gives other values on this machine"):
            quick = accelerate(net, dtype, consume)
        found = quick(x.to(dtype)).float()
    if dtype == torch.float32:
        assert close(found, expected)
    else:  # rounding moves a switch here and there
        assert (found - expected).abs().mean() < 0.1 * expected.std()


def _laid_out_wrongly(kind):
    right = kind.__init__

    def wrong(self, weight, *others):
        right(self, weight.flip(2), *others)

    return wrong


@pytest.mark.parametrize("place", [(0, 0), (-1, -1)])
def test_a_layer_that_fails_at_its_first_image_goes_on_plain(filled, monkeypatch, place):
    """A library that is right on noise, and wrong at one place of larger maps."""
    net = filled(DeconvNet(4, ((1, 4), (2, 6)), None, 32))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    right = fast.Convolution.quick

    def quick(self, x):
        y = right(self, x)
        if x.shape[-1] > fast.CORNER:
            y[..., *place] += 10 * y.abs().amax() + 1
        return y

    with torch.inference_mode():
        expected, form = net(x), accelerate(net)
        monkeypatch.setattr(fast.Convolution, "quick", quick)
        with pytest.warns(UserWarning, match="gives other values on this machine"):
            assert close(form(x), expected)
        assert close(form(x), expected)
    assert any(m.is_plain for m in form.modules() if isinstance(m, fast.Fast))
