"""A person's own images: whatever they look like, the network sees a digit in MNIST's form."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from photographs import GOOD, HARD, KINDS, LENET5, SMALL, reading, redrawn_with_a_pen, table_of
from PIL import Image, ImageDraw, ImageOps
from scipy import ndimage

import main
from dataset import MNIST, find_split, normalize
from support.checkpoint import load_model
from support.errors import DataError, RunError
from support.prediction import (
    classify,
    find_digit,
    predict_images,
    prediction_line,
    read_digit,
    to_mnist_form,
)


def draw_seven(mode="L", ground=255, ink=0, size=(200, 300), place=(60, 80), width=16):
    """A seven with a dark bar above and a leg that leans to the left."""
    image = Image.new(mode, size, ground)
    x, y = place
    ImageDraw.Draw(image).line(
        [(x, y), (x + 80, y), (x + 40, y + 140)], fill=ink, width=width, joint="curve"
    )
    return image


def seen(path) -> np.ndarray:
    return read_digit(path)[0].numpy()


def difference(image: np.ndarray, other: np.ndarray) -> float:
    """The mean difference of two images' pixels, of which one may lie a pixel away: the center of
    mass is rounded to pixels."""
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min(
        np.abs(image.astype(int) - np.roll(other, shift, axis=(0, 1))).mean() for shift in shifts
    )


def center(image: np.ndarray) -> tuple[float, float]:
    rows, columns = np.mgrid[:28, :28]
    return (image * rows).sum() / image.sum(), (image * columns).sum() / image.sum()


def test_the_digit_is_brought_to_mnists_form(tmp_path):
    draw_seven().save(tmp_path / "seven.png")
    image = read_digit(tmp_path / "seven.png")
    assert image.dtype == torch.uint8
    assert image.shape == (1, 28, 28)
    rows, columns = (image[0] > 0).nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == 20  # the longer side
    assert 9 <= columns.max() - columns.min() + 1 <= 15  # its ratio is kept
    assert center(image[0].numpy()) == pytest.approx((13.5, 13.5), abs=0.6)
    assert image.max() == 255
    assert image[0, 0, 0] == 0


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("light on dark", {"ground": 20, "ink": 240}),
        ("low contrast", {"ground": 200, "ink": 120}),
        ("colored, of equal brightness", {"mode": "RGB", "ground": "#d00000", "ink": "#007000"}),
        ("dark on transparent", {"mode": "RGBA", "ground": (0, 0, 0, 0), "ink": "black"}),
        ("white on transparent", {"mode": "RGBA", "ground": (0, 0, 0, 0), "ink": "white"}),
        ("palette", {"mode": "P", "ground": 0, "ink": 1}),
        ("gray with opacity", {"mode": "LA", "ground": (255, 255), "ink": (0, 255)}),
        ("black and white", {"mode": "1", "ground": 1, "ink": 0}),
        ("16 bits", {"mode": "I;16", "ground": 60_000, "ink": 500}),
        ("elsewhere", {"place": (10, 10)}),
        ("small in a large picture", {"size": (1000, 1500), "place": (700, 900)}),
        ("large", {}),
    ],
)
def test_whatever_the_image_the_network_sees_the_same(tmp_path, kind, options):
    draw_seven().save(tmp_path / "plain.png")
    image = draw_seven(**options)
    if kind == "palette":
        image.putpalette([250, 240, 200, 40, 60, 160])
    if kind == "large":
        image = image.resize((2000, 3000))
    image.save(tmp_path / "other.png")
    apart = np.abs(seen(tmp_path / "plain.png").astype(int) - seen(tmp_path / "other.png"))
    assert apart.mean() < 6


FORMATS = {
    "png": "1 L LA P RGB RGBA I;16",
    "jpg": "L RGB CMYK",
    "gif": "L P RGB",
    "bmp": "1 L P RGB",
    "tiff": "1 L LA P RGB RGBA CMYK F",
    "webp": "RGB RGBA",
    "ppm": "1 L RGB",
    "tga": "L LA RGB RGBA",
    "pcx": "1 L RGB",
    "jp2": "L RGB RGBA",
    "ico": "RGBA",
    "sgi": "L RGB",
}


@pytest.mark.parametrize(
    ("ending", "mode"),
    [(ending, mode) for ending, modes in FORMATS.items() for mode in modes.split()],
)
def test_any_format_is_read(tmp_path, ending, mode):
    draw_seven().save(tmp_path / "plain.png")
    draw_seven().convert(mode).save(tmp_path / f"seven.{ending}")
    apart = np.abs(seen(tmp_path / "plain.png").astype(int) - seen(tmp_path / f"seven.{ending}"))
    assert apart.mean() < 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.png", "cannot be read (No such file or directory); name another"),
        ("text.png", "is not an image that Pillow can read; name another"),
        ("huge.png", "cannot be read (it has more than 64 megapixels); name another"),
        ("nan.tiff", "cannot be read (it has pixels that are no numbers); name another"),
        (
            "blank.png",
            "no digit stands out from its background; show one, dark on light or light on dark, "
            "with a free border",
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, name, reason):
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    Image.new("1", (8001, 8000)).save(tmp_path / "huge.png")  # 8 kB, and gigabytes once decoded
    Image.fromarray(np.full((50, 50), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    Image.new("L", (50, 50)).save(tmp_path / "blank.png")
    with pytest.raises(DataError) as raised:
        read_digit(tmp_path / name)
    assert str(raised.value) == f"{tmp_path / name}: {reason}"


def test_a_turned_photo_is_set_upright(tmp_path):
    draw_seven().save(tmp_path / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned by 90 degrees
    draw_seven().rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(seen(tmp_path / "plain.png"), seen(tmp_path / "turned.png"))


def noise(amount):
    rng = np.random.default_rng(0)
    pixels = 180 + rng.normal(0, amount, (300, 300))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (100, 100), 255),
        Image.new("L", (1, 1), 0),
        Image.new("RGBA", (100, 100), (0, 0, 0, 0)),
        noise(8),
        draw_seven(ground=128, ink=120),
    ],
    ids=["white", "one pixel", "transparent", "noise", "a mark nobody sees"],
)
def test_an_image_without_a_mark_is_refused(tmp_path, image):
    image.save(tmp_path / "blank.png")
    with pytest.raises(DataError, match=r"blank\.png: no digit"):
        read_digit(tmp_path / "blank.png")


@pytest.fixture
def checkpoint(start, tmp_path):
    """A network that was trained on a few images; what it reads does not matter here."""
    start("--epochs", 1, results=tmp_path / "r")
    return tmp_path / "r" / "checkpoints" / "lenet5.pt"


def test_predict_tells_each_image_and_goes_on_after_a_bad_one(
    start, tmp_path, checkpoint, monkeypatch
):
    for name in ("a.png", "b.jpg"):
        draw_seven().save(tmp_path / name)
    Image.new("L", (50, 50)).save(tmp_path / "blank.png")
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait forever
    monkeypatch.chdir(tmp_path)
    process = start(
        *("--predict", "a.png", "blank.png", "text.png", "missing.png", "pipe.png", "b.jpg"),
        *("--checkpoint", checkpoint),
        code=1,
    )
    first, second = process.stdout.splitlines()
    assert first.startswith("a.png: ")
    assert second.startswith("b.jpg: ")
    errors = process.stderr.splitlines()
    assert [line.split(":")[:2] for line in errors] == [
        ["error", f" {name}"] for name in ("blank.png", "text.png", "missing.png", "pipe.png")
    ]


def test_json_gives_the_digit_and_the_runner_up(tmp_path, checkpoint, capsys):
    draw_seven().save(tmp_path / "a.png")
    main.command(["--predict", str(tmp_path / "a.png"), "--checkpoint", str(checkpoint), "--json"])
    told = json.loads(capsys.readouterr().out)
    model = load_model(checkpoint)
    with torch.no_grad():
        probabilities = model(normalize(read_digit(tmp_path / "a.png"))[None]).softmax(dim=1)[0]
    best, other = probabilities.argsort(descending=True)[:2].tolist()
    assert told["image"] == str(tmp_path / "a.png")
    assert (told["digit"], told["runner_up"]) == (best, other)
    assert told["probability"] == pytest.approx(probabilities[best].item(), abs=1e-6)
    assert told["runner_up_probability"] == pytest.approx(probabilities[other].item(), abs=1e-6)


def test_save_inputs_writes_what_the_network_saw(tmp_path, checkpoint):
    paths = [tmp_path / "a.png", tmp_path / "b.jpg"]
    for path in paths:
        draw_seven().save(path)
    inputs = tmp_path / "inputs"
    main.command(
        [
            *("--predict", *map(str, paths), "--checkpoint", str(checkpoint)),
            *("--save-inputs", str(inputs)),
        ]
    )
    assert sorted(path.name for path in inputs.iterdir()) == ["001_a.png", "002_b.png"]
    with Image.open(inputs / "001_a.png") as image:
        assert np.array_equal(np.asarray(image), seen(paths[0]))


def test_a_drawing_is_a_ramp_of_its_blurred_pixels(tmp_path):
    """So simply that a web page can repeat it in JavaScript."""
    draw_seven("RGB", "white", "black", size=(280, 280)).save(tmp_path / "drawing.png")
    pixels = np.asarray(draw_seven(size=(280, 280)), np.float32)
    contrast = 255 - ndimage.uniform_filter(pixels, 3, mode="nearest")
    full = np.median(contrast[contrast > contrast.max() / 2])
    ink = ((contrast - full / 4) / (full - full / 4)).clip(0, 1)
    image = to_mnist_form(ink)[0].numpy().astype(int)
    assert np.abs(image - seen(tmp_path / "drawing.png")).max() <= 1


@pytest.mark.parametrize("name", ["rules", "squares", "shadow", "table", "speck"])
def test_what_is_no_digit_is_not_seen(tmp_path, name):
    draw_seven().save(tmp_path / "plain.png")
    image = draw_seven()
    pixels = np.array(image)
    if name in ("rules", "squares"):
        pixels[15::40] = pixels[16::40] = np.minimum(pixels[15::40], 90)
    if name == "squares":
        pixels[:, 15::40] = pixels[:, 16::40] = np.minimum(pixels[:, 15::40], 90)
    if name == "shadow":
        pixels[:, 100:] //= 2
    if name == "table":
        pixels[250:] = 80
    if name == "speck":
        pixels[30:36, 150:156] = 0
    Image.fromarray(pixels).save(tmp_path / "other.png")
    assert difference(seen(tmp_path / "plain.png"), seen(tmp_path / "other.png")) < 6


def test_doubt_is_told(tmp_path):
    two = draw_seven(size=(400, 300))
    two.paste(draw_seven().crop((40, 60, 160, 240)), (250, 60))
    two.save(tmp_path / "two.png")
    draw_seven().crop((90, 0, 200, 300)).save(tmp_path / "cut.png")
    draw_seven().save(tmp_path / "good.png")
    assert find_digit(tmp_path / "two.png")[1] == ["there is more than one mark"]
    assert find_digit(tmp_path / "cut.png")[1] == ["it is cut off by the border"]
    assert find_digit(tmp_path / "good.png")[1] == []


BAR = (20, 60, 60, 8)


@pytest.mark.parametrize(
    ("box", "part", "doubts"),
    [
        ((20, 130, 60, 8), False, ["there is more than one mark"]),  # another digit
        ((20, 80, 60, 8), False, ["there is more than one mark"]),  # close, but as tall
        ((20, 73, 14, 20), True, []),  # a five's bar, beside its body
        ((83, 60, 12, 8), True, []),  # below it: the pen was lifted
        ((20, 130, 5, 5), False, []),  # a speck
        ((0, 130, 40, 8), False, []),  # touches a side, as a table does
    ],
)
def test_marks_close_to_the_digit_are_part_of_it_and_others_are_not(tmp_path, box, part, doubts):
    """Boxes are (top, left, height, width)."""
    for name, boxes in (("alone.png", [BAR]), ("two.png", [BAR, box])):
        pixels = np.full((99, 160), 230, np.uint8)
        for top, left, height, width in boxes:
            pixels[top : top + height, left : left + width] = 20
        Image.fromarray(pixels).save(tmp_path / name)
    image, told = find_digit(tmp_path / "two.png")
    assert told == doubts
    assert (difference(image[0].numpy(), seen(tmp_path / "alone.png")) > 3) == part


def test_a_tip_may_touch_the_border(tmp_path):
    """As those of some of MNIST's own digits do."""
    for width, doubts in ((3, []), (4, ["it is cut off by the border"])):
        pixels = np.zeros((28, 28), np.uint8)
        pixels[4:24, 10:14] = 255
        pixels[:5, 10 : 10 + width] = 255
        Image.fromarray(pixels).save(tmp_path / "one.png")
        assert find_digit(tmp_path / "one.png")[1] == doubts


