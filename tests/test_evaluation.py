"""What a trained network makes of the test set, told and drawn."""

import re

import pytest
import torch
from helpers import ROOT
from PIL import Image

import main
from dataset import MNIST
from support.checkpoint import load_checkpoint, load_model


@pytest.fixture
def results(data_dir, tmp_path):
    """What a short run of LeNet-5 left."""
    folder = tmp_path / "results"
    main.main(
        [
            *("--epochs", "4", "--lr", "0.05", "--batch-size", "16"),
            *("--data-dir", str(data_dir), "--results-dir", str(folder)),
        ]
    )
    return folder


def evaluate(capsys, data_dir, results, name="lenet5"):
    capsys.readouterr()
    checkpoint = results / "checkpoints" / f"{name}.pt"
    main.main(
        [
            *("--evaluate", str(checkpoint), "--data-dir", str(data_dir)),
            *("--results-dir", str(results)),
        ]
    )
    return capsys.readouterr().out


def test_evaluate_tells_loss_accuracy_precision_and_recall(capsys, data_dir, results):
    out = evaluate(capsys, data_dir, results)
    entry = load_checkpoint(results / "checkpoints/lenet5.pt")["history"][-1]
    assert f"loss {entry['test_loss']:.4f}, accuracy {entry['test_accuracy']:.2%}" in out

    tst_set = MNIST(data_dir / "test.tar")
    with torch.no_grad():
        digits = load_model(results / "checkpoints/lenet5.pt")(tst_set[range(50)][0])
    digits = digits.argmax(dim=1)
    assert f"({(digits != tst_set.labels).sum()} misclassified)" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    for digit in range(10):
        *counts, recall = rows[str(digit)]
        of_digit = digits[tst_set.labels == digit]
        assert [int(count.replace(".", "0")) for count in counts] == [
            (of_digit == other).sum().item() for other in range(10)
        ]
        assert recall == f"{(of_digit == digit).double().mean():.2%}"
        read_as = tst_set.labels[digits == digit]
        precision = f"{(read_as == digit).double().mean():.2%}" if len(read_as) else "-"
        assert rows["precision"][digit] == precision


def test_evaluate_draws_the_confusions_and_the_misclassified_images(capsys, data_dir, results):
    out = evaluate(capsys, data_dir, results)
    for name in ("lenet5_confusion.png", "lenet5_misclassified.png"):
        assert str(results / "plots" / name) in out
        with Image.open(results / "plots" / name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 100


def test_evaluate_uses_the_averaged_weights_of_a_run_with_ema(capsys, data_dir, results):
    main.main(
        [
            *("--model", "mlp", "--epochs", "2", "--ema", "0.9", "--lr", "0.1"),
            *("--data-dir", str(data_dir), "--results-dir", str(results)),
        ]
    )
    entry = load_checkpoint(results / "checkpoints/mlp.pt")["history"][-1]
    assert f"loss {entry['test_loss']:.4f}," in evaluate(capsys, data_dir, results, "mlp")


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_file_that_is_no_checkpoint(tmp_path, main_here, content):
    (tmp_path / "x.pt").write_bytes(content)
    process = main_here("--evaluate", tmp_path / "x.pt")
    assert process.returncode == 1
    assert process.stderr.startswith(f"error: {tmp_path / 'x.pt'}: is damaged")


def test_readmes_way_to_predict_from_python(tmp_path, monkeypatch, capsys):
    from test_prediction import draw_seven

    blocks = re.findall("```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    [block] = [block for block in blocks if "read_digit" in block]
    draw_seven().save(tmp_path / "photo.png")
    names = {}
    exec(block.replace("photo.png", str(tmp_path / "photo.png")), names)
    assert names["probabilities"].shape == (1, 10)
    assert names["probabilities"].argmax() == 7


@pytest.mark.parametrize("command", ["--evaluate", "--predict"])
def test_under_torchrun_only_the_first_process_tells(
    capsys, monkeypatch, data_dir, results, command
):
    [image] = results.rglob("*.png")
    path = image if command == "--predict" else results / "checkpoints/lenet5.pt"
    where = ["--data-dir", str(data_dir), "--results-dir", str(results)]
    told = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        capsys.readouterr()
        main.main([command, str(path), *where])
        told.append(capsys.readouterr().out)
    assert told[0]
    assert not told[1]
