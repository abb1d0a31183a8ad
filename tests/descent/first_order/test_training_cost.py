"""The cost model against what torch counts in a real step."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from descent.first_order.convolution_experiments import ConvolutionNet
from descent.first_order.cutoff_sampling import FixedCutoff
from descent.first_order.drop_muon import DropMuon
from descent.first_order.training_cost import counted_multiply_adds, layer_costs, step_cost


@pytest.mark.parametrize("cutoff", range(4))
def test_cost_model_is_what_a_step_runs(cutoff):
    net = ConvolutionNet((4, 6, 8), (1, 2, 2), 8, torch.Generator().manual_seed(0))
    optimiser = DropMuon(list(net.weights), FixedCutoff(4, cutoff))
    images, labels = torch.rand(1, 8, 8, 12), torch.arange(12) % 10

    def step():
        optimiser.sample_cutoff()
        cross_entropy(net(images), labels).backward()
        optimiser.step()

    assert counted_multiply_adds(step) == step_cost(net.macs, net.shapes, 12, cutoff)


def test_parts_add_up_to_the_cost_of_every_cutoff():
    macs, shapes = [9_216, 73_728, 73_728, 2_560], [(16, 9), (32, 144), (64, 288), (10, 256)]
    fixed, parts = layer_costs(macs, shapes, 256)
    for s in range(4):
        assert fixed + sum(parts[s:]) == step_cost(macs, shapes, 256, s)
    assert fixed == 256 * sum(macs)


def test_refusals():
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        step_cost([1, 1], [(1, 1), (1, 1)], 1, 2)
    with pytest.raises(ValueError, match="2 layers have multiply-adds, 1"):
        step_cost([1, 1], [(1, 1)], 1)
