"""A person's own images: whatever they look like, the network sees a digit in MNIST's form."""

import json

import numpy as np
import pytest
import torch
from helpers import ROOT, run_main
from PIL import Image, ImageDraw

import main
from dataset import MNIST, find_splits, normalize
from support.checkpoint import load_model
from support.files import DataError
from support.prediction import read_digit

TRAINED = ROOT / "results" / "report" / "lenet5.pt"


def photograph(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A digit, uint8 [28, 28], as a color photo of 300 pixels: dark or light ink on a ground of
    another color, somewhere in the picture, with mild noise."""
    size = int(rng.integers(120, 200))
    ink = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
    mask = Image.new("L", (300, 300))
    mask.paste(ink, tuple(rng.integers(10, 290 - size, 2).tolist()))
    dark, light = rng.integers(0, 80, 3), rng.integers(170, 256, 3)
    colors = (dark, light) if rng.random() < 0.5 else (light, dark)
    stroke, ground = (np.asarray(color, np.float32) for color in colors)
    share = np.asarray(mask, np.float32)[:, :, None] / 255
    pixels = share * stroke + (1 - share) * ground + rng.normal(0, 6, (300, 300, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


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


@pytest.mark.parametrize(
    "name", ["seven.jpg", "seven.gif", "seven.bmp", "seven.tiff", "seven.webp"]
)
def test_any_format_is_read(tmp_path, name):
    draw_seven().save(tmp_path / "plain.png")
    draw_seven().save(tmp_path / name)
    difference = np.abs(seen(tmp_path / "plain.png").astype(int) - seen(tmp_path / name))
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


@pytest.mark.slow
def test_digits_redrawn_as_photographs_are_read(tmp_path):
    tst_set = MNIST(find_splits()[1])
    rng = np.random.default_rng(0)
    model = load_model(TRAINED)
    right = 0
    chosen = rng.choice(len(tst_set), 1000, replace=False)
    for index in chosen:
        path = tmp_path / "photo.jpg"
        photograph(tst_set.images[index, 0].numpy(), rng).save(path, quality=75)
        with torch.no_grad():
            digit = model(normalize(read_digit(path))[None]).argmax().item()
        right += digit == tst_set.labels[index].item()
    assert right >= 970
