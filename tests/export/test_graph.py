"""Traced graphs compute what the network does, and leave it unchanged."""

import torch

from unpool.export.graph import least_side, trace
from unpool.models import FCN, DeconvNet
from unpool.models.weights import fixed_side

TABLE = ((1, 4), (1, 6))


def test_sizes():
    assert fixed_side(DeconvNet(2, TABLE, 4, 40)) == 40
    assert fixed_side(DeconvNet(2, TABLE, None, 40)) is None
    assert fixed_side(FCN(2, (*TABLE, (1, 4)), 4, 4)) is None
    assert least_side(DeconvNet(2, TABLE, None, 40)) == 4


@torch.no_grad()
def test_the_network_stays_as_it_is(filled):
    net = filled(DeconvNet(3, TABLE, 5, 32))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.randn(1, 3, 32, 32)
    y = net(x)
    program = trace(net)
    assert net.trunk.form == "flat"
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net(x), y)
    assert not any("stack_trace" in node.meta for node in program.graph.nodes)


@torch.no_grad()
def test_a_saved_program_computes_what_the_network_does(filled, tmp_path):
    net = filled(DeconvNet(3, TABLE[:1], None, 32))
    torch.export.save(trace(net), tmp_path / "net.pt2")
    run = torch.export.load(tmp_path / "net.pt2").module(check_guards=False)
    for shape in [(1, 3, 2, 2), (2, 3, 35, 21), (1, 3, 64, 9)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 50
        assert (run(x).argmax(1) == net(x).argmax(1)).float().mean() > 0.995