@pytest.mark.parametrize("colors", [(255, 0), (30, 220)])
@pytest.mark.parametrize("width", [8, 14, 34])
def test_a_digit_cropped_to_its_box_is_read_as_it_is_with_paper_around(tmp_path, colors, width):
    ground, ink = colors
    image = draw_seven(ground=ground, ink=ink, width=width)
    image.save(tmp_path / "plain.png")
    image.crop(image.point(lambda value: 255 * (value == ink)).getbbox()).save(
        tmp_path / "cropped.png"
    )
    digit, doubts = find_digit(tmp_path / "cropped.png")
    assert doubts == []
    assert difference(digit[0].numpy(), seen(tmp_path / "plain.png")) < 6


def network_of(as_it_is, to_the_left, to_the_right):
    """A network that sees those logits in an image with a mark above its middle, and the others
    where that is turned."""

    def model(images):
        columns = images[:, 0].amax(dim=1).argmax(dim=1)  # the brightest of each image
        turn = torch.sign(columns - 13).long()
        return torch.tensor([as_it_is, to_the_right, to_the_left])[turn]

    return model


def logits_of(digit, probability):
    """Logits of 10 digits: one has the probability, the next one the rest."""
    values = torch.full((10,), -30.0, dtype=torch.float64)
    values[digit], values[(digit + 1) % 10] = np.log(probability), np.log(1 - probability)
    return values.tolist()


