"""The bigram language: sampling, losses, curvature and noise against autograd and enumeration."""

import math

import pytest
import torch

from descent.stability.bigram_language import (
    BigramLanguage,
    curvature_trace,
    dirichlet_language,
    entropies,
    excess_losses,
    gradient_noise_trace,
    train_table,
    two_class_language,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small():
    return dirichlet_language(4, 5, (-1.0, 0.5), generator(1))


def test_samples_follow_frequencies_and_probabilities():
    language = two_class_language(3, 2, 4, generator())
    contexts, tokens = language.sample((200_000,), generator(1))
    shares = torch.bincount(contexts, minlength=5) / 200_000
    torch.testing.assert_close(shares.double(), language.frequencies, atol=5e-3, rtol=0)
    for j in range(5):
        found = torch.bincount(tokens[contexts == j], minlength=4).double()
        torch.testing.assert_close(
            found / found.sum(), language.probabilities[j], atol=0.01, rtol=0
        )


def test_excess_is_zero_at_the_truth_and_the_kl_divergence_elsewhere():
    language = small()
    deterministic, uncertain = excess_losses(language.probabilities.log(), language)
    assert float(deterministic) == 0
    assert abs(float(uncertain)) < 1e-12
    flat = excess_losses(torch.zeros(4, 5).double(), language)[1]
    expected = (language.frequencies * (math.log(5) - entropies(language))).sum()
    torch.testing.assert_close(flat, expected)


def test_curvature_is_the_trace_of_the_hessian():
    logits = torch.randn(6, generator=generator(2), dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda w: torch.logsumexp(w, 0) - w[2], logits)
    torch.testing.assert_close(curvature_trace(logits[None])[0], hessian.trace())


def test_noise_trace_is_that_of_enumerated_samples():
    language = small()
    logits = torch.randn(4, 5, generator=generator(3), dtype=torch.float64)
    model = torch.softmax(logits, 1)
    found = gradient_noise_trace(logits, language)
    for j in range(4):
        # the gradient of row j: p - e_y with probability f q, 0 otherwise
        samples = model[j] - torch.eye(5, dtype=torch.float64)
        chance = language.frequencies[j] * language.probabilities[j]
        mean = chance @ samples
        second = (chance * samples.square().sum(1)).sum()
        torch.testing.assert_close(found[j], second - mean.square().sum())


def test_training_is_sgd_on_the_sampled_cross_entropy():
    language, rates = small(), torch.tensor([[0.5, 0.2, 0.1]], dtype=torch.float64)
    _, _, kept = train_table(language, rates, 7, [generator(4)], [3], keep=(3,))
    contexts, tokens = language.sample((3, 7), generator(4))
    table = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([table], lr=1.0)
    for t in range(3):
        optimiser.param_groups[0]["lr"] = float(rates[0, t])
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(table[contexts[t]], tokens[t]).backward()
        optimiser.step()
    torch.testing.assert_close(kept[3][0, 0], table.detach())


def test_schedules_of_a_seed_share_samples_and_seeds_do_not():
    rates = torch.full((2, 30), 0.5, dtype=torch.float64)
    _, losses, _ = train_table(small(), rates, 4, [generator(5), generator(6)], [0, 30])
    assert losses.shape == (2, 2, 2)
    assert torch.equal(losses[0], losses[1])
    assert losses[0, 0, 1] != losses[0, 1, 1]


def test_two_kinds_of_context_weigh_one_half_each():
    language = two_class_language(10, 2, 6, generator())
    assert float(language.frequencies[language.uncertain].sum()) == pytest.approx(0.5)
    deterministic, uncertain = excess_losses(torch.zeros(12, 6).double(), language)
    assert float(deterministic) == pytest.approx(math.log(6) / 2)
    assert abs(float(uncertain)) < 1e-12


def test_wrong_probabilities_are_told():
    good = small()
    with pytest.raises(ValueError, match="frequencies must sum to 1"):
        BigramLanguage(good.frequencies * 2, good.probabilities, good.uncertain)
    with pytest.raises(ValueError, match="every row"):
        BigramLanguage(good.frequencies, good.probabilities * 2, good.uncertain)
