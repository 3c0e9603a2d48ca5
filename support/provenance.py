"""What the numbers of a run depend on besides its settings: data, code, versions, processor."""

import platform
import re
import shutil
import subprocess
import zlib
from importlib.metadata import version
from pathlib import Path

import torch
from torch.utils.data import Dataset


def fingerprint(dataset: Dataset) -> int:
    """Return the CRC-32 of a data set's `images` and `labels`, on the CPU, which
    identifies the data."""
    images, labels = dataset.images.contiguous(), dataset.labels.contiguous()
    return zlib.crc32(images.numpy(), zlib.crc32(labels.numpy()))


def code_commit() -> str | None:
    """Return the commit of this program, with "-dirty" where files differ from it; None where there
    is no git, or no repository."""
    if shutil.which("git") is None:
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, encoding="utf-8")
    return git.stdout.strip() or None


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run depends on."""
    packages = ("torchvision", "numpy", "matplotlib", "pillow")
    return {"python": platform.python_version(), "torch": torch.__version__} | {
        package: version(package) for package in packages
    }


def processor_name() -> str:
    """Name the kind of this machine's processor, and the widest instructions that torch uses on it:
    both decide how sums are rounded."""
    cpuinfo = Path("/proc/cpuinfo")  # on Linux; elsewhere Python may know
    lines = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    names = re.findall(r"model name\s*: (.*)", lines)
    name = names[0] if names else platform.processor()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