@pytest.mark.parametrize(
    ("seen", "sure"),
    [
        ([(7, 0.99), (7, 0.99), (7, 0.99)], True),
        ([(7, 0.5001), (7, 0.99), (7, 0.99)], True),  # in doubt, but when it is turned, it is clear
        ([(7, 0.99), (2, 0.99), (2, 0.99)], False),
        ([(7, 0.58), (7, 0.68), (7, 0.68)], True),  # a mean of 0.66 is enough
        ([(7, 0.7), (7, 0.62), (7, 0.63)], False),  # one of 0.64 is not
        ([(7, 0.7), (7, 0.99), (7, 0.3)], True),  # whichever way it is turned
    ],
)
def test_the_network_is_sure_of_what_it_sees_in_the_turned_image_as_well(seen, sure):
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 3:6, 13:16] = 255
    model = network_of(*(logits_of(*reading) for reading in seen))
    probabilities, told = classify(image, model, torch.device("cpu"))
    assert told is sure
    digit, probability = seen[0]  # what is reported is of the image as it is
    assert probabilities.shape == (10,)
    assert probabilities[digit].item() == pytest.approx(probability, abs=1e-5)


def test_the_network_sees_the_image_turned_by_15_and_30_degrees_either_way():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 3:6, 12:16] = 255  # above the middle
    batches = []
    classify(image, lambda x: batches.append(x) or torch.zeros(5, 10), torch.device("cpu"))
    [images] = batches
    rows, columns = zip(*(center(x[0].numpy()) for x in images - images.min()), strict=True)
    angles = np.degrees(np.arctan2(np.array(columns) - 13.5, 13.5 - np.array(rows)))
    assert sorted(angles) == pytest.approx([-30, -15, 0, 15, 30], abs=1)


