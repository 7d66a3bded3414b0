"""The training tools: what they read, and what they say of what they made."""

from argparse import Namespace
import gzip

import numpy as np
import pytest

from dipy_dl_reg.training.loop.trainer import History
from tools.recipes import digits, stages, train_brains


def write_idx(path, array):
    """As MNIST's files are: two zeros, 8 for bytes, the axes and their lengths."""
    header = bytes([0, 0, 8, array.ndim])
    header += b"".join(n.to_bytes(4, "big") for n in array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist(tmp_path, rng):
    """Write the two files of a part; their images and labels."""

    def write(part, count, end=""):
        images = rng.integers(0, 256, (count, 28, 28))
        labels = rng.integers(0, 10, count)
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{end}", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{end}", labels)
        return images, labels

    return write


@pytest.mark.parametrize("parts", [["train"], ["t10k"], ["t10k", "train"]])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist_is_found(mnist, tmp_path, parts, end):
    """Training images where they are, else those of the test."""
    for count, part in enumerate(parts, 3):
        images, labels = mnist(part, count, end)
    found, targets = digits.mnist_digits(tmp_path)
    assert found.shape == (len(images), 32, 32) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 2:-2, 2:-2] * 255, images, atol=1e-4)
    np.testing.assert_array_equal(targets, labels)
    assert found[:, :2].max() == found[:, :, -2:].max() == 0


def test_mnist_that_cannot_be_read(mnist, tmp_path):
    with pytest.raises(SystemExit, match="--mnist.*train-images-idx3-ubyte.*t10k"):
        digits.mnist_digits(tmp_path)
    mnist("t10k", 3)
    path = tmp_path / "t10k-images-idx3-ubyte"
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-100], b"\1" + whole[1:]):
        path.write_bytes(content)
        with pytest.raises(SystemExit, match=f"{path.name} cannot be read"):
            digits.mnist_digits(tmp_path)
    path.unlink()
    path.with_suffix(".gz").write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(SystemExit, match=f"{path.name}.gz cannot be read"):
        digits.mnist_digits(tmp_path)
    path.write_bytes(whole)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(2))
    with pytest.raises(SystemExit, match="as many labels"):
        digits.mnist_digits(tmp_path)


def test_licence_of_a_network_is_what_was_said():
    histories = [History(10, [], 0.5, "steps")]
    given = Namespace(seed=1, licence="CC0-1.0")
    assert train_brains.card(given, histories)["licence"] == "CC0-1.0"
    assert "not stated" in stages.LICENCE
