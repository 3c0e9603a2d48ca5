"""One epoch of training, one test: what they return and what they change."""

import pytest
import torch
from helpers import make_digits
from torch import nn

import main
from dataset import data_loader
from model import CustomMLP, LeNet5

CPU = torch.device("cpu")


@pytest.fixture
def digits():
    """(float32 [210, 1, 28, 28], int64 [210]): batches of 64 leave a last one of 18."""
    images, labels = make_digits(210, seed=1)
    return torch.from_numpy(images).unsqueeze(1) / 255, torch.from_numpy(labels)


def batches_of(digits, size):
    return list(zip(*(part.split(size) for part in digits), strict=True))


def setup(network, lr):
    torch.manual_seed(0)
    model = network()
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def average(model, digits):
    """Loss and accuracy over all samples at once: what any batching must come to."""
    images, labels = digits
    with torch.no_grad():
        logits = model(images)
    hits = (logits.argmax(dim=1) == labels).double()
    return nn.functional.cross_entropy(logits, labels).item(), hits.mean().item()


@pytest.mark.parametrize("size", [1, 64, 210, 1000])
def test_averages_are_per_sample_however_batched(digits, size):
    model, optimizer = setup(LeNet5, lr=0.0)
    expected = pytest.approx(average(model, digits), rel=1e-5)
    batches = batches_of(digits, size)
    assert main.test(model, batches, CPU, nn.CrossEntropyLoss()) == expected
    assert main.train(model, batches, CPU, nn.CrossEntropyLoss(), optimizer) == expected


def test_test_changes_nothing(digits):
    model, _ = setup(LeNet5, lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    main.test(model, batches_of(digits, 64), CPU, nn.CrossEntropyLoss())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_train_and_test_set_the_mode_of_layers_such_as_dropout(digits):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    main.train(model, batches_of(digits, 64), CPU, nn.CrossEntropyLoss(), optimizer)
    assert model.training
    criterion = nn.CrossEntropyLoss()
    results = [main.test(model, batches_of(digits, 64), CPU, criterion) for _ in range(2)]
    assert not model.training
    assert results[0] == results[1]


@pytest.mark.parametrize("network", [LeNet5, CustomMLP])
@pytest.mark.parametrize("muon", [False, True])
def test_it_learns(digits, network, muon):
    model, optimizer = setup(network, lr=0.02)
    if muon:
        optimizer = main.Muon(model.parameters(), lr=0.02, momentum=0.9, weight_decay=0)
    criterion = nn.CrossEntropyLoss()
    losses = [
        main.train(model, batches_of(digits, 16), CPU, criterion, optimizer)[0] for _ in range(15)
    ]
    loss, accuracy = main.test(model, batches_of(digits, 64), CPU, criterion)
    assert accuracy > 0.95
    assert loss < 0.3 * losses[0]


def test_one_step_is_that_of_plain_pytorch(digits):
    batches = batches_of(digits, 64)[:1]
    model, optimizer = setup(LeNet5, lr=0.1)
    main.train(model, batches, CPU, nn.CrossEntropyLoss(), optimizer)
    reference, _ = setup(LeNet5, lr=0.1)
    images, labels = batches[0]
    nn.functional.cross_entropy(reference(images), labels).backward()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)


@pytest.mark.parametrize("shape", [(16, 150), (120, 84), (6, 1)])
def test_orthogonal_keeps_directions_and_evens_out_how_strong_they_are(shape):
    torch.manual_seed(0)
    left, strengths, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.logspace(-2, -1, len(strengths)).diag() @ right  # 0.01 to 0.1
    inside = left.T @ main.orthogonal(matrix) @ right.T
    evened = inside.diagonal()
    assert 0.6 < evened.min() <= evened.max() < 1.3
    torch.testing.assert_close(inside, evened.diag(), atol=1e-4, rtol=0)


def test_a_step_of_muon_does_not_depend_on_how_large_the_loss_is(digits):
    criterion = nn.CrossEntropyLoss()
    weights = []
    for scale in (1, 1000):
        torch.manual_seed(0)
        model = LeNet5()
        optimizer = main.Muon(model.parameters(), lr=0.02, momentum=0.9, weight_decay=0)
        batches = batches_of(digits, 64)[:1]
        main.train(model, batches, CPU, lambda *args, s=scale: s * criterion(*args), optimizer)
        weights.append(model.fc1.weight.detach())
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


def test_momentum_of_muon_goes_on_where_the_gradient_has_ended():
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(4, 3))
    optimizer = main.Muon([parameter], lr=0.1, momentum=0.9, weight_decay=0)
    parameter.grad = torch.randn(4, 3)
    optimizer.step()
    first = parameter.detach().clone()
    parameter.grad = torch.zeros(4, 3)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), 2 * first)


def test_weight_decay_of_muon_pulls_towards_0_what_is_not_frozen():
    free, frozen = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    optimizer = main.Muon([free, frozen], lr=0.1, momentum=0.9, weight_decay=0.5)
    free.grad = torch.zeros(3, 2)
    optimizer.step()
    torch.testing.assert_close(free.detach(), torch.full((3, 2), 0.95))
    torch.testing.assert_close(frozen.detach(), torch.ones(3, 2))


def test_ema_is_the_moving_average_of_the_weights_after_each_step(digits):
    model, optimizer = setup(LeNet5, lr=0.1)
    ema = main.make_ema(model, 0.9)
    expected = None
    for batch in batches_of(digits, 64):
        main.train(model, [batch], CPU, nn.CrossEntropyLoss(), optimizer, ema=ema)
        weights = model.fc3.weight.detach().clone()
        expected = weights if expected is None else 0.9 * expected + 0.1 * weights
    torch.testing.assert_close(ema.module.fc3.weight.detach(), expected)


def test_a_users_own_model_and_data_set_work(digits):
    class Doubled(torch.utils.data.Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, indices):
            return 2 * digits[0][indices], digits[1][indices]

    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = data_loader(Doubled(), batch_size=16, shuffle=True, seed=0)
    loss, accuracy = main.train(model, loader, CPU, nn.CrossEntropyLoss(), optimizer)
    assert loss > 0
    assert 0 <= accuracy <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu(digits):
    results = []
    for device in (CPU, torch.device("cuda")):
        torch.manual_seed(0)
        model = LeNet5().to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        criterion = nn.CrossEntropyLoss()
        main.train(model, batches_of(digits, 64), device, criterion, optimizer)
        results.append(main.test(model, batches_of(digits, 64), device, criterion))
    assert results[1] == pytest.approx(results[0], rel=1e-3)
