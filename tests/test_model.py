"""The networks are the ones that README describes, layer by layer."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from model import CustomMLP, LeNet5, count_parameters


def reference_lenet5(dropout):
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Dropout(dropout)),
        *(nn.Linear(120, 84), nn.ReLU(), nn.Dropout(dropout)),
        nn.Linear(84, 10),
    )


def reference_mlp(dropout):
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(784, 64), nn.ReLU(), nn.Dropout(dropout)),
        *(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(dropout)),
        *(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(dropout)),
        *(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(dropout)),
        nn.Linear(48, 10),
    )


NETWORKS = pytest.mark.parametrize(
    ("network", "reference"), [(LeNet5, reference_lenet5), (CustomMLP, reference_mlp)]
)


def with_the_same_weights(network, reference, dropout=0.0):
    torch.manual_seed(0)
    model, other = network(dropout).double(), reference(dropout).double()
    weights = zip(other.state_dict(), model.state_dict().values(), strict=True)
    other.load_state_dict(dict(weights))
    return model, other


@NETWORKS
def test_logits_and_gradients_are_those_of_the_layers_one_after_another(network, reference):
    model, other = with_the_same_weights(network, reference)
    images, labels = torch.randn(20, 1, 28, 28).double(), torch.arange(20) % 10
    logits, expected = model(images), other(images)
    torch.testing.assert_close(logits, expected)
    cross_entropy(logits, labels).backward()
    cross_entropy(expected, labels).backward()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@NETWORKS
def test_dropout_acts_after_each_hidden_fully_connected_layer_in_training(network, reference):
    model, other = with_the_same_weights(network, reference, dropout=0.4)
    images = torch.randn(20, 1, 28, 28).double()
    logits = []
    for each in (model, other):
        torch.manual_seed(1)  # the same outputs are dropped
        logits.append(each.train()(images))
    torch.testing.assert_close(*logits)
    torch.testing.assert_close(model.eval()(images), other.eval()(images))
    assert not torch.allclose(logits[0], model(images))


@pytest.mark.parametrize("network", [LeNet5, CustomMLP])
def test_nothing_is_dropped_unless_it_is_asked_for(network):
    model, images = network().train(), torch.randn(20, 1, 28, 28)
    assert torch.equal(model(images), model(images))


LENET5 = {"conv1": 156, "conv2": 2_416, "fc1": 48_120, "fc2": 10_164, "fc3": 850}
MLP = {"fc1": 50_240, "fc2": 4_160, "fc3": 4_160, "fc4": 3_120, "fc5": 490}


@pytest.mark.parametrize(
    ("network", "layers", "total"), [(LeNet5, LENET5, 61_706), (CustomMLP, MLP, 62_170)]
)
def test_each_layer_has_as_many_parameters_as_the_tables_say_with_dropout_or_without(
    network, layers, total
):
    for model in (network(), network(dropout=0.5)):
        counts = {name: count_parameters(layer) for name, layer in model.named_children()}
        assert {name: count for name, count in counts.items() if count} == layers
        assert count_parameters(model) == total