@pytest.mark.parametrize("as_json", [False, True])
def test_doubt_of_the_network_is_told(tmp_path, capsys, as_json):
    draw_seven().save(tmp_path / "seven.png")
    paths = [tmp_path / "seven.png"]
    for probability, warning in ((0.99, None), (0.5001, "the network is unsure")):
        model = network_of(*[logits_of(7, probability)] * 3)
        predict_images(paths, model, torch.device("cpu"), as_json, None)
        line = capsys.readouterr().out
        if as_json:
            assert json.loads(line)["warning"] == warning
        else:
            assert line.endswith(f" - look again: {warning}\n") == (warning is not None)


def test_a_network_that_diverged_is_told_in_one_line(tmp_path):
    """And no NaN is written, which is no JSON."""
    draw_seven().save(tmp_path / "seven.png")
    model = network_of(*[[float("nan")] * 10] * 3)
    with pytest.raises(RunError, match="the network's output is no number; name another"):
        predict_images([tmp_path / "seven.png"], model, torch.device("cpu"), True, None)


@pytest.mark.parametrize("warning", [None, "it is odd; it is cut off"])
def test_a_prediction_is_told_in_a_line_or_as_json(warning):
    probabilities = torch.zeros(10, dtype=torch.float64)
    probabilities[7], probabilities[2] = 0.89, 0.11
    doubts = warning.split("; ") if warning else []
    told = json.loads(prediction_line(Path("a.png"), probabilities, doubts, as_json=True))
    assert told == {
        "image": "a.png",
        "digit": 7,
        "probability": 0.89,
        "runner_up": 2,
        "runner_up_probability": 0.11,
        "warning": warning,
    }
    line = prediction_line(Path("a.png"), probabilities, doubts, as_json=False)
    assert line == "a.png: 7 (89.0%), else 2 (11.0%)" + (
        f" - look again: {warning}" if warning else ""
    )


