"""Every figure of the report."""

from collections import Counter
from statistics import mode

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from dataset import MNIST, SIZE, augment, normalize
from model import LeNet5
from support import plots
from support.plots import History
from support.report.plan import FRESH, FRESH_ROWS, TECHNIQUES
from support.report.records import Records, confusions

GRAY = "0.6"  # of secondary elements


def draw_report(
    records: Records, effects: list[dict], trn_set: MNIST, tst_set: MNIST, model: nn.Module
) -> dict[str, Figure]:
    """Return every figure of README.md that is made from records, by the name of its file.

    Args:
        effects: of the ablation.
        model: the network whose layers are shown.
    """
    fresh_runs = {row: records[f"{FRESH}{row}"] for row in FRESH_ROWS}
    runs = {row: [record["history"] for record in fresh_runs[row]] for row in FRESH_ROWS}

    def titled(*rows: str) -> dict[str, list[History]]:
        return {FRESH_ROWS[row].title: runs[row] for row in rows}

    means = f"mean ± SD of {len(fresh_runs['lenet5'])} seeds"
    errors = {FRESH_ROWS[row].title: confusions(fresh_runs[row]) for row in ("lenet5", "mlp")}
    firsts = [int((trn_set.labels == digit).nonzero()[0]) for digit in (2, 3, 4, 7, 8)]
    return {
        "accuracy": draw_accuracy(f"Test accuracy by epoch: {means}", titled(*FRESH_ROWS)),
        "curves": plots.draw_curves(
            f"LeNet-5 and the MLP: {means}", titled("lenet5", "mlp"), "test"
        ),
        "regularized": plots.draw_curves(
            f"LeNet-5, {len(runs['recipe'][0])} epochs: {means}",
            titled("lenet5-long", "recipe"),
            "test",
            no_aug_epochs=fresh_runs["recipe"][0]["config"]["no_aug_epochs"],
        ),
        "ablation": draw_ablation(effects, len(records["lenet5"])),
        "confusions": plots.draw_confusions(
            "Misclassified test images, mean over seeds, rounded",
            {f"{title}: {counts.sum():.1f} of 10,000": counts for title, counts in errors.items()},
        ),
        "misclassified": draw_hard_digits(
            tst_set.images, [record["misclassified"] for record in fresh_runs["recipe"]]
        ),
        "augment": draw_augmented(trn_set[firsts][0]),
        "layers": draw_layers(model, tst_set.images[0]),
    }


def draw_accuracy(title: str, runs: dict[str, list[History]]) -> Figure:
    """Draw the test accuracy by epoch in one panel. `runs`: as of plots.draw_curves."""
    figure = plots.new_figure(4, title)
    ax = figure.subplots()
    ax.margins(x=0.02)
    means = plots.draw_means(ax, runs, "test_accuracy")
    plots.scale_accuracies(ax, means)
    plots.write_values(ax, means, "{:.2f}".format, lowest=False)
    ax.set(xlabel="epoch", ylabel=f"test accuracy (%; axis starts at {ax.get_ylim()[0]:.1f})")
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", fontsize=9)
    return figure


def draw_ablation(effects: list[dict], seeds: int) -> Figure:
    """Draw what each technique adds, alone and to the others, sorted, with the seeds as dots.

    Args:
        effects: of each test the technique's "name", its "context", the "differences" of the
            seeds (points), their mean "difference", the "half_width" of its 95% interval, and
            whether it is "significant", that is, whether the interval excludes 0.
    """
    figure = plots.new_figure(5, "What each technique adds to LeNet-5's test accuracy")
    ax = figure.subplots()
    alone = [effect for effect in effects if effect["context"] == "alone"]
    order = sorted(alone, key=lambda effect: effect["difference"])
    places = {effect["name"]: place for place, effect in enumerate(order)}
    styles = {"alone": ("tab:blue", 0.14), "with the others": ("tab:red", -0.14)}
    for effect in effects:
        color, shift = styles[effect["context"]]
        y, half = places[effect["name"]] + shift, effect["half_width"]
        inside = color if effect["significant"] else "white"
        ax.plot(effect["differences"], [y] * seeds, ".", color=color, alpha=0.5, markersize=7)
        ax.errorbar(
            effect["difference"], y, xerr=half, fmt="o", color=color, mfc=inside, ms=8, capsize=4
        )
    ax.plot([], [], "o", color=styles["alone"][0], label="added to plain LeNet-5")
    ax.plot([], [], "o", color=styles["with the others"][0], label="added to the other four")
    ax.plot([], [], ".", color=GRAY, label=f"one of {seeds} seeds")
    ax.plot([], [], "o", color=GRAY, markerfacecolor="white", label="interval includes 0")
    ax.axvline(0, color="black", linewidth=0.8)
    titles = [TECHNIQUES[name].title.replace(" ", "\n", 1) for name in places]
    ax.set_yticks(list(places.values()), titles)
    ax.set_xlabel(f"percentage points, 95% intervals for all {len(effects)} at once")
    ax.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def draw_hard_digits(images: torch.Tensor, misclassified: list[dict[str, list[int]]]) -> Figure:
    """Draw the test images that at least half of the networks misclassify, the hardest first.

    Args:
        images: uint8 [N, 1, 28, 28].
        misclassified: of each network, by the index of an image, its true and its predicted digit.
    """
    networks = len(misclassified)
    counts = Counter(index for errors in misclassified for index in errors)
    hard = [index for index in counts if 2 * counts[index] >= networks]
    hard.sort(key=lambda index: (-counts[index], int(index)))
    texts = []
    for index in hard:
        pairs = [errors[index] for errors in misclassified if index in errors]
        usual = mode(predicted for _, predicted in pairs)
        texts.append(f"{pairs[0][0]}→{usual}\n{len(pairs)}/{networks}")
    title = (
        f"Misread by at least half of the {networks} regularized networks\n"
        "true → usual prediction, and how many misread it"
    )
    return plots.draw_digits(title, images[[int(index) for index in hard]], texts)


