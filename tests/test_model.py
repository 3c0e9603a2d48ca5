"""The networks have the sizes that README counts, and train on what dataset.py gives."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from model import CustomMLP, LeNet5, count_parameters

LENET5 = {"conv1": 156, "conv2": 2_416, "fc1": 48_120, "fc2": 10_164, "fc3": 850}
MLP = {"fc1": 50_240, "fc2": 4_160, "fc3": 4_160, "fc4": 3_120, "fc5": 490}


@pytest.mark.parametrize(
    ("network", "layers", "total"), [(LeNet5, LENET5, 61_706), (CustomMLP, MLP, 62_170)]
)
def test_parameters_layer_by_layer(network, layers, total):
    model = network()
    counts = {name: count_parameters(layer) for name, layer in model.named_children()}
    assert {name: count for name, count in counts.items() if count} == layers
    assert count_parameters(model) == total


@pytest.mark.parametrize("network", [LeNet5, CustomMLP])
def test_output_is_one_logit_per_digit(network):
    logits = network()(torch.randn(7, 1, 28, 28))
    assert logits.shape == (7, 10)
    assert logits.dtype == torch.float32
    assert (logits < 0).any(), "scores before softmax may be negative"
    assert not torch.allclose(logits.exp().sum(dim=1), torch.ones(7))


@pytest.mark.parametrize("network", [LeNet5, CustomMLP])
def test_every_parameter_gets_a_gradient(network):
    torch.manual_seed(0)
    model = network()
    cross_entropy(model(torch.randn(64, 1, 28, 28)), torch.arange(64) % 10).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("network", [LeNet5, CustomMLP])
def test_logits_are_the_same_without_gradients(network):
    torch.manual_seed(0)
    model, images = network(), torch.randn(64, 1, 28, 28)
    with torch.no_grad():
        logits = model(images)
    torch.testing.assert_close(logits, model(images).detach())


@pytest.mark.parametrize(("network", "total"), [(LeNet5, 61_706), (CustomMLP, 62_170)])
def test_dropout_adds_no_parameter_and_acts_in_training_only(network, total):
    torch.manual_seed(0)
    model = network(dropout=0.5)
    assert count_parameters(model) == total
    images = torch.randn(4, 1, 28, 28)
    model.train()
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