def test_each_doubt_is_told_once(tmp_path):
    """Though a small mark in a large picture is looked at twice."""
    image = draw_seven(size=(2400, 1600), place=(60, 80), width=8)
    for left in (400, 800):
        image.paste(draw_seven(width=8).crop((40, 60, 160, 240)), (left, 60))
    image.resize((1600, 1066)).save(tmp_path / "many.png")
    assert find_digit(tmp_path / "many.png")[1] == ["there is more than one mark"]


@pytest.mark.parametrize("width", [1, 2, 4, 8, 12, 16, 20, 36, 50])
def test_thin_strokes_become_two_pixels_wide_and_others_stay_as_wide(width):
    """In ink of 200 pixels, that is a tenth as many in MNIST's form."""
    ink = np.zeros((260, 260), np.float32)
    ink[30:230, 30 : 30 + width] = ink[30 : 30 + width, 30:230] = 1  # an L, lying
    across = to_mnist_form(ink)[0, 20].numpy() / 255
    assert across.sum() == pytest.approx(max(width / 10, 2), abs=0.3)


def test_a_thin_pen_is_read_as_a_thick_one(tmp_path):
    draw_seven(width=14).save(tmp_path / "thick.png")
    for factor in (1, 8):  # a pen of 2 pixels, and of 1 in a picture of 1,600x2,400
        image = draw_seven(size=(200, 300), width=2)
        image.resize((factor * 200, factor * 300)).save(tmp_path / "thin.png")
        assert difference(seen(tmp_path / "thin.png"), seen(tmp_path / "thick.png")) < 6


