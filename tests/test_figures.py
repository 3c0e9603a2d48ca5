"""The figures of the report show the numbers they are given, each in its place."""

import numpy as np
import pytest
import torch
from helpers import make_runs, span_of
from matplotlib.colors import to_hex
from torch.nn import functional as F

from dataset import MNIST, normalize
from model import LeNet5
from support.report import figures


@pytest.fixture
def effects():
    """Three techniques in two contexts: every number is another one."""
    numbers = {  # alone: difference, half-width, significant; with the others: the same
        "augment": ((0.3, 0.05, True), (0.2, 0.06, False)),
        "ema": ((-0.1, 0.04, False), (0.05, 0.02, True)),
        "dropout": ((0.1, 0.07, False), (-0.15, 0.03, True)),
    }
    return [
        {
            "name": name,
            "context": context,
            "difference": difference,
            "half_width": half_width,
            "significant": significant,
            "differences": difference + np.array([-0.01, 0.01]),
        }
        for name, both in numbers.items()
        for context, (difference, half_width, significant) in zip(
            ("alone", "with the others"), both, strict=True
        )
    ]


# --- which figure shows what ------------------------------------------------------------------


@pytest.fixture
def drawn(effects):
    """Every figure, of fresh rows that end at 90%, 91%, ... and misclassify other images each."""
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 28, 28)
    digits = MNIST((images.contiguous(), torch.arange(20) % 10))
    records = {
        f"fresh {row}": make_runs(
            (90 + place, 0.1),
            epochs=6,
            misclassified=({str(place): [place, 9]}, {str(place): [place, 9]}, {}),
            no_aug_epochs=3,
        )
        for place, row in enumerate(("mlp", "lenet5", "lenet5-long", "recipe", "mlp-recipe"))
    }
    records |= {"lenet5": make_runs()[:2]}
    return figures.draw_report(records, effects, digits, digits, LeNet5().eval())


def last_values(ax):
    """Where each curve ends, by its name."""
    return {line.get_label(): pytest.approx(line.get_ydata()[-1]) for line in ax.lines}


def test_every_curve_is_that_of_the_row_which_its_name_promises(drawn):
    [ax] = drawn["accuracy"].axes
    assert last_values(ax) == {
        **{"MLP": 90, "MLP, regularized": 94, "LeNet-5": 91},
        **{"LeNet-5, trained longer": 92, "LeNet-5, regularized": 93},
    }
    assert ax.get_ylabel().endswith(f"starts at {ax.get_ylim()[0]:.1f})")
    assert drawn["accuracy"].get_suptitle() == "Test accuracy by epoch: mean ± SD of 3 seeds"
    assert last_values(drawn["curves"].axes[3]) == {"LeNet-5": 91, "MLP": 90}
    assert not drawn["curves"].axes[3].patches
    assert last_values(drawn["regularized"].axes[3]) == {
        "LeNet-5, trained longer": 92,
        "LeNet-5, regularized": 93,
    }
    assert span_of(drawn["regularized"].axes[3].patches[0])[0] == 3.5  # no longer augmented
    assert "LeNet-5, 6 epochs" in drawn["regularized"].get_suptitle()


def test_images_are_those_that_the_fresh_networks_misclassify(drawn):
    left, right = drawn["confusions"].axes
    assert (left.get_title(), right.get_title()) == ("LeNet-5: 0.7 of 10,000", "MLP: 0.7 of 10,000")
    assert {text.get_position() for text in left.texts} == {(9, 1)}
    assert {text.get_position() for text in right.texts} == {(9, 0)}
    [text] = drawn["misclassified"].axes[0].texts
    assert text.get_text() == "3→9\n2/3"
    assert drawn["misclassified"].axes[0].images[0].get_array().max() == 3


