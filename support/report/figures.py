"""The figures of the report, but for its curves: the ablation, confusions, hard digits, augmented
digits, and one digit on its way through LeNet-5."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import torch
from torch.nn import functional as F

from dataset import SIZE, augment, normalize
from model import LeNet5
from support.plots import GRAY, draw_confusion, new_figure, save_digits, save_figure
from support.report.plan import TECHNIQUE_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAME = "lightsteelblue"


def save_ablation(path: Path, effects: list[dict], seeds: int) -> None:
    """Draw what each technique adds, alone and to the others, sorted, with the seeds as dots.

    Args:
        effects: of each test the technique's "name", its "context", the "differences" of the
            seeds (points), their mean "difference", the "half_width" of its 95% interval, and
            whether it is "significant", that is, whether the interval excludes 0.
    """
    figure = new_figure(7.5, 5, "What each technique adds to LeNet-5's test accuracy")
    ax = figure.subplots()
    alone = [effect for effect in effects if effect["context"] == "alone"]
    order = sorted(alone, key=lambda effect: effect["difference"])
    places = {effect["name"]: place for place, effect in enumerate(order)}
    styles = {  # color, place beside the other, label
        "alone": ("tab:blue", 0.14, "added to plain LeNet-5"),
        "with the others": ("tab:red", -0.14, "added to the other four"),
    }
    for effect in effects:
        color, shift, _ = styles[effect["context"]]
        y = places[effect["name"]] + shift
        ax.plot(effect["differences"], [y] * seeds, ".", color=color, alpha=0.5, markersize=7)
        ax.errorbar(
            effect["difference"],
            y,
            xerr=effect["half_width"],
            fmt="o",
            color=color,
            markerfacecolor=color if effect["significant"] else "white",
            markersize=8,
            capsize=4,
        )
    for color, _, label in styles.values():
        ax.plot([], [], "o", color=color, label=label)
    ax.plot([], [], "o", color=GRAY, label="filled: the interval excludes 0")
    ax.plot([], [], "o", color=GRAY, markerfacecolor="white", label="open: it does not")
    ax.plot([], [], ".", color=GRAY, label="one seed")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(list(places.values()), [TECHNIQUE_TITLES[name] for name in places])
    ax.set_xlabel(
        f"percentage points ({seeds} seeds, paired), 95% intervals for all {len(effects)} at once"
    )
    images = ax.secondary_xaxis("top", functions=(lambda x: 100 * x, lambda x: x / 100))
    images.set_xlabel("fewer errors in 10,000 test images")
    ax.grid(axis="x", alpha=0.3)
    ax.legend(loc="lower right", fontsize=8)
    save_figure(figure, path)


def save_confusions(path: Path, counts: dict[str, np.ndarray]) -> None:
    """Draw the errors of networks side by side: confusion matrices [10, 10], means over seeds."""
    title = "Misclassified test images per run, mean over seeds (empty: none)"
    figure = new_figure(10.5, 5.2, title)
    panels = figure.subplots(1, len(counts))
    darkest = max(matrix.max() for matrix in counts.values())
    for ax, (name, matrix) in zip(panels, counts.items(), strict=True):
        draw_confusion(ax, matrix, "{:.1f}", darkest)
        ax.set_title(f"{name}: {matrix.sum():.1f} of 10,000")
    figure.colorbar(panels[-1].images[0], ax=panels, shrink=0.8, label="images per run")
    save_figure(figure, path)


def save_hard_digits(
    path: Path, images: torch.Tensor, misclassified: list[dict[str, list[int]]]
) -> None:
    """Draw the test images that at least half of the networks misclassify, the hardest first.

    Args:
        images: uint8 [N, 1, 28, 28].
        misclassified: of each network, by the index of an image, its true and its predicted digit.
    """
    networks = len(misclassified)
    answers: dict[str, list[list[int]]] = {}
    for errors in misclassified:
        for index, pair in errors.items():
            answers.setdefault(index, []).append(pair)
    hard = [index for index in answers if 2 * len(answers[index]) >= networks]
    hard.sort(key=lambda index: (-len(answers[index]), int(index)))
    texts = []
    for index in hard:
        digits = [digit for _, digit in answers[index]]
        usual = max(digits, key=digits.count)
        texts.append(f"{answers[index][0][0]}→{usual}  {len(digits)}/{networks}")
    title = (
        f"Test images that at least half of the {networks} networks of --regularize misclassify\n"
        "true digit → most frequent prediction, and how many networks misclassify it"
    )
    save_digits(path, title, images[[int(index) for index in hard]], texts)


def save_augmented(path: Path, images: torch.Tensor) -> None:
    """Draw a few digits (left), each with ten of its augmented versions.

    Args:
        images: normalized, float32 [N, 1, 28, 28].
    """
    versions = 10
    torch.manual_seed(0)
    rows = []
    for image in images:
        copies = augment(image.expand(versions, 1, SIZE, SIZE).contiguous())
        rows.append(torch.cat([image[0], *copies[:, 0]], dim=1))
    figure = new_figure(9, 4.6, "Training images (left), and what --augment makes of them")
    ax = figure.subplots()
    ax.imshow(torch.cat(rows).numpy(), cmap="gray_r")
    ax.axvline(SIZE - 0.5, color="tab:blue")
    ax.axis("off")
    save_figure(figure, path)


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
        ("fc1, ReLU", "120 units"): fc1.view(24, 5).numpy(),
        ("fc2, ReLU", "84 units"): fc2.view(21, 4).numpy(),
    }
    widths = [1.6, 1.05, 1.05, 1.25, 1.25, 1, 1, 1.7]
    *panels, output = above.subplots(1, len(stages) + 1, width_ratios=widths)
    grays = matplotlib.colormaps["gray_r"].with_extremes(bad=FRAME)  # the gaps
    for ax, ((layer, size), values) in zip(panels, stages.items(), strict=True):
        ax.imshow(values, cmap=grays)
        ax.set_title(layer, fontsize=11)
        ax.text(0.5, -0.01, size, transform=ax.transAxes, ha="center", va="top", fontsize=11)
        ax.set_anchor("N")  # at the top, so that all titles are on one line
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(FRAME)
    for ax in panels[-2:]:  # each unit of a linear layer in a frame of its own
        rows, columns = ax.images[0].get_array().shape
        ax.set(xticks=np.arange(columns) - 0.5, yticks=np.arange(rows) - 0.5)
        ax.tick_params(length=0, labelbottom=False, labelleft=False)
        ax.grid(color=FRAME)
    draw_probabilities(output, probabilities)

    kernels = model.conv1.weight[:, 0].numpy()
    strongest = np.abs(kernels).max()
    below.suptitle("the six 5×5 kernels of conv1, in the order of its maps", fontsize=11)
    panels = below.subplots(1, len(kernels))
    for ax, kernel in zip(panels, kernels, strict=True):
        shown = ax.imshow(kernel, cmap="RdBu", vmin=-strongest, vmax=strongest)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(FRAME)
    below.colorbar(shown, ax=panels, label="weight")
    save_figure(figure, path)


def stack_maps(maps: torch.Tensor, columns: int) -> np.ndarray:
    """Put maps, [C, H, W], into one picture of `columns` columns, with gaps between them."""
    padded = F.pad(maps, (1, 1, 1, 1), value=float("nan")).numpy()
    rows = np.split(padded, len(maps) // columns)
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def draw_probabilities(ax: "Axes", probabilities: np.ndarray) -> None:
    """Draw ten bars, one for each digit, with those percentages that round to more than 0."""
    colors = ["tab:blue" if p == probabilities.max() else GRAY for p in probabilities]
    bars = ax.barh(range(10), 100 * probabilities, color=colors)
    texts = [f"{p:.1%}" for p in probabilities]
    ax.bar_label(bars, ["" if t == "0.0%" else t for t in texts], fontsize=10, padding=2)
    ax.set_yticks(range(10))
    ax.tick_params(length=0)
    ax.invert_yaxis()
    ax.set_xlim(0, 130)
    ax.set_xticks([])
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.set_title("fc3, softmax", fontsize=11)
    ax.text(
        0.5, -0.01, "10 probabilities", transform=ax.transAxes, ha="center", va="top", fontsize=11
    )
