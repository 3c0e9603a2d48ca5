"""The figures of the report show the numbers they are given, each in its place."""

import numpy as np
import pytest
import torch
from helpers import legend_of
from matplotlib.colors import to_hex
from torch.nn import functional as F

from dataset import normalize
from model import LeNet5
from support.report import figures

# --- the ablation -----------------------------------------------------------------------------


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


@pytest.fixture
def ablation(saved, effects):
    figures.save_ablation("x.png", effects, seeds=2)
    return saved[0].axes[0]


def test_each_effect_has_a_marker_at_its_mean_and_a_bar_as_long_as_its_interval(ablation, effects):
    assert len(ablation.containers) == len(effects)
    for bar, effect in zip(ablation.containers, effects, strict=True):
        marker, _, [segments] = bar.lines
        assert marker.get_xdata() == pytest.approx([effect["difference"]])
        [[(low, y), (high, _)]] = segments.get_segments()
        assert (low, high) == pytest.approx(
            (
                effect["difference"] - effect["half_width"],
                effect["difference"] + effect["half_width"],
            )
        )
        assert [y] == marker.get_ydata()


def test_a_marker_is_filled_only_where_its_effect_counts(ablation, effects):
    for bar, effect in zip(ablation.containers, effects, strict=True):
        marker = bar.lines[0]
        filled = to_hex(marker.get_markerfacecolor()) == to_hex(marker.get_color())
        assert filled == effect["significant"]
        assert filled or to_hex(marker.get_markerfacecolor()) == "#ffffff"


def test_every_seed_of_an_effect_is_a_dot_beside_its_marker(ablation, effects):
    dots = [line for line in ablation.lines if line.get_marker() == "." and len(line.get_xdata())]
    for line, bar, effect in zip(dots, ablation.containers, effects, strict=True):
        assert line.get_xdata().tolist() == effect["differences"].tolist()
        assert set(line.get_ydata()) == set(bar.lines[0].get_ydata())
        assert line.get_color() == bar.lines[0].get_color()


def test_techniques_are_sorted_by_what_they_add_alone_the_best_on_top(ablation, effects):
    labels = [label.get_text() for label in ablation.get_yticklabels()]
    assert labels == ["averaged weights (EMA)", "dropout", "augmentation"]
    places = dict(zip(("ema", "dropout", "augment"), ablation.get_yticks(), strict=True))
    for bar, effect in zip(ablation.containers, effects, strict=True):
        [y] = bar.lines[0].get_ydata()
        shift = 0.14 if effect["context"] == "alone" else -0.14
        assert y == pytest.approx(places[effect["name"]] + shift)


def test_the_ablations_legend_tells_colors_and_fillings(ablation, effects):
    colors = {
        effect["context"]: bar.lines[0].get_color()
        for bar, effect in zip(ablation.containers, effects, strict=True)
    }
    handles = dict(zip(legend_of(ablation), ablation.get_legend().legend_handles, strict=True))
    assert handles["added to plain LeNet-5"].get_color() == colors["alone"]
    assert handles["added to the other four"].get_color() == colors["with the others"]
    open_one, filled = (
        handles["open: it does not"],
        handles["filled: the interval excludes 0"],
    )
    assert open_one.get_markerfacecolor() == "white"
    assert filled.get_markerfacecolor() == filled.get_color()
    assert handles["one seed"].get_marker() == "."


def test_the_ablations_axis_marks_no_effect_and_counts_points_and_images(ablation):
    assert any(list(line.get_xdata()) == [0, 0] for line in ablation.lines)
    assert ablation.get_xlabel() == (
        "percentage points (2 seeds, paired), 95% intervals for all 6 at once"
    )
    [images] = ablation.child_axes
    assert images.get_xlabel() == "fewer errors in 10,000 test images"
    to_images, to_points = images._functions  # the one way to ask a secondary axis
    assert (to_images(0.3), to_points(30)) == pytest.approx((30, 0.3))


# --- single images ----------------------------------------------------------------------------


def test_confusions_stand_side_by_side_in_the_same_shades(saved):
    first, second = np.zeros((10, 10)), np.zeros((10, 10))
    first[4, 9], first[9, 4], second[3, 5] = 2.5, 1, 8
    figures.save_confusions("x.png", {"LeNet-5": first, "MLP": second})
    left, right, _ = saved[0].axes
    assert (left.get_title(), right.get_title()) == ("LeNet-5: 3.5 of 10,000", "MLP: 8.0 of 10,000")
    assert left.images[0].get_clim() == right.images[0].get_clim() == (0, 8)
    texts = {text.get_position(): text.get_text() for text in left.texts}
    assert texts == {(9, 4): "2.5", (4, 9): "1.0"}


def test_digits_that_half_of_the_networks_misclassify_are_drawn_the_hardest_first(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_digits", lambda *arguments: drawn.append(arguments))
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 28, 28)
    misclassified = [
        {"12": [4, 9], "7": [1, 3], "3": [5, 6]},
        {"12": [4, 9], "7": [1, 2], "2": [0, 6]},
        {"12": [4, 8], "7": [1, 2]},
        {"5": [8, 0], "3": [5, 6]},
    ]
    figures.save_hard_digits("x.png", images, misclassified)
    [(path, title, shown, texts)] = drawn
    assert path == "x.png"
    assert title.startswith("Test images that at least half of the 4 networks")
    assert shown[:, 0, 0, 0].tolist() == [7, 12, 3]
    assert texts == ["1→2  3/4", "4→9  3/4", "5→6  2/4"]


