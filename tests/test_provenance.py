"""What a result depends on is told truly."""

import shutil
import subprocess

import torch

from dataset import MNIST
from support import provenance
from support.provenance import code_commit, fingerprint, package_versions, processor_name


def test_the_fingerprint_of_a_transposed_set_is_that_of_its_copy():
    images = torch.randint(0, 256, (6, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(12)[::2]
    turned = MNIST((images.transpose(-1, -2), labels))
    copied = MNIST((images.transpose(-1, -2).contiguous(), labels.clone()))
    assert fingerprint(turned) == fingerprint(copied)
    assert fingerprint(turned) != fingerprint(MNIST((images, labels)))


def test_the_commit_is_that_of_the_program_and_says_if_files_differ(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return done.stdout.decode().strip()

    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
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


def test_the_processor_is_named_with_the_instructions_that_torch_uses():
    name, _, rest = processor_name().partition(" (")
    assert name
    assert rest == f"{torch.backends.cpu.get_cpu_capability()})"


def test_versions_are_those_that_are_installed():
    versions = package_versions()
    assert versions["torch"] == torch.__version__
    assert list(versions) == ["python", "torch", "torchvision", "numpy", "matplotlib", "pillow"]