def test_the_augmented_digits_are_the_first_of_their_kind_and_the_layers_those_of_the_first(drawn):
    sheet = drawn["augment"].axes[0].images[0].get_array()
    firsts = [sheet[28 * row, 0] for row in range(5)]
    assert firsts == pytest.approx([(digit / 255 - 0.1307) / 0.3081 for digit in (2, 3, 4, 7, 8)])
    assert np.nanmax(drawn["layers"].axes[0].images[0].get_array()) == 0


# --- the ablation -----------------------------------------------------------------------------


@pytest.fixture
def ablation(effects):
    return figures.draw_ablation(effects, seeds=2)


def test_each_effect_has_its_mean_its_interval_and_its_seeds_filled_where_it_counts(
    ablation, effects
):
    [ax] = ablation.axes
    dots = [line for line in ax.lines if line.get_marker() == "." and len(line.get_xdata())]
    for bar, seeds, effect in zip(ax.containers, dots, effects, strict=True):
        marker, _, [segments] = bar.lines
        mean, half = effect["difference"], effect["half_width"]
        assert marker.get_xdata() == pytest.approx([mean])
        [[(low, y), (high, _)]] = segments.get_segments()
        assert (low, high) == pytest.approx((mean - half, mean + half))
        assert seeds.get_xdata().tolist() == effect["differences"].tolist()
        assert {y} == set(marker.get_ydata()) == set(seeds.get_ydata())
        assert seeds.get_color() == marker.get_color()
        inside = marker.get_color() if effect["significant"] else "white"
        assert to_hex(marker.get_markerfacecolor()) == to_hex(inside)


def test_techniques_are_sorted_by_what_they_add_alone_the_best_on_top(ablation, effects):
    [ax] = ablation.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["averaged\nweights (EMA)", "dropout", "augmentation"]
    places = dict(zip(("ema", "dropout", "augment"), ax.get_yticks(), strict=True))
    for bar, effect in zip(ax.containers, effects, strict=True):
        [y] = bar.lines[0].get_ydata()
        assert 0 < abs(y - places[effect["name"]]) < 0.25
        assert (y > places[effect["name"]]) == (effect["context"] == "alone")
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)  # no effect
    assert ax.get_xlabel() == "percentage points, 95% intervals for all 6 at once"


def test_the_ablations_legend_tells_colors_and_fillings(ablation, effects):
    colors = {
        effect["context"]: bar.lines[0].get_color()
        for bar, effect in zip(ablation.axes[0].containers, effects, strict=True)
    }
    [legend] = ablation.legends
    texts = [text.get_text() for text in legend.get_texts()]
    handles = dict(zip(texts, legend.legend_handles, strict=True))
    assert handles["added to plain LeNet-5"].get_color() == colors["alone"]
    assert handles["added to the other four"].get_color() == colors["with the others"]
    assert handles["interval includes 0"].get_markerfacecolor() == "white"
    assert handles["one of 2 seeds"].get_marker() == "."


# --- digits -----------------------------------------------------------------------------------


def test_digits_that_half_of_the_networks_misclassify_are_drawn_the_hardest_first():
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 28, 28)
    misclassified = [
        {"12": [4, 9], "7": [1, 3], "3": [5, 6]},
        {"12": [4, 9], "7": [1, 2], "2": [0, 6]},
        {"12": [4, 8], "7": [1, 2]},
        {"5": [8, 0], "3": [5, 6]},
    ]
    figure = figures.draw_hard_digits(images, misclassified)
    assert figure.get_suptitle().startswith("Misread by at least half of the 4 regularized")
    [ax] = figure.axes
    assert [text.get_text() for text in ax.texts] == ["1→2\n3/4", "4→9\n3/4", "5→6\n2/4"]
    sheet = ax.images[0].get_array()
    assert [sheet[-1, int(text.get_position()[0])] for text in ax.texts] == [7, 12, 3]


