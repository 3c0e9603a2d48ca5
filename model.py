"""The networks: LeNet-5, and a multi-layer perceptron of about the same size.

A network maps a batch of images, float32 [B, 1, 28, 28], to logits, float32 [B, 10]: one score per
digit, before any softmax (CrossEntropyLoss applies it). main.py trains any such network whose class
needs no arguments; --dropout is passed to a parameter `dropout`, if there is one. To add yours,
write a file mine.py, and use it in place of main.py, for --evaluate and --predict as well:

    from torch import nn
    from main import main
    from model import MODELS

    class MyNet(nn.Module): ...

    MODELS["mynet"] = MyNet  # python mine.py --model mynet
    main()
"""

import torch
from torch import nn
from torch.nn import functional as F


class LeNet5(nn.Module):
    """LeNet-5 with 61,706 parameters.

    LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition
    (1998), section II.B, in today's usual form: max pooling instead of trainable subsampling,
    ReLU instead of a scaled tanh, every map of conv2 connected to every map of conv1, and a linear
    output layer instead of RBF units. Padding by 2 makes our 28x28 the paper's 32x32.

        layer   output        parameters
        conv1   6 x 28 x 28   6 * (1 * 5 * 5) +   6 =    156
        pool    6 x 14 x 14
        conv2   16 x 10 x 10  16 * (6 * 5 * 5) + 16 =  2,416
        pool    16 x 5 x 5
        fc1     120           400 * 120 + 120       = 48,120
        fc2     84            120 * 84 + 84         = 10,164
        fc3     10            84 * 10 + 10          =    850

    Args:
        dropout: the probability of zeroing each output of fc1 and fc2 in training (Srivastava et
            al. 2014). It adds no parameters.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)
        self.to(memory_format=torch.channels_last)  # the order in memory: faster convolutions

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # Pooling first: relu(max(x)) = max(relu(x)), and ReLU then runs on a quarter of the values.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # [B, 6, 14, 14]
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # [B, 16, 5, 5]
        x = x.flatten(1)  # [B, 400]
        x = self.dropout(F.relu(self.fc1(x)))  # [B, 120]
        x = self.dropout(F.relu(self.fc2(x)))  # [B, 84]
        return self.fc3(x)  # [B, 10]


class CustomMLP(nn.Module):
    """A multi-layer perceptron with four hidden layers and 62,170 parameters.

        layer   output   parameters
        fc1     64       784 * 64 + 64 = 50,240
        fc2     64        64 * 64 + 64 =  4,160
        fc3     64        64 * 64 + 64 =  4,160
        fc4     48        64 * 48 + 48 =  3,120
        fc5     10        48 * 10 + 10 =    490

    Args:
        dropout: the probability of zeroing each output of a hidden layer in training.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(28 * 28, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 64)
        self.fc4 = nn.Linear(64, 48)
        self.fc5 = nn.Linear(48, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1)  # [B, 784]
        x = self.dropout(F.relu(self.fc1(x)))
        x = self.dropout(F.relu(self.fc2(x)))
        x = self.dropout(F.relu(self.fc3(x)))
        x = self.dropout(F.relu(self.fc4(x)))
        return self.fc5(x)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters: all weights and biases."""
    return sum(parameter.numel() for parameter in model.parameters())


MODELS = {"lenet5": LeNet5, "mlp": CustomMLP}
MODEL_TITLES = {"lenet5": "LeNet-5", "mlp": "MLP"}


def title_of(name: str) -> str:
    """Return what figures and lines call a network: a title, or else its key in MODELS."""
    return MODEL_TITLES.get(name, name)