def test_augmented_digits_stand_beside_their_own_original_the_same_each_time(saved):
    images = normalize(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    images[0, 0, 8:20, 12:16] = 2.5
    images[1, 0, 12:16, 8:20] = 2.5
    for _ in range(2):
        figures.save_augmented("x.png", images)
    [border] = saved[0].axes[0].lines
    assert list(border.get_xdata()) == [27.5, 27.5]  # between the first two of them
    sheet, again = (figure.axes[0].images[0].get_array() for figure in saved)
    assert sheet.shape == (2 * 28, 11 * 28)
    assert np.array_equal(sheet, again)
    for row in range(2):
        strip = sheet[28 * row : 28 * row + 28]
        assert np.array_equal(strip[:, :28], images[row, 0])
        copies = [strip[:, 28 * place : 28 * place + 28] for place in range(1, 11)]
        bars = [np.argwhere(copy > 1).std(axis=0) for copy in copies]
        assert all((height > width) == (row == 0) for height, width in bars)  # upright, or lying
        assert len({copy.tobytes() for copy in copies}) == 10


@pytest.fixture
def way(saved):
    """A LeNet-5, a digit, and the 14 panels of its way through it."""
    torch.manual_seed(0)
    model, image = LeNet5().eval(), torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    figures.save_layers("x.png", model, image)
    return model, image, saved[0].axes[:14]


@torch.no_grad()
def test_every_layer_shows_what_the_network_computes_there(way):
    model, image, panels = way
    conv1 = F.relu(model.conv1(normalize(image)[None]))
    conv2 = F.relu(model.conv2(F.max_pool2d(conv1, 2)))
    fc1 = F.relu(model.fc1(F.max_pool2d(conv2, 2).flatten(1)))
    expected = {
        ("input", "1×28×28"): image,
        ("conv1, ReLU", "6×28×28"): conv1,
        ("max pooling", "6×14×14"): F.max_pool2d(conv1, 2),
        ("conv2, ReLU", "16×10×10"): conv2,
        ("max pooling", "16×5×5"): F.max_pool2d(conv2, 2),
        ("fc1, ReLU", "120 units"): fc1,
        ("fc2, ReLU", "84 units"): F.relu(model.fc2(fc1)),
    }
    for ax, ((title, size), values) in zip(panels[:7], expected.items(), strict=True):
        assert (ax.get_title(), ax.texts[0].get_text()) == (title, size)
        # In any order: two columns of maps are drawn row by row.
        drawn = np.ma.masked_invalid(ax.images[0].get_array()).compressed()
        assert sorted(drawn) == pytest.approx(sorted(values.flatten().tolist()))


def test_maps_stand_in_columns_each_whole_and_with_gaps_between_them():
    maps = torch.arange(4 * 2 * 3, dtype=torch.float32).view(4, 2, 3)
    picture = figures.stack_maps(maps, columns=2)
    assert picture.shape == (2 * (2 + 2), 2 * (3 + 2))
    assert np.array_equal(picture[1:3, 1:4], maps[0])
    assert np.array_equal(picture[1:3, 6:9], maps[1])
    assert np.array_equal(picture[5:7, 1:4], maps[2])
    assert np.isnan(picture).sum() == picture.size - maps.numel()


@torch.no_grad()
def test_the_way_ends_with_the_networks_probabilities_the_largest_marked(way):
    model, image, panels = way
    probabilities = model(normalize(image)[None]).softmax(dim=1)[0]
    bars = panels[7].patches
    assert [bar.get_width() for bar in bars] == pytest.approx((100 * probabilities).tolist())
    marked = [to_hex(bar.get_facecolor()) == to_hex("tab:blue") for bar in bars]
    assert marked == [digit == int(probabilities.argmax()) for digit in range(10)]
    texts = [text.get_text() for text in panels[7].texts[:10]]
    assert texts == [f"{probability:.1%}" for probability in probabilities]


def test_probabilities_that_round_to_0_have_no_number(saved):
    ax = figures.new_figure(2, 2, "").subplots()
    figures.draw_probabilities(ax, np.array([0.0004, 0.0006, 0.999] + 7 * [0.0]))
    assert [text.get_text() for text in ax.texts[:10]] == ["", "0.1%", "99.9%"] + 7 * [""]


def test_every_layer_has_a_frame_and_every_unit_of_a_linear_layer_its_own(way):
    _, _, panels = way
    for ax in (*panels[:7], *panels[8:]):
        assert all(spine.get_visible() for spine in ax.spines.values())
        assert ax.axison
    for ax, units in zip(panels[5:7], (120, 84), strict=True):
        assert len(ax.get_xticks()) * len(ax.get_yticks()) == units
        assert all(line.get_visible() for line in ax.get_xgridlines() + ax.get_ygridlines())


def test_all_columns_of_layers_are_equally_high_and_in_line(way):
    _, _, panels = way
    figure = panels[0].figure.figure
    figure.draw_without_rendering()
    heights = [ax.get_position() for ax in panels[1:7]]
    assert [box.y1 for box in heights] == pytest.approx(6 * [heights[0].y1])
    assert [box.y0 for box in heights] == pytest.approx(6 * [heights[0].y0])


@torch.no_grad()
def test_kernels_are_drawn_in_order_and_white_is_0(way):
    model, _, panels = way
    for ax, kernel in zip(panels[8:], model.conv1.weight[:, 0], strict=True):
        assert np.array_equal(ax.images[0].get_array(), kernel)
        low, high = ax.images[0].get_clim()
        assert -low == high == model.conv1.weight.abs().max()
