"""A person's own images: whatever they look like, the network sees a digit in MNIST's form."""

import json
import os
import warnings

import numpy as np
import pytest
import torch
from helpers import ROOT, run_main
from photographs import GOOD, KINDS, SMALL
from PIL import Image, ImageDraw
from scipy import ndimage

import main
from dataset import MNIST, find_split, normalize
from support.checkpoint import load_model
from support.files import DataError
from support.prediction import UNSURE, find_digit, read_digit, to_mnist_form

TRAINED = ROOT / "results" / "report" / "lenet5.pt"


def draw_seven(mode="L", ground=255, ink=0, size=(200, 300), place=(60, 80), width=14):
    """A seven with a dark bar above and a leg that leans to the left."""
    image = Image.new(mode, size, ground)
    x, y = place
    ImageDraw.Draw(image).line(
        [(x, y), (x + 80, y), (x + 40, y + 140)], fill=ink, width=width, joint="curve"
    )
    return image


def seen(path) -> np.ndarray:
    return read_digit(path)[0].numpy()


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
    difference = np.abs(seen(tmp_path / "plain.png").astype(int) - seen(tmp_path / "other.png"))
    assert difference.mean() < 6


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
    difference = np.abs(
        seen(tmp_path / "plain.png").astype(int) - seen(tmp_path / f"seven.{ending}")
    )
    assert difference.mean() < 3


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
def checkpoint(data_dir, tmp_path):
    """A network that was trained on a few images; what it reads does not matter here."""
    main.main(["--epochs", "1", "--data-dir", str(data_dir), "--results-dir", str(tmp_path / "r")])
    return tmp_path / "r" / "checkpoints" / "lenet5.pt"


def test_predict_tells_each_image_and_goes_on_after_a_bad_one(tmp_path, checkpoint):
    for name in ("a.png", "b.jpg"):
        draw_seven().save(tmp_path / name)
    Image.new("L", (50, 50)).save(tmp_path / "blank.png")
    (tmp_path / "text.png").write_text("no image")
    process = run_main(
        *("--predict", "a.png", "blank.png", "text.png", "missing.png", "b.jpg"),
        *("--checkpoint", checkpoint),
        cwd=tmp_path,
    )
    assert process.returncode == 1
    first, second = process.stdout.splitlines()
    assert first.startswith("a.png: ")
    assert second.startswith("b.jpg: ")
    errors = process.stderr.splitlines()
    assert [line.split(":")[:2] for line in errors] == [
        ["error", f" {name}"] for name in ("blank.png", "text.png", "missing.png")
    ]


