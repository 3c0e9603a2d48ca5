"""What a result depends on is told truly."""

import shutil
import subprocess
import sys

import torch

from dataset import MNIST
from support.provenance import code_commit, fingerprint, package_versions, processor_name


def test_the_fingerprint_tells_data_sets_apart_by_one_label_one_pixel_or_their_order():
    images = torch.randint(0, 200, (6, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(6)
    another_pixel, another_label = images.clone(), labels.clone()
    another_pixel[3, 0, 5, 5] += 1
    another_label[3] += 1
    sets = [
        *((images, labels), (another_pixel, labels), (images, another_label)),
        *((images.flip(0), labels.flip(0)), (images.transpose(-1, -2), labels)),
    ]
    fingerprints = [fingerprint(MNIST(one)) for one in sets]
    assert len(set(fingerprints)) == 5
    copies = [(images.contiguous(), labels.clone()) for images, labels in sets]
    assert [fingerprint(MNIST(one)) for one in copies] == fingerprints
    every_other = images, torch.arange(12)[::2]  # not contiguous
    assert fingerprint(MNIST(every_other)) == fingerprint(MNIST((images, 2 * labels)))


def test_the_commit_is_that_of_the_program_and_says_if_files_differ(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return done.stdout.decode().strip()

    module = sys.modules[code_commit.__module__]
    monkeypatch.setattr(module, "__file__", str(tmp_path / "module.py"))
    assert code_commit() is None  # no repository
    git("init", "--quiet")
    (tmp_path / "file").write_text("one", encoding="utf-8")
    git("add", "file")
    git("commit", "--quiet", "-m", "one")
    git("tag", "-a", "v1", "-m", "one")
    assert code_commit() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("two", encoding="utf-8")
    assert code_commit() == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert code_commit() is None  # no git


def test_processor_and_versions_are_those_of_this_machine():
    name, _, rest = processor_name().partition(" (")
    assert name
    assert rest == f"{torch.backends.cpu.get_cpu_capability()})"
    versions = package_versions()
    assert versions["torch"] == torch.__version__
    assert versions.keys() == {"python", "torch", "torchvision", "numpy", "matplotlib", "pillow"}