@pytest.mark.parametrize(
    ("shape", "width", "filled"),
    [("seven", 4, True), ("seven", 24, False), ("round loop", 4, False), ("flat loop", 4, False)],
)
def test_a_digit_drawn_as_an_outline_is_seen_as_a_solid_one(tmp_path, shape, width, filled):
    """A loop is not filled: it is round, or flatter than its line is wide."""
    points = {
        "seven": [(50, 50), (190, 50), (120, 250), (80, 250), (130, 100), (50, 100)],
        "round loop": [(60, 60), (180, 60), (180, 240), (60, 240)],
        "flat loop": [(100, 50), (107, 50), (107, 250), (100, 250)],
    }[shape]
    for name, fill in (("outline", "white"), ("solid", "black")):
        image = Image.new("L", (240, 300), "white")
        ImageDraw.Draw(image).polygon(points, fill)
        ImageDraw.Draw(image).line([*points, *points[:2]], "black", width, "curve")
        image.save(tmp_path / f"{name}.png")
    apart = difference(seen(tmp_path / "outline.png"), seen(tmp_path / "solid.png"))
    assert (apart < 3) == filled


def test_ink_in_mnists_form_is_averaged_scaled_and_centered():
    rng = np.random.default_rng(0)
    ink = np.zeros((90, 70), np.float32)
    ink[8:68, 20:50] = rng.uniform(0.6, 0.9, (60, 30))  # 60x30: to 20x10, of 3x3 each
    small = ink[8:68, 20:50].reshape(20, 3, 10, 3).mean(axis=(1, 3))
    small /= small.max()
    rows, columns = np.mgrid[:20, :10]
    top = round(13.5 - (small * rows).sum() / small.sum())
    left = round(13.5 - (small * columns).sum() / small.sum())
    expected = np.zeros((28, 28))
    expected[top : top + 20, left : left + 10] = 255 * small
    image = to_mnist_form(ink)
    assert image.dtype == torch.uint8
    assert np.abs(image[0].numpy() - expected).max() <= 0.51


def test_a_digit_whose_weight_lies_at_its_end_stays_within_the_picture():
    ink = np.full((200, 40), 0.01, np.float32)
    ink[:20] = 1
    image = to_mnist_form(ink)[0].numpy()
    assert image[8:10].max() == 255
    assert image[:8].max() == 0
    assert image[27].max() == 3  # round(255 * 0.01): the last row of ink is the picture's
    assert np.array_equal(image, to_mnist_form(ink[:, ::-1])[0].numpy())
    assert (to_mnist_form(np.ones((400, 2), np.float32)) > 200).sum() == 2 * 20


@pytest.mark.parametrize(("power", "strength"), [(2, 0.35), (2, 0.5), (4, 0.35), (4, 0.5)])
@pytest.mark.parametrize("ink", [30, 130])
def test_dark_corners_are_no_digit(tmp_path, power, strength, ink):
    """As many lenses make them: light falls off from the middle."""
    image = draw_seven("L", 230, ink, size=(300, 300), place=(110, 80))
    image.save(tmp_path / "plain.png")
    y, x = np.mgrid[-1:1:300j, -1:1:300j]
    light = 1 - strength * (np.hypot(x, y) / 2**0.5) ** power
    Image.fromarray((np.asarray(image) * light).astype(np.uint8)).save(tmp_path / "dark.png")
    digit, doubts = find_digit(tmp_path / "dark.png")
    assert doubts == []
    assert difference(digit[0].numpy(), seen(tmp_path / "plain.png")) < 8


# --- sheets -----------------------------------------------------------------------------------


def draw_sheet(corners, sheet=230, table=60, ink=30, size=(480, 480), place=(200, 180)):
    image = Image.new("L", size, table)
    ImageDraw.Draw(image).polygon([tuple(corner) for corner in corners], fill=sheet)
    x, y = place
    line = [(x, y), (x + 60, y), (x + 30, y + 105)]
    ImageDraw.Draw(image).line(line, fill=ink, width=11, joint="curve")
    return image


SHEET_PLACES = {
    "all sides": [(90, 70), (400, 70), (400, 420), (90, 420)],
    "three sides": [(90, 70), (400, 70), (400, 480), (90, 480)],
    "two sides": [(90, 70), (480, 70), (480, 480), (90, 480)],
    "opposite sides": [(90, 0), (400, 0), (400, 480), (90, 480)],
    "turned": [(80, 150), (330, 60), (420, 310), (170, 400)],
    "trapezoid": [(130, 90), (360, 90), (400, 400), (90, 400)],
}


