"""The figures of a run: curves, confusion matrix, misclassified digits."""

import math
import textwrap
from collections.abc import Callable
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
    MODEL_TITLES["mlp"]: "chocolate",
    f"{MODEL_TITLES['lenet5']}, trained longer": "0.35",
    f"{MODEL_TITLES['lenet5']}, regularized": "tab:green",
    f"{MODEL_TITLES['mlp']}, regularized": "tab:red",
}
SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}
LOWEST_LOSS = 1e-4  # where the axis of losses ends at the latest: a logarithmic one has no 0
History = list[dict]  # of each epoch of a run, its numbers


def new_figure(height: float, title: str) -> "Figure":
    """Return an empty figure, 5.5 inches wide: shown 380 pixels wide, its text can still be read.

    Args:
        height: in inches.
        title: drawn as it is, even with a `$`; in several lines if it is long.
    """
    from matplotlib.figure import Figure  # costs half a second: only where something is drawn

    figure = Figure(figsize=(5.5, height), layout="constrained")
    # Not matplotlib's own wrapping: it takes a `$` for a formula, in spite of parse_math.
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, 56)]
    figure.suptitle("\n".join(lines), fontweight="bold", fontsize=11, parse_math=False)
    return figure


def save_figure(figure: "Figure", path: Path, compression: int = 6) -> None:
    """Write a figure as a PNG, with a compression from 1, fast, to 9, small."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=150, pil_kwargs={"compress_level": compression})


# --- curves -----------------------------------------------------------------------------------


def draw_run(model: str, history: History, watched: str, epochs: int) -> "Figure":
    """Draw loss and accuracy of one run by epoch.

    Args:
        watched: what is tested after each epoch, "test" or "val".
        epochs: how many the run is to have.
    """
    name = title_of(model)
    accuracy = f"{SPLIT_TITLES[watched]} accuracy {history[-1][f'{watched}_accuracy']:.2%}"
    title = f"{name}: {accuracy} after epoch {len(history)} of {epochs}"
    return draw_curves(title, {name: [history]}, watched)


def draw_curves(
    title: str, runs: dict[str, list[History]], watched: str, no_aug_epochs: int = 0
) -> "Figure":
    """Draw four panels: loss (above) and accuracy (below), on the training set (left) and on the
    `watched` one (right), by epoch. Both panels of a row have the same scale.

    Args:
        runs: of each curve, by its name, the histories whose mean it shows.
        no_aug_epochs: how many last epochs to shade, since they train without augmentation.
    """
    figure = new_figure(4.6, title)
    figure.set_layout_engine("none")  # finding margins takes longer than drawing
    place = {"left": 0.12, "right": 0.86, "top": 0.86, "wspace": 0.54, "hspace": 0.25}
    place["bottom"] = 0.17 if len(runs) > 1 else 0.1  # with a legend below, or without
    panels = figure.subplots(2, 2, sharex=True, sharey="row", gridspec_kw=place)
    last = max(len(history) for histories in runs.values() for history in histories)
    edge = min(0.05 * (last - 1), 0.5) or 0.5
    panels[0, 0].set_xlim(1 - edge, last + edge)
    panels[0, 0].locator_params(axis="x", nbins=5, steps=[1, 2, 5], integer=True, min_n_ticks=1)
    for row, (quantity, unit) in enumerate((("loss", ", log scale"), ("accuracy", " (%)"))):
        means = []
        for ax, split in zip(panels[row], ("train", watched), strict=True):
            means.append(draw_means(ax, runs, f"{split}_{quantity}"))
            # y=1 says where: matplotlib would measure everything drawn to find a place.
            ax.set_title(f"{SPLIT_TITLES[split]} {quantity}{unit}", y=1, fontsize=10)
            ax.grid(alpha=0.3)
            if no_aug_epochs:
                first = last - no_aug_epochs + 0.5
                ax.axvspan(first, last + edge, color="gold", alpha=0.3, label="not augmented")
        if quantity == "loss":
            scale_losses(panels[row, 0], [*means[0], *means[1]])
        else:
            scale_accuracies(panels[row, 0], [*means[0], *means[1]])
        for ax, curves in zip(panels[row], means, strict=True):
            write_values(ax, curves, plain_number if quantity == "loss" else "{:.2f}".format)
    for ax in panels[1]:
        ax.set_xlabel("epoch")
    if len(runs) > 1:
        handles, _ = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=9, columnspacing=1)
    return figure


def draw_means(ax: "Axes", runs: dict[str, list[History]], quantity: str) -> list[np.ndarray]:
    """Draw the curve of each name, the mean over its runs, with a band of one standard deviation
    to either side. Return the means, by epoch; accuracies in percent."""
    means = []
    for place, (name, histories) in enumerate(runs.items()):
        values = np.array([[entry[quantity] for entry in history] for history in histories])
        values *= 100 if quantity.endswith("accuracy") else 1
        mean = values.mean(axis=0)
        epochs = np.arange(1, len(mean) + 1)
        # A network of one's own has the next color of matplotlib's cycle, after those above.
        color = COLORS.get(name, f"C{place + len(COLORS)}")
        dots = slice(None) if len(mean) <= 20 else [-1]
        ax.plot(epochs, mean, "o-", color=color, markersize=3, markevery=dots, label=name)
        if len(values) > 1:
            deviation = values.std(axis=0, ddof=1)
            ax.fill_between(epochs, mean - deviation, mean + deviation, color=color, alpha=0.25)
        means.append(mean)
    return means


def scale_losses(ax: "Axes", means: list[np.ndarray]) -> None:
    """Make the axis of losses logarithmic, down to the lowest one, or to LOWEST_LOSS."""
    from matplotlib.ticker import LogLocator

    losses = np.concatenate(means)
    low = max(losses.min(), LOWEST_LOSS)
    high = max(losses.max(), low)
    ax.set_ylim(low / 1.3, high * 1.3)
    ax.set_yscale("log")
    ax.minorticks_off()  # drawing ticks is most of the work
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 30 * low else (1,)))
    ax.yaxis.set_major_formatter(lambda loss, _: plain_number(loss))


def scale_accuracies(ax: "Axes", means: list[np.ndarray]) -> None:
    """Start the axis of accuracies, which ends at 100%, so low that all but the first third of the
    epochs can be seen: after a first one at 60%, the others could not be told apart."""
    lowest = min(mean[len(mean) // 3 :].min() for mean in means)
    span = max(100 - lowest, 0.5)
    ax.set_ylim(100 - 1.2 * span, 100 + 0.05 * span)


def write_values(
    ax: "Axes", means: list[np.ndarray], text_of: Callable[[float], str], lowest: bool = True
) -> None:
    """Write the last value of each curve at its end, with an arrow if it is below the axis, and,
    with `lowest`, the lowest value of those that come from below; none over another."""
    bottom, points = ax.get_ylim()[0], 72 / ax.figure.dpi
    values = []  # each with its text, the last epoch, and the color
    for line, mean in zip(ax.lines, means, strict=True):
        last, epochs, color = mean[-1], len(mean), line.get_color()
        values.append((last, f"{'↓' if last < bottom else ''}{text_of(last)}", epochs, color))
        if lowest and mean.min() < bottom <= last:
            values.append((mean.min(), f"min {text_of(mean.min())}", epochs, color))
    free = dict.fromkeys(map(len, means), 0.0)  # by last epoch: from which height on, in points
    for value, text, epochs, color in sorted(values):
        end = epochs, max(value, bottom)
        height = ax.transData.transform(end)[1] * points
        place = max(height, free[epochs])
        free[epochs] = place + 12
        shift = 8, place - height
        ax.annotate(
            text, end, shift, textcoords="offset points", va="center", color=color, fontsize=9
        )


def plain_number(value: float) -> str:
    """Round to two digits: 0.000012, where "{x:.2g}" gives 1.2e-05."""
    return np.format_float_positional(value, 2, fractional=False, trim="-")


# --- what a network gets wrong ----------------------------------------------------------------


def draw_confusions(title: str, counts: dict[str, np.ndarray]) -> "Figure":
    """Draw confusion matrices, [10, 10], side by side, in whole numbers, colored by their errors
    alone: the rest would outshine them.

    Args:
        counts: of each network, by the line that is drawn above its matrix.
    """
    figure = new_figure(5.5 / len(counts) + 0.6, title)
    panels = figure.subplots(1, len(counts), squeeze=False)[0]
    errors = [np.where(np.eye(10), np.nan, matrix) for matrix in counts.values()]
    darkest = max(np.nanmax(errors), 1)
    for ax, shown, (name, matrix) in zip(panels, errors, counts.items(), strict=True):
        ax.set_facecolor("0.93")  # of the diagonal
        ax.imshow(shown, cmap="Reds", vmin=0, vmax=darkest)
        for label, digit in np.ndindex(10, 10):
            if count := round(float(matrix[label, digit])):
                color = "white" if shown[label, digit] > 0.6 * darkest else "black"
                ax.text(digit, label, str(count), ha="center", va="center", color=color)
        ax.set(xlabel="predicted", ylabel="true", xticks=range(10), yticks=range(10))
        ax.set_title(name, fontsize=10)
    return figure


def draw_misclassified(
    name: str, images: torch.Tensor, labels: torch.Tensor, probabilities: torch.Tensor
) -> "Figure":
    """Draw up to 100 of the images that a network misclassifies, the most confident errors first.

    Args:
        images: uint8 [N, 1, 28, 28].
        labels: int64 [N].
        probabilities: float32 [N, 10].
    """
    confidence, digits = probabilities.max(dim=1)
    wrong = (digits != labels).nonzero().flatten()
    shown = wrong[confidence[wrong].argsort(descending=True, stable=True)][:100]
    texts = [f"{labels[i]}→{digits[i]}\n{confidence[i]:.0%}" for i in shown.tolist()]
    title = (
        f"{name}: {len(shown)} of {len(wrong)} misclassified test images\n"
        "true → predicted digit, and its probability"
    )
    return draw_digits(title, images[shown], texts)


def draw_digits(title: str, images: torch.Tensor, texts: list[str]) -> "Figure":
    """Draw images, uint8 [N, 1, 28, 28], ten in a row, each with a text of two lines above it."""
    columns = 10
    rows = max(1, math.ceil(len(images) / columns))
    # One picture of all the images: axes of its own for each would take several times as long.
    width, height = SIZE + 8, SIZE + 24  # of the place of an image, with its text above it
    figure = new_figure(5.5 / columns * height / width * rows + 0.7, title)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    ax = figure.subplots()
    for place, (image, text) in enumerate(zip(images, texts, strict=True)):
        row, column = divmod(place, columns)
        top, left = (row + 1) * height - SIZE, column * width + (width - SIZE) // 2
        sheet[top : top + SIZE, left : left + SIZE] = image[0]
        ax.text(left + SIZE / 2, top, text, ha="center", va="bottom", fontsize=9.5)
    ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=255)
    ax.axis("off")
    return figure