def draw_augmented(images: torch.Tensor) -> Figure:
    """Draw a few digits (left), each with ten of its augmented versions.

    Args:
        images: normalized, float32 [N, 1, 28, 28].
    """
    torch.manual_seed(0)
    versions = augment(images.repeat_interleave(10, dim=0)).view(-1, 10, SIZE, SIZE)
    rows = torch.cat([images, versions], dim=1)
    figure = plots.new_figure(2.9, "Training images (left), and what --augment makes of them")
    ax = figure.subplots()
    ax.imshow(rows.transpose(1, 2).reshape(-1, rows.shape[1] * SIZE).numpy(), cmap="gray_r")
    ax.axvline(SIZE - 0.5, color="tab:blue")
    ax.axis("off")
    return figure


@torch.no_grad()
def draw_layers(model: nn.Module, image: torch.Tensor) -> Figure:
    """Draw one digit, uint8 [1, 28, 28], on its way through a trained LeNet-5, and the kernels of
    conv1, each beside its map."""
    assert isinstance(model, LeNet5)
    # As in its forward, but with ReLU before pooling, to show its maps.
    x = normalize(image)[None]
    conv1 = F.relu(model.conv1(x))
    pool1 = F.max_pool2d(conv1, 2)
    conv2 = F.relu(model.conv2(pool1))
    pool2 = F.max_pool2d(conv2, 2)
    fc1 = F.relu(model.fc1(pool2.flatten(1)))
    fc2 = F.relu(model.fc2(fc1))
    probabilities = model.fc3(fc2).softmax(dim=1)[0].numpy()

    stages = (  # title, size, maps [C, H, W], columns of maps
        ("input", "28×28", image.float(), 1),
        ("kernels", "5×5", model.conv1.weight[:, 0], 1),
        ("conv1", "6 maps\n28×28", conv1[0], 1),
        ("pool", "6 maps\n14×14", pool1[0], 1),
        ("conv2", "16 maps\n10×10", conv2[0], 2),
        ("pool", "16 maps\n5×5", pool2[0], 2),
        ("fc1", "120\nunits", fc1.view(120, 1, 1), 5),
        ("fc2", "84\nunits", fc2.view(84, 1, 1), 4),
    )
    title = "A digit on its way through LeNet-5\n(after ReLU; white: 0, black: the layer's largest)"
    figure = plots.new_figure(3.7, title)
    widths = [1.2, 1, 1, 1, 1.5, 1.5, 1.25, 1.15, 1.6]
    *panels, output = figure.subplots(1, len(widths), width_ratios=widths)
    for ax, (layer, size, maps, columns) in zip(panels, stages, strict=True):
        cmap = matplotlib.colormaps["RdBu" if layer == "kernels" else "gray_r"]
        cmap = cmap.with_extremes(bad="lightsteelblue")  # the gaps
        high = maps.abs().max()
        low = -high if layer == "kernels" else 0
        ax.imshow(stack_maps(maps, columns), cmap=cmap, vmin=low, vmax=high)
        ax.set_title(layer, fontsize=10)
        ax.set_xlabel(size, fontsize=9)
        ax.set(xticks=[], yticks=[], anchor="N")  # at the top: all titles are on one line
        ax.spines[:].set_visible(False)

    colors = ["tab:blue" if p == probabilities.max() else GRAY for p in probabilities]
    bars = output.barh(range(10), 100 * probabilities, color=colors)
    texts = [f"{p:.0%}" for p in probabilities]
    output.bar_label(bars, ["" if text == "0%" else text for text in texts], padding=2)
    output.set(yticks=range(10), xlim=(0, 200), xticks=[])
    output.tick_params(length=0)
    output.invert_yaxis()
    output.spines[["top", "right", "bottom"]].set_visible(False)
    output.set_title("softmax", fontsize=10)
    output.set_xlabel("10 prob-\nabilities", fontsize=9)
    return figure


def stack_maps(maps: torch.Tensor, columns: int) -> np.ndarray:
    """Put maps, [C, H, W], into one picture of `columns` columns, with gaps of NaN between them."""
    scale = 180 // (columns * maps.shape[2])  # so that all gaps are about equally wide
    large = maps.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    padded = F.pad(large, (3, 3, 3, 3), value=float("nan")).numpy()
    rows = np.split(padded, len(maps) // columns)
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