@pytest.mark.parametrize(("sheet", "table", "ink"), [(230, 60, 30), (40, 200, 220)])
@pytest.mark.parametrize("name", [name for name in SHEET_PLACES if name != "turned"])
def test_the_digit_is_read_on_a_sheet(tmp_path, name, sheet, table, ink):
    corners = SHEET_PLACES[name]
    draw_sheet(corners, sheet, table, ink).save(tmp_path / "sheet.png")
    draw_sheet(corners, 230, 230, 30).save(tmp_path / "plain.png")
    image, doubts = find_digit(tmp_path / "sheet.png")
    assert doubts == []
    limit = 10 if name == "trapezoid" else 3
    assert difference(image[0].numpy(), seen(tmp_path / "plain.png")) < limit


@pytest.mark.parametrize("angle", [-30, 20])
def test_a_turned_sheet_is_set_upright_and_the_digit_with_it(tmp_path, angle):
    image = draw_sheet([(110, 110), (370, 110), (370, 370), (110, 370)])
    image.save(tmp_path / "straight.png")
    image.rotate(angle, Image.BICUBIC, fillcolor=60).save(tmp_path / "turned.png")
    image, doubts = find_digit(tmp_path / "turned.png")
    assert doubts == []
    assert difference(image[0].numpy(), seen(tmp_path / "straight.png")) < 8


@pytest.mark.parametrize("frame", [(4, 0, 230), (4, 255, 120), (30, 255, 120)])
def test_a_frame_is_not_seen(tmp_path, frame):
    width, color, ground = frame
    image = draw_sheet(SHEET_PLACES["all sides"], ground, ground)
    image.save(tmp_path / "plain.png")
    image = ImageOps.expand(image.crop((width, width, 480 - width, 480 - width)), width, color)
    image.save(tmp_path / "framed.png")
    image, doubts = find_digit(tmp_path / "framed.png")
    assert doubts == []
    assert difference(image[0].numpy(), seen(tmp_path / "plain.png")) < 3


def test_a_shadow_may_lie_across_the_sheet(tmp_path):
    pixels = np.array(draw_sheet(SHEET_PLACES["all sides"]), float)
    pixels[:, 225:] *= 0.5
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "shadow.png")
    draw_sheet(SHEET_PLACES["all sides"], 230, 230).save(tmp_path / "plain.png")
    image, doubts = find_digit(tmp_path / "shadow.png")
    assert doubts == []
    assert difference(image[0].numpy(), seen(tmp_path / "plain.png")) < 8


@pytest.mark.skipif(
    sys.getfilesystemencoding() == "ascii", reason="no file here can have such a name"
)
def test_a_name_that_stdout_cannot_show_is_printed_as_its_code(start, tmp_path, monkeypatch):
    draw_seven().save(tmp_path / "\u4e03.png")
    monkeypatch.chdir(tmp_path)
    stdout = io.TextIOWrapper(io.BytesIO(), "cp1252")  # as where it is piped on Windows
    monkeypatch.setattr(sys, "stdout", stdout)
    start("--predict", "\u4e03.png", "--checkpoint", LENET5)
    assert stdout.buffer.getvalue().startswith(b"\\u4e03.png: 7 ")


# --- how many are read ------------------------------------------------------------------------


def test_a_folder_of_real_pictures_is_read_and_counted_by_kind(tmp_path):
    rows = [("a.png", "photo", 7), ("b.png", "photo", 1), ("blank.png", "drawn", 7)]
    for name, _, _ in rows[:2]:
        draw_seven().save(tmp_path / name)
    Image.new("L", (50, 50)).save(tmp_path / "blank.png")
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "kind", "label"), *rows])
    assert table_of(tmp_path, load_model(LENET5)).splitlines()[2:] == [
        "| photo | 2 | 1 | 1 | 0 |",  # a seven that is labeled 1 is a silent error
        "| drawn | 1 | 0 | 0 | 0 |",
        "| all | 3 | 1 | 1 | 0 |",
    ]


