"""Muon: what its steps are, whatever the gradients."""

import pytest
import torch
from torch import nn

from support.muon import Muon, orthogonalize


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("shape", [(16, 150), (120, 84), (6, 1)])
def test_orthogonalize_keeps_directions_and_evens_out_how_strong_they_are(shape):
    torch.manual_seed(0)
    left, strengths, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.logspace(-2, -1, len(strengths)).diag() @ right  # 0.01 to 0.1
    inside = left.T @ orthogonalize(matrix) @ right.T
    evened = inside.diagonal()
    assert 0.6 < evened.min() <= evened.max() < 1.3
    torch.testing.assert_close(inside, evened.diag())


def polynomial_of_singular_values(matrix):
    """What five steps of Newton-Schulz do, on the singular values instead of on the matrix."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / (values.square().sum().sqrt() + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ values.diag() @ right


def plain_muon(parameter, gradients, lr, momentum, weight_decay):
    """The weights after each step of Muon (Jordan et al. 2024), one matrix."""
    average = torch.zeros_like(parameter).flatten(1)
    for gradient in gradients:
        gradient = gradient.flatten(1)
        average = momentum * average + (1 - momentum) * gradient
        update = polynomial_of_singular_values((1 - momentum) * gradient + momentum * average)
        rows, columns = update.shape
        if rows > columns:
            update = update * (rows / columns) ** 0.5
        step = lr * (weight_decay * parameter + update.view_as(parameter))
        parameter = parameter - step
        yield parameter


@pytest.mark.parametrize("shape", [(10, 84), (84, 10), (12, 12), (16, 6, 5, 5), (10,)])
def test_each_step_of_muon_is_that_of_its_definition(shape):
    torch.manual_seed(0)
    start, *gradients = torch.randn(5, *shape)
    columns = (-1,) if len(shape) > 1 else (-1, 1)  # a bias is one column
    settings = {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.5}
    expected = plain_muon(
        start.reshape(shape[0], *columns),
        [gradient.reshape(shape[0], *columns) for gradient in gradients],
        **settings,
    )
    parameter = nn.Parameter(start.clone())
    optimizer = Muon([parameter], **settings)
    for gradient, after in zip(gradients, expected, strict=True):
        parameter.grad = gradient
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), after.view(shape))


def test_each_group_of_parameters_has_its_own_settings():
    slow, fast = nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(3, 2))
    groups = [{"params": [slow]}, {"params": [fast], "lr": 0.4}]
    optimizer = Muon(groups, lr=0.1, momentum=0.9, weight_decay=0.0)
    for parameter in (slow, fast):
        parameter.grad = torch.eye(3, 2)
    optimizer.step()
    torch.testing.assert_close(fast.detach(), 4 * slow.detach())


def test_a_step_does_not_depend_on_how_large_the_gradient_is():
    weights = []
    for scale in (1, 1000):
        torch.manual_seed(0)
        parameter = nn.Parameter(torch.zeros(16, 150))
        parameter.grad = scale * torch.randn(16, 150)
        Muon([parameter], lr=0.02, momentum=0.9, weight_decay=0.0).step()
        weights.append(parameter.detach())
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


def test_where_all_gradients_are_zero_weights_only_decay():
    parameter = nn.Parameter(torch.ones(3, 2))
    optimizer = Muon([parameter], lr=0.1, momentum=0.9, weight_decay=0.5)
    parameter.grad = torch.zeros(3, 2)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((3, 2), 0.95))


def test_a_frozen_parameter_stays_as_it_is():
    free, frozen = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    optimizer = Muon([frozen, free], lr=0.1, momentum=0.9, weight_decay=0.5)
    free.grad = torch.ones(3, 2)
    optimizer.step()
    torch.testing.assert_close(frozen.detach(), torch.ones(3, 2))
    assert (free != 1).all()


def test_a_step_takes_a_closure_as_torchs_own_optimizers_do():
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.0)

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 6
    assert weight.sum() < 6


def test_a_parameter_that_is_one_number_takes_steps_too():
    number = nn.Parameter(torch.tensor(2.0))
    optimizer = Muon([number], lr=0.1, momentum=0.0, weight_decay=0.0)
    number.grad = torch.tensor(-1000.0)
    optimizer.step()
    assert 2.06 < number.item() < 2.13  # by 0.7 to 1.2 times the learning rate