def test_augmented_digits_stand_beside_their_own_original_the_same_each_time():
    images = normalize(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    images[0, 0, 8:20, 12:16] = 2.5
    images[1, 0, 12:16, 8:20] = 2.5
    (ax,), (other,) = (figures.draw_augmented(images).axes for _ in range(2))
    [border] = ax.lines
    assert list(border.get_xdata()) == [27.5, 27.5]  # between the first two of them
    sheet = ax.images[0].get_array()
    assert sheet.shape == (2 * 28, 11 * 28)
    assert np.array_equal(sheet, other.images[0].get_array())
    for row in range(2):
        strip = sheet[28 * row : 28 * row + 28]
        assert np.array_equal(strip[:, :28], images[row, 0])
        copies = [strip[:, 28 * place : 28 * place + 28] for place in range(1, 11)]
        bars = [np.argwhere(copy > 1).std(axis=0) for copy in copies]
        assert all((height > width) == (row == 0) for height, width in bars)  # upright, or lying
        assert len({copy.tobytes() for copy in copies}) == 10


# --- the way of a digit -----------------------------------------------------------------------


@torch.no_grad()
def test_every_layer_shows_what_the_network_computes_there_and_ends_with_probabilities():
    torch.manual_seed(0)
    model, image = LeNet5().eval(), torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    *panels, output = figures.draw_layers(model, image).axes
    conv1 = F.relu(model.conv1(normalize(image)[None]))
    conv2 = F.relu(model.conv2(F.max_pool2d(conv1, 2)))
    fc1 = F.relu(model.fc1(F.max_pool2d(conv2, 2).flatten(1)))
    expected = (
        ("input", "28×28", image),
        ("kernels", "5×5", model.conv1.weight),
        ("conv1", "6 maps\n28×28", conv1),
        ("pool", "6 maps\n14×14", F.max_pool2d(conv1, 2)),
        ("conv2", "16 maps\n10×10", conv2),
        ("pool", "16 maps\n5×5", F.max_pool2d(conv2, 2)),
        ("fc1", "120\nunits", fc1),
        ("fc2", "84\nunits", F.relu(model.fc2(fc1))),
    )
    for ax, (title, size, values) in zip(panels, expected, strict=True):
        assert (ax.get_title(), ax.get_xlabel()) == (title, size)
        drawn = set(np.ma.masked_invalid(ax.images[0].get_array()).compressed().tolist())
        assert sorted(drawn) == pytest.approx(sorted(set(values.flatten().tolist())))
        low, high = ax.images[0].get_clim()
        assert low == (-high if title == "kernels" else 0)  # which is white
        assert high == values.abs().max()
    probabilities = model(normalize(image)[None]).softmax(dim=1)[0]
    assert [bar.get_width() for bar in output.patches] == pytest.approx(
        (100 * probabilities).tolist()
    )
    marked = [to_hex(bar.get_facecolor()) == to_hex("tab:blue") for bar in output.patches]
    assert marked == [digit == int(probabilities.argmax()) for digit in range(10)]
    assert [text.get_text() for text in output.texts] == [f"{p:.0%}" for p in probabilities]


def test_maps_stand_in_columns_each_whole_and_with_gaps_between_them():
    maps = torch.arange(4 * 2 * 3, dtype=torch.float32).view(4, 2, 3)
    picture = figures.stack_maps(maps, columns=2)
    shown = picture[~np.isnan(picture)].reshape(4 * 30, 6 * 30)[::30, ::30]  # enlarged by 30
    above, below = torch.cat([*maps[:2]], dim=1), torch.cat([*maps[2:]], dim=1)
    assert shown.tolist() == [*above.tolist(), *below.tolist()]
    assert picture.shape == (2 * (2 * 30 + 6), 2 * (3 * 30 + 6))


def test_all_columns_of_layers_are_in_line_and_about_equally_high():
    figure = figures.draw_layers(LeNet5().eval(), torch.zeros(1, 28, 28, dtype=torch.uint8))
    figure.draw_without_rendering()
    boxes = [ax.get_position() for ax in figure.axes[1:-1]]
    assert [box.y1 for box in boxes] == pytest.approx([boxes[0].y1] * 7)
    heights = [box.height for box in boxes]
    assert max(heights) < 1.05 * min(heights)