def test_json_gives_the_digit_and_the_runner_up(tmp_path, checkpoint, capsys):
    draw_seven().save(tmp_path / "a.png")
    main.main(["--predict", str(tmp_path / "a.png"), "--checkpoint", str(checkpoint), "--json"])
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
    main.main(
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


def test_a_file_that_is_no_image_is_told_in_one_plain_line(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError) as raised:
        read_digit(tmp_path / "text.png")
    assert str(raised.value).startswith(
        f"{tmp_path}/text.png: is not an image that Pillow can read"
    )
    assert "BytesIO" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("side", [10_400, 20_000])
def test_a_huge_picture_is_read_or_refused_without_a_warning(tmp_path, side):
    """108 megapixels are read; what Pillow itself takes for a bomb is refused."""
    image = Image.new("1", (side, side), 1)
    image.paste(draw_seven("1", 1, 0), (side // 2, side // 3))
    image.save(tmp_path / "huge.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if side == 10_400:
            assert 0 < (read_digit(tmp_path / "huge.png") > 0).float().mean() < 0.5
        else:
            with pytest.raises(DataError, match=r"huge\.png: cannot be read"):
                read_digit(tmp_path / "huge.png")


@pytest.mark.parametrize("name", ["rules", "squares", "shadow", "table", "speck"])
def test_what_is_no_digit_is_not_seen(tmp_path, name):
    draw_seven().save(tmp_path / "plain.png")
    image = draw_seven()
    pixels = np.array(image)
    if name in ("rules", "squares"):
        pixels[15::40] = pixels[16::40] = np.minimum(pixels[15::40], 90)
    if name == "squares":
        pixels[:, 15::40] = np.minimum(pixels[:, 15::40], 90)
    if name == "shadow":
        pixels[:, 100:] //= 2
    if name == "table":
        pixels[250:] = 80
    if name == "speck":
        pixels[30:36, 150:156] = 0
    Image.fromarray(pixels).save(tmp_path / "other.png")
    difference = np.abs(seen(tmp_path / "plain.png").astype(int) - seen(tmp_path / "other.png"))
    assert difference.mean() < 6


def test_doubt_is_told(tmp_path):
    two = draw_seven(size=(400, 300))
    two.paste(draw_seven().crop((40, 60, 160, 240)), (250, 60))
    two.save(tmp_path / "two.png")
    draw_seven().crop((90, 0, 200, 300)).save(tmp_path / "cut.png")
    draw_seven().save(tmp_path / "good.png")
    assert find_digit(tmp_path / "two.png")[1] == ["there is more than one mark"]
    assert find_digit(tmp_path / "cut.png")[1] == ["it is cut off by the border"]
    assert find_digit(tmp_path / "good.png")[1] == []


def test_a_warning_ends_the_line_and_is_in_the_json(tmp_path, capsys):
    draw_seven().save(tmp_path / "good.png")
    draw_seven().crop((90, 0, 200, 300)).save(tmp_path / "cut.png")
    names = [str(tmp_path / name) for name in ("good.png", "cut.png")]
    main.main(["--predict", *names, "--checkpoint", str(TRAINED)])
    good, cut = capsys.readouterr().out.splitlines()
    assert "look again" not in good
    assert " - look again: it is cut off by the border" in cut
    main.main(["--predict", *names, "--checkpoint", str(TRAINED), "--json"])
    good, cut = map(json.loads, capsys.readouterr().out.splitlines())
    assert good["warning"] is None
    assert cut["warning"].startswith("it is cut off by the border")


def test_a_name_that_stdout_cannot_show_is_printed_as_its_code(tmp_path):
    draw_seven().save(tmp_path / "\u4e03.png")
    process = run_main(
        *("--predict", "\u4e03.png", "--checkpoint", TRAINED),
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("\\u4e03.png: 7 ")


# --- how many are read ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    return load_model(TRAINED)


@pytest.fixture(scope="module")
def tst_set():
    return MNIST(find_split("test"))


def reading(path, model) -> tuple[int, bool]:
    """The digit that `model` sees, and whether it comes with a warning."""
    try:
        image, doubts = find_digit(path)
    except DataError:
        return -1, True
    with torch.no_grad():
        probability, digit = model(normalize(image)[None]).softmax(dim=1).max(dim=1)
    return digit.item(), bool(doubts) or probability.item() < UNSURE


def readings(kind, count, tst_set, model, path) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of `count` test digits, photographed as `kind` says, is read rightly, and
    whether it comes with a warning; bool [count] both."""
    rng = np.random.default_rng([2026, list(KINDS).index(kind)])
    results = []
    for index in rng.choice(len(tst_set), count, replace=False):
        photo = KINDS[kind](tst_set.images[index, 0].numpy(), rng)
        photo.convert("RGB").save(path, quality=90)
        digit, warned = reading(path, model)
        results.append((digit == tst_set.labels[index].item(), warned))
    right, warned = np.array(results).T
    print(f"{kind}: {right.sum()} of {count} right, {warned.sum()} warned")
    return right, warned


@pytest.mark.slow
def test_every_kind_of_photograph_is_read_and_errors_are_warned_of(tmp_path, tst_set, trained):
    results = {
        kind: readings(kind, 10 if kind in SMALL else 30, tst_set, trained, tmp_path / "photo.jpg")
        for kind in KINDS
    }
    share = {kind: right.mean() for kind, (right, _) in results.items()}
    hard = {"dark rules", "pencil on rules", "hard shadow", "strong gradient"}
    bars = {kind: 0.8 if kind in hard else 0.9 for kind in KINDS}
    assert {kind for kind in KINDS if share[kind] < bars[kind]} == set()
    assert np.mean([share[kind] for kind in GOOD]) >= 0.97
    right, warned = (np.concatenate(values) for values in zip(*results.values(), strict=True))
    assert (~right & ~warned).mean() <= 0.05
    assert (right & warned).sum() <= 0.05 * right.sum()


@pytest.mark.slow
def test_digits_redrawn_as_photographs_are_read(tmp_path, tst_set, trained):
    right, _ = readings("redrawn", 1000, tst_set, trained, tmp_path / "photo.jpg")
    assert right.sum() >= 970


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
