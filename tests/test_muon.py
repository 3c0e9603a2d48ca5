"""Muon: what its steps are, whatever the gradients."""

import pytest
import torch
from helpers import make_digits
from torch import nn

import main
from model import LeNet5
from support.muon import Muon, orthogonalize

CPU = torch.device("cpu")


@pytest.fixture
def batch():
    """(float32 [64, 1, 28, 28], int64 [64])."""
    images, labels = make_digits(64, seed=1)
    return torch.from_numpy(images).unsqueeze(1) / 255, torch.from_numpy(labels)


@pytest.mark.parametrize("shape", [(16, 150), (120, 84), (6, 1)])
def test_orthogonalize_keeps_directions_and_evens_out_how_strong_they_are(shape):
    torch.manual_seed(0)
    left, strengths, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.logspace(-2, -1, len(strengths)).diag() @ right  # 0.01 to 0.1
    inside = left.T @ orthogonalize(matrix) @ right.T
    evened = inside.diagonal()
    assert 0.6 < evened.min() <= evened.max() < 1.3
    torch.testing.assert_close(inside, evened.diag(), atol=1e-4, rtol=0)


def test_a_step_of_muon_does_not_depend_on_how_large_the_loss_is(batch):
    criterion = nn.CrossEntropyLoss()
    weights = []
    for scale in (1, 1000):
        torch.manual_seed(0)
        model = LeNet5()
        optimizer = Muon(model.parameters(), lr=0.02, momentum=0.9, weight_decay=0)
        main.train(model, [batch], CPU, lambda *args, s=scale: s * criterion(*args), optimizer)
        weights.append(model.fc1.weight.detach())
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


def test_momentum_of_muon_goes_on_where_the_gradient_has_ended():
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(4, 3))
    optimizer = Muon([parameter], lr=0.1, momentum=0.9, weight_decay=0)
    parameter.grad = torch.randn(4, 3)
    optimizer.step()
    first = parameter.detach().clone()
    parameter.grad = torch.zeros(4, 3)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), 2 * first)


def test_weight_decay_of_muon_pulls_towards_0_what_is_not_frozen():
    free, frozen = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    optimizer = Muon([free, frozen], lr=0.1, momentum=0.9, weight_decay=0.5)
    free.grad = torch.zeros(3, 2)
    optimizer.step()
    torch.testing.assert_close(free.detach(), torch.full((3, 2), 0.95))
    torch.testing.assert_close(frozen.detach(), torch.ones(3, 2))
