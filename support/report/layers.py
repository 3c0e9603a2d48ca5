"""What LeNet-5 sees: a figure of one digit on its way through the trained network."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import torch
from torch.nn import functional as F

from dataset import normalize
from model import LeNet5
from support.plots import GRAY, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@torch.no_grad()
def save_layers(path: Path, model: LeNet5, image: torch.Tensor) -> None:
    """Draw one digit, uint8 [1, 28, 28], on its way through a trained LeNet-5, and the kernels of
    conv1."""
    # As in LeNet5.forward, but with ReLU before pooling, to show its maps.
    x = normalize(image)[None]
    conv1 = F.relu(model.conv1(x))
    pool1 = F.max_pool2d(conv1, 2)
    conv2 = F.relu(model.conv2(pool1))
    pool2 = F.max_pool2d(conv2, 2)
    fc1 = F.relu(model.fc1(pool2.flatten(1)))
    fc2 = F.relu(model.fc2(fc1))
    probabilities = model.fc3(fc2).softmax(dim=1)[0].numpy()

    title = "What LeNet-5 (--regularize, seed 0) makes of a digit"
    figure = new_figure(11, 7, f"{title}\nwhite: 0, black: the largest value of the layer")
    above, below = figure.subfigures(2, 1, height_ratios=[4, 1])
    stages = {
        ("input", "1×28×28"): image[0].numpy(),
        ("conv1, ReLU", "6×28×28"): stack_maps(conv1[0], columns=1),
        ("max pooling", "6×14×14"): stack_maps(pool1[0], columns=1),
        ("conv2, ReLU", "16×10×10"): stack_maps(conv2[0], columns=2),
        ("max pooling", "16×5×5"): stack_maps(pool2[0], columns=2),
        ("fc1, ReLU", "120 units"): fc1.view(30, 4).numpy(),
        ("fc2, ReLU", "84 units"): fc2.view(28, 3).numpy(),
    }
    *panels, output = above.subplots(1, len(stages) + 1, width_ratios=[2, 1, 1, 1, 1, 1, 1, 2.4])
    grays = matplotlib.colormaps["gray_r"].with_extremes(bad="lightsteelblue")  # the gaps
    for ax, ((layer, size), values) in zip(panels, stages.items(), strict=True):
        ax.imshow(values, cmap=grays)
        ax.set_title(layer, fontsize=11)
        ax.text(0.5, -0.01, size, transform=ax.transAxes, ha="center", va="top", fontsize=11)
        ax.set_anchor("N")  # at the top, so that all titles are on one line
        ax.axis("off")
    draw_probabilities(output, probabilities)

    kernels = model.conv1.weight[:, 0].numpy()
    strongest = np.abs(kernels).max()
    below.suptitle("the six 5×5 kernels of conv1, in the order of its maps", fontsize=11)
    panels = below.subplots(1, len(kernels))
    for ax, kernel in zip(panels, kernels, strict=True):
        shown = ax.imshow(kernel, cmap="RdBu", vmin=-strongest, vmax=strongest)
        ax.axis("off")
    below.colorbar(shown, ax=panels, label="weight")
    save_figure(figure, path)


def stack_maps(maps: torch.Tensor, columns: int) -> np.ndarray:
    """Put maps, [C, H, W], into one picture of `columns` columns, with gaps between them."""
    padded = F.pad(maps, (1, 1, 1, 1), value=float("nan")).numpy()
    rows = np.split(padded, len(maps) // columns)
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def draw_probabilities(ax: "Axes", probabilities: np.ndarray) -> None:
    """Draw ten bars, one for each digit."""
    colors = ["tab:blue" if p == probabilities.max() else GRAY for p in probabilities]
    bars = ax.barh(range(10), 100 * probabilities, color=colors)
    ax.bar_label(bars, [f"{p:.1%}" for p in probabilities], fontsize=10, padding=2)
    ax.set_yticks(range(10))
    ax.tick_params(length=0)  # a tick before 0.0% would look like a minus sign
    ax.invert_yaxis()
    ax.set_xlim(0, 130)
    ax.set_xticks([])
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.set_title("fc3, softmax", fontsize=11)
    ax.text(
        0.5, -0.01, "10 probabilities", transform=ax.transAxes, ha="center", va="top", fontsize=11
    )