@pytest.fixture(scope="module")
def trained():
    return load_model(LENET5)


@pytest.fixture(scope="module")
def tst_set():
    return MNIST(find_split("test"))


def readings(kind, count, tst_set, model, path, pens=None) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of `count` test digits, photographed as `kind` says, is read rightly, and
    whether it comes with a warning; bool [count] both. `pens`: redrawn with one between these
    widths, in pixels of MNIST's 20."""
    rng = np.random.default_rng([2026, list(KINDS).index(kind)])
    results = []
    for index in rng.choice(len(tst_set), count, replace=False):
        digit = tst_set.images[index, 0].numpy()
        if pens:
            digit = redrawn_with_a_pen(digit, rng.uniform(*pens))
        KINDS[kind](digit, rng).convert("RGB").save(path, quality=90)
        digit, warned = reading(path, model)
        results.append((digit == tst_set.labels[index].item(), warned))
    right, warned = np.array(results).T
    silent = (~right & ~warned).sum()
    print(f"{kind}: {right.sum()} of {count} right, {silent} silent, {warned.sum()} warned")
    return right, warned


@pytest.mark.slow
@pytest.mark.parametrize("pens", [None, (0.5, 5)])
def test_every_kind_of_photograph_is_read_and_errors_are_warned_of(
    tmp_path, tst_set, trained, pens
):
    path = tmp_path / "photo.jpg"
    results = {
        kind: readings(kind, 10 if kind in SMALL else 30, tst_set, trained, path, pens)
        for kind in KINDS
    }
    share = {kind: results[kind][0].mean() for kind in KINDS if kind not in HARD}
    harder = {"dark rules", "pencil on rules", "hard shadow", "strong gradient"}
    bars = {kind: 0.8 if kind in harder else 0.9 for kind in share}
    assert {kind for kind in share if share[kind] < bars[kind]} == set()
    assert np.mean([share[kind] for kind in GOOD]) >= 0.97
    silent = {kind: (~right & ~warned).sum() for kind, (right, warned) in results.items()}
    # With other pens than MNIST's one of 30 is not reached: at table edges 3 are silently wrong, so
    # redrawn that a person could not read them (2026).
    assert {kind for kind in silent if silent[kind] > (3 if pens else 1)} == set()
    right, warned = (np.concatenate(values) for values in zip(*results.values(), strict=True))
    assert (~right & ~warned).mean() <= 0.02
    assert (right & warned).sum() <= (0.06 if pens else 0.04) * right.sum()


@pytest.mark.slow
def test_digits_redrawn_as_photographs_are_read(tmp_path, tst_set, trained):
    right, _ = readings("redrawn", 1000, tst_set, trained, tmp_path / "photo.jpg")
    assert right.sum() >= 970


@pytest.mark.slow
def test_mnists_own_images_are_read_without_doubt(tmp_path, tst_set, trained):
    warned = 0
    for image, label in zip(tst_set.images[:300], tst_set.labels[:300].tolist(), strict=True):
        Image.fromarray(image[0].numpy()).save(tmp_path / "raw.png")
        digit, doubt = reading(tmp_path / "raw.png", trained)
        warned += digit == label and doubt
    assert warned <= 3


@pytest.mark.slow
def test_digits_from_other_hands_are_read(tmp_path, trained):
    """Optical Recognition of Handwritten Digits (Alpaydin, Kaynak 1998): 43 writers, 8x8 pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    right = 0
    for pixels, label in zip(digits.images, digits.target, strict=True):
        page = Image.new("L", (240, 240), 255)
        ink = Image.fromarray((255 - 255 / 16 * pixels).astype(np.uint8))
        page.paste(ink.resize((160, 160), Image.Resampling.BICUBIC), (40, 40))
        page.save(tmp_path / "digit.png")
        right += reading(tmp_path / "digit.png", trained)[0] == label
    print(f"{right} of {len(digits.target)} right")
    assert right >= 0.95 * len(digits.target)
