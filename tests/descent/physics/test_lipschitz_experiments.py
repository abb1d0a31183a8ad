"""Data and training of the experiments: labels, independence of replicates, learning."""

import numpy as np
import torch

from descent.physics.lipschitz_experiments import (
    monotone_score_data,
    nearest_leader_data,
    random_network,
    train_convolutional,
    train_replicates,
    undecided_as_active,
)


def test_every_point_has_the_label_of_its_nearest_leader():
    points, labels = nearest_leader_data(np.random.default_rng(0), 3, 200, 4)
    nearest = torch.cdist(points, points[:15]).argmin(1)
    assert torch.equal(labels, labels[nearest])
    assert set(labels.tolist()) <= set(range(4))


def test_the_score_has_the_signs_it_promises():
    points, labels = monotone_score_data(np.random.default_rng(1), 4000)
    slope = torch.linalg.lstsq(points - 0.5, labels.double() - labels.double().mean()).solution
    assert (slope[:2] > 0.2).all()
    assert slope[2] < -0.2
    assert (slope[4:].abs() < 0.1).all()


def test_replicates_do_not_touch_each_other_and_learn():
    data = [nearest_leader_data(np.random.default_rng(r), 2, 600, 3) for r in range(3)]

    def trained(first, second):
        return train_replicates(
            torch.stack([data[first][0], data[second][0]]),
            torch.stack([data[first][1], data[second][1]]),
            (24, 24, 3),
            torch.Generator().manual_seed(5),
            epochs=30,
            batch=50,
        )

    pair, other = trained(0, 1), trained(0, 2)
    for a, b in zip(pair[0].layers, other[0].layers, strict=True):
        torch.testing.assert_close(a.weight, b.weight, rtol=1e-4, atol=1e-5)
    assert (pair[1].layers[0].weight - other[1].layers[0].weight).abs().max() > 1e-2
    for network, (points, labels) in zip(pair, data, strict=False):
        assert (network(points).argmax(1) == labels).double().mean() > 0.7


def test_a_convolutional_network_learns_which_half_is_bright():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(400, 1, 6, 6, generator=generator, dtype=torch.float64)
    labels = (images[..., :3].sum((1, 2, 3)) > images[..., 3:].sum((1, 2, 3))).long()
    network = train_convolutional(images, labels, (4, 4), (8, 2), generator, epochs=80, batch=50)
    assert network.hidden_sizes == [64, 16, 8]
    assert network.layers[0].bias.dtype == torch.float64
    assert (network(images.flatten(1)).argmax(1) == labels).double().mean() > 0.85


def test_random_networks_and_the_unsound_states():
    network = random_network(torch.Generator().manual_seed(0), (4, 300, 2))
    assert abs(float(network.layers[0].weight.std()) - 2**-0.5) < 0.05
    states = [torch.tensor([[0, 1, 2]], dtype=torch.int8)]
    assert undecided_as_active(states)[0].tolist() == [[0, 1, 1]]
    assert states[0].tolist() == [[0, 1, 2]]
