"""Loss and accuracy of the report's runs by epoch: means over many runs side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from support.plots import COLORS, draw_curves, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# In the order of the panels.
QUANTITIES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def save_curves(
    path: Path,
    title: str,
    rows: dict[str, list[dict]],
    lowest_loss: float = 0,
    lowest_accuracy: float = 95,
    no_aug_epochs: int = 0,
) -> None:
    """Draw the curves of many runs of each row: means over seeds, with bands of one standard
    deviation to either side.

    Args:
        rows: the records of each curve, by its name.
        lowest_loss: where axes of loss start that would start below it. The legend tells the
            lowest value of a curve that leaves its axis, here and below.
        lowest_accuracy: where the axes of accuracy start (%).
        no_aug_epochs: how many last epochs to shade, since they train without augmentation.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    runs = {name: [record["history"] for record in records] for name, records in rows.items()}
    [first, *_] = runs.values()
    seeds, epochs = len(first), len(first[0])
    title += f"\n{seeds} seeds, mean ± 1 SD; training: mean over the epoch"
    means = {name: mean_history(histories) for name, histories in runs.items()}
    figure = draw_curves(title, means, "test", epochs)
    figure.subplots_adjust(left=0.11, wspace=0.31, top=0.87)  # room for the longer labels
    for ax, quantity in zip(figure.axes, QUANTITIES, strict=True):
        for line, histories in zip(ax.lines, runs.values(), strict=True):
            draw_band(ax, line, histories, quantity)
        is_loss = quantity.endswith("loss")
        if is_loss:
            ax.set_yscale("log")
            ax.set_ylabel("cross-entropy, log scale")
            low, high = ax.get_ylim()
            if low < lowest_loss:
                low = lowest_loss
                ax.set_ylim(low, high)
                ax.set_ylabel(f"cross-entropy, log, from {low:g}")
            few_decades = high / low < 100
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if few_decades else (1,)))
            ax.yaxis.set_major_formatter(lambda loss, _: plain_number(loss))
            ax.yaxis.set_minor_formatter(NullFormatter())
        elif epochs > 2:
            ax.set_ylim(lowest_accuracy, 100 + (100 - lowest_accuracy) / 50)
            ax.set_ylabel(f"accuracy (%; axis starts at {lowest_accuracy:g})")
        if no_aug_epochs:
            last = epochs + 0.5
            ax.axvspan(last - no_aug_epochs, last, color="gold", alpha=0.3, label="not augmented")
        leaving = [line for line in ax.lines if min(line.get_ydata()) < ax.get_ylim()[0]]
        for line in leaving:
            lowest = min(line.get_ydata())
            depth = plain_number(lowest) if is_loss else f"{lowest:.1f}%"
            line.set_label(f"{line.get_label()} (lowest: {depth})")
        if len(rows) > 1 or leaving:
            ax.legend(fontsize=8, loc="best" if is_loss else "lower right")
    save_figure(figure, path)


def save_accuracy(path: Path, rows: dict[str, list[dict]], lowest: float = 97) -> None:
    """Draw the test accuracy of many runs of each row by epoch, in one panel: means over seeds,
    with bands of one standard deviation to either side.

    Args:
        rows: the records of each curve, by its name.
        lowest: where the axis starts (%).
    """
    [first, *_] = rows.values()
    figure = new_figure(7.5, 4.5, f"Test accuracy by epoch: mean ± 1 SD of {len(first)} seeds")
    ax = figure.subplots()
    for name, records in rows.items():
        histories = [record["history"] for record in records]
        accuracy = [100 * entry["test_accuracy"] for entry in mean_history(histories)]
        epochs = range(1, len(accuracy) + 1)
        [line] = ax.plot(epochs, accuracy, color=COLORS[name], label=name)
        ax.plot(epochs[-1], accuracy[-1], "o", color=line.get_color())
        draw_band(ax, line, histories, "test_accuracy")
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"test accuracy (%; axis starts at {lowest:g})")
    ax.set_xlim(left=0)
    ax.set_ylim(lowest, 99.8)
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right")
    save_figure(figure, path)


def mean_history(histories: list[list[dict]]) -> list[dict]:
    """Return the means over runs, epoch by epoch."""
    return [
        {quantity: np.mean([entry[quantity] for entry in entries]) for quantity in QUANTITIES}
        for entries in zip(*histories, strict=True)
    ]


def draw_band(ax: "Axes", line: "Line2D", histories: list[list[dict]], quantity: str) -> None:
    """Draw a band of one standard deviation over runs to either side of the line of their means."""
    values = np.array([[entry[quantity] for entry in history] for history in histories])
    deviation = values.std(axis=0, ddof=1) * (100 if quantity.endswith("accuracy") else 1)
    mean = line.get_ydata()
    band = mean - deviation, mean + deviation
    ax.fill_between(line.get_xdata(), *band, color=line.get_color(), alpha=0.25)


def plain_number(value: float) -> str:
    """0.00001, where "{x:g}" gives 1e-05."""
    return np.format_float_positional(value, 1, fractional=False, trim="-")
