"""The figures of a run: curves, confusion matrix, misclassified digits."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from model import MODEL_TITLES, title_of
from support.files import atomic_write
from support.mnist_files import SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {
    MODEL_TITLES["lenet5"]: "tab:blue",
    MODEL_TITLES["mlp"]: "tab:orange",
    f"{MODEL_TITLES['lenet5']}, trained longer": "tab:cyan",
    f"{MODEL_TITLES['lenet5']}, regularized": "tab:green",
    f"{MODEL_TITLES['mlp']}, regularized": "tab:red",
}
GRAY = "0.6"  # of secondary elements
SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}


def new_figure(
    width: float, height: float, title: str, layout: str | None = "constrained"
) -> "Figure":
    """An empty figure, in inches, with a bold title."""
    from matplotlib.figure import Figure  # costs half a second: only where something is drawn

    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure


def save_figure(figure: "Figure", path: Path, compression: int = 6) -> None:
    """Write a figure as a PNG.

    Args:
        compression: from 1, fast, to 9, small.
    """
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110, pil_kwargs={"compress_level": compression})


def save_run_plot(path: Path, model: str, history: list[dict], watched: str, epochs: int) -> None:
    """Draw loss and accuracy of one run by epoch.

    Args:
        watched: what is tested after each epoch, "test" or "val".
        epochs: how many the run is to have.
    """
    name = title_of(model)
    title = (
        f"{name}: {SPLIT_TITLES[watched]} accuracy "
        f"{history[-1][f'{watched}_accuracy']:.2%} "
        f"after {len(history)} {'epoch' if len(history) == 1 else 'epochs'}"
    )
    figure = draw_curves(title, {name: history}, watched, epochs)
    save_figure(figure, path, compression=1)  # after every epoch, so fast


def draw_curves(
    title: str, histories: dict[str, list[dict]], watched: str, epochs: int
) -> "Figure":
    """Four panels: loss (above) and accuracy (below), on the training set (left) and on the
    `watched` one (right), by epoch.

    Args:
        histories: of each curve, by its name.
    """
    from matplotlib.ticker import MaxNLocator

    # Fixed margins: letting matplotlib find them takes longer than drawing.
    figure = new_figure(7.5, 6, title, layout=None)
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.08, top=0.89, wspace=0.22, hspace=0.4)
    few_ticks = {"nbins": 5, "steps": [1, 2, 5, 10]}  # drawing ticks is most of the work
    # A network of one's own has the next color of matplotlib's cycle, after those above.
    colors = {
        name: COLORS.get(name, f"C{place + len(COLORS)}") for place, name in enumerate(histories)
    }
    axes = figure.subplots(2, 2, sharex=True)
    axes[1, 0].sharey(axes[1, 1])  # but each loss has its own axis: so a rise of one is seen
    for row, quantity, unit, scale in ((0, "loss", "cross-entropy", 1), (1, "accuracy", "%", 100)):
        for column, split in enumerate(("train", watched)):
            ax = axes[row, column]
            for name, history in histories.items():
                values = [scale * entry[f"{split}_{quantity}"] for entry in history]
                marker = "o-" if len(history) <= 20 else "-"
                numbers = range(1, len(history) + 1)
                ax.plot(numbers, values, marker, color=colors[name], markersize=3, label=name)
            # y=1 says where: matplotlib would measure everything drawn to find a place.
            ax.set_title(f"{SPLIT_TITLES[split]} {quantity}", y=1)
            ax.set_xlabel("epoch")
            ax.set_ylabel(f"{quantity} ({unit})")
            ax.tick_params(labelbottom=True, labelleft=True)
            ax.set_xlim(0.5, epochs + 0.5)
            ax.xaxis.set_major_locator(MaxNLocator(**few_ticks, integer=True, min_n_ticks=1))
            ax.yaxis.set_major_locator(MaxNLocator(**few_ticks))
            ax.grid(alpha=0.3)
    return figure


def draw_confusion(
    ax: "Axes", counts: np.ndarray, number: str, darkest: float | None = None
) -> None:
    """Draw a confusion matrix, [10, 10], colored by its errors alone: the rest would outshine them.

    Args:
        number: the format of a count.
        darkest: the count with the darkest color (default: the largest of the errors).
    """
    errors = np.where(np.eye(10), np.nan, counts)  # the diagonal shows the background
    darkest = darkest or max(np.nanmax(errors), 1)
    ax.set_facecolor("0.93")
    ax.imshow(errors, cmap="Reds", vmin=0, vmax=darkest)
    for label, digit in np.ndindex(10, 10):
        text = number.format(counts[label, digit])
        if float(text):
            color = "white" if errors[label, digit] > 0.6 * darkest else "black"
            ax.text(digit, label, text, ha="center", va="center", fontsize=9.5, color=color)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_xticks(range(10))
    ax.set_yticks(range(10))


def save_confusion(path: Path, title: str, counts: torch.Tensor) -> None:
    """Draw the confusion matrix, int64 [10, 10], of one network."""
    figure = new_figure(6, 6, title)
    draw_confusion(figure.subplots(), counts.double().numpy(), "{:.0f}")
    save_figure(figure, path)


def save_misclassified(
    path: Path, name: str, images: torch.Tensor, labels: torch.Tensor, probabilities: torch.Tensor
) -> None:
    """Draw up to 100 of the images that a network misclassifies, the most confident errors first.

    Args:
        images: uint8 [N, 1, 28, 28].
        labels: int64 [N].
        probabilities: float32 [N, 10].
    """
    confidence, digits = probabilities.max(dim=1)
    wrong = (digits != labels).nonzero().flatten()
    shown = wrong[confidence[wrong].argsort(descending=True, stable=True)][:100]
    texts = [f"{labels[i]}→{digits[i]}  {confidence[i]:.0%}" for i in shown.tolist()]
    title = (
        f"{name}: {len(shown)} of {len(wrong)} misclassified test images, most confident first\n"
        "true digit → predicted digit, and its probability"
    )
    save_digits(path, title, images[shown], texts)


def save_digits(path: Path, title: str, images: torch.Tensor, texts: list[str]) -> None:
    """Draw images, uint8 [N, 1, 28, 28], ten in a row, each with a text above it."""
    columns = 10
    rows = max(1, math.ceil(len(images) / columns))
    figure = new_figure(columns, 1.1 * rows + 0.7, title)
    # One picture of all the images: axes of its own for each would take several times as long.
    width, height = SIZE + 8, SIZE + 11  # of the place of an image, with its text above it
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    ax = figure.subplots()
    for place, (image, text) in enumerate(zip(images, texts, strict=True)):
        row, column = divmod(place, columns)
        top, left = (row + 1) * height - SIZE, column * width + (width - SIZE) // 2
        sheet[top : top + SIZE, left : left + SIZE] = image[0]
        ax.text(left + SIZE / 2, top - 2, text, ha="center", fontsize=10.5)
    ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=255)
    ax.axis("off")
    save_figure(figure, path)
