"""The folded network against the network that it was made of."""

import pytest
import torch
from torch import nn

from unpool.models import FCN, DeconvNet
from unpool.models.fast import bf16_pays, fold

TABLES = [((1, 4), (2, 6)), ((2, 6), (1, 3), (2, 8))]


@pytest.fixture(params=[7, None], ids=["code", "no-code"])
def code(request):
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


def test_whether_bfloat16_pays_is_known_of_every_device():
    assert isinstance(bf16_pays(torch.device("cpu")), bool)
    if torch.cuda.is_available():
        assert isinstance(bf16_pays(torch.device("cuda")), bool)
