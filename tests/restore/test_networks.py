"""Networks as methods: types, borders, tiles and colors, with weights trained for a second."""

import numpy as np
import pytest
import torch
from skimage import data

import unpool
from unpool import Restorer
from unpool.errors import OptionError, WeightsError
from unpool.models import from_pretrained, list_pretrained, save_pretrained
from unpool.models.fcn import FCN
from unpool.models.multiscale import SRN, BlindNet
from unpool.ops.blur import blur
from unpool.restore import psnr
from unpool.restore.networks import Network
from unpool.vision.psf import find_psf

PSF = "shake:2,15"
CPU = torch.device("cpu")


def blurred(image, sigma=0.01):
    kernel = torch.from_numpy(find_psf(PSF).kernel)
    x = torch.from_numpy(np.atleast_3d(image).astype(np.float32)).permute(2, 0, 1)[None]
    y = blur(x, kernel)[0].permute(1, 2, 0).numpy()
    y = y + np.random.default_rng(0).normal(0, sigma, y.shape).astype(np.float32)
    return np.clip(y.reshape(image.shape), 0, 1)


@pytest.fixture(scope="module")
def photo():
    return (data.camera()[100:200, 150:270] / 255).astype(np.float32)


@pytest.fixture(scope="module")
def weights(trained):
    return trained[0]


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """A blind network with some effect."""
    torch.manual_seed(0)
    net = BlindNet(width=4, blocks=1, outer=1)
    torch.nn.init.normal_(net.decoder[-1].weight, std=0.02)
    return save_pretrained(net, tmp_path_factory.mktemp("blind"), {})


def test_weights_are_loaded_as_a_restorer(weights, photo):
    y = blurred(photo)
    restorer = unpool.load(weights)
    result = restorer(y, psf=find_psf(PSF).kernel, noise=0.01)
    assert isinstance(restorer, Restorer)
    assert (result.method, result.noise, result.estimated) == ("given", 0.01, False)
    assert psnr(result.image, photo) > psnr(y, photo) + 2
    assert "given" in result.to_dict().values()
    assert result.to_dict().keys().isdisjoint({"lam", "balance", "steps", ""})
    assert result.comparison().shape[1] > 100
    again = Restorer(weights=weights, noise=0.01)(y, PSF)
    np.testing.assert_allclose(again.image, result.image, atol=1e-6)


def test_it_is_the_network(weights, photo):
    """Of values whose brightest part is 1, and the noise relative to it."""
    y = blurred(photo)
    net, _ = from_pretrained(weights)
    bright = float(np.quantile(np.abs(y), 0.999))
    with torch.no_grad():
        expected = net(
            torch.from_numpy(y)[None, None] / bright,
            torch.from_numpy(find_psf(PSF).kernel), 0.02 / bright, "reflect",
        )[0, 0] * bright  # fmt: skip
    found = Restorer(weights=weights, noise=0.02, edges="reflect")(y, PSF).image
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [None, 2, 3, 4])
def test_types_sizes_and_opacity_are_kept(weights, dtype, channels):
    shape = (33, 41) if channels is None else (33, 41, channels)
    top = 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    image = (np.random.default_rng(0).random(shape) * top).astype(dtype)
    before = image.copy()
    result = unpool.load(weights)(image, "gaussian:1")
    assert (result.image.dtype, result.image.shape) == (dtype, shape)
    np.testing.assert_array_equal(image, before)
    if channels in (2, 4):
        np.testing.assert_array_equal(result.image[..., -1], image[..., -1])


def test_tiles_are_like_the_whole(weights):
    """Root mean square below 0.004 at an overlap of twice the PSF (C12).

    The border of the image is left out: the ramp joins it to another one in a tile.
    """
    y = blurred((data.camera()[:300, :320] / 255).astype(np.float32))
    whole, tiled = (Restorer(weights=weights, noise=0.01, tile=t)(y, PSF) for t in (0, 160))
    assert tiled.tiles > 4
    gap = (whole.image - tiled.image)[16:-16, 16:-16]
    assert 0 < float(np.sqrt(np.mean(gap**2))) < 0.004


def test_a_point_as_psf_changes_little(weights, photo):
    """Without noise (C10), the difference is below that of a noise of 0.005."""
    result = unpool.load(weights)(photo, np.ones((1, 1)), noise=0.0)
    assert psnr(result.image, photo) > 46


def test_a_turned_psf_loses(weights, photo):
    """By 180 degrees: more than 4 dB (C11)."""
    y, kernel = blurred(photo, 0.002), find_psf("shake:2,15").kernel
    restorer = unpool.load(weights, noise=0.002)
    right, turned = (psnr(restorer(y, k).image, photo) for k in (kernel, kernel[::-1, ::-1]))
    assert right > turned + 4


def test_a_blind_network_needs_no_psf(blind, photo):
    restorer = unpool.load(blind)
    result = restorer(photo)
    assert (result.method, result.psf.name, result.residual) == ("blind", "none", None)
    assert not np.array_equal(result.image, photo)
    with pytest.raises(OptionError, match="got a PSF for method 'blind'"):
        restorer(photo, PSF)


def test_tiles_of_a_blind_network_are_exact_inside(blind):
    """Beyond the reach of the network from the borders of the tiles, which are faded out (C12)."""
    y = np.random.default_rng(0).random((300, 320)).astype(np.float32)
    whole, tiled = (Restorer(weights=blind, tile=t)(y) for t in (0, 200))
    assert tiled.tiles == 6
    gap = np.abs(whole.image - tiled.image)
    for inner in (gap[:80, :80], gap[-80:, :80], gap[-80:, -80:]):
        assert inner.max() < 1e-5


def test_networks_for_colors_take_them_together(tmp_path):
    torch.manual_seed(0)
    net = SRN(scales=1, width=4, blocks=1)
    folder = save_pretrained(net, tmp_path, {})
    image = np.random.default_rng(0).random((32, 48, 3)).astype(np.float32)
    bright = np.mean([np.quantile(image[..., i], 0.999) for i in range(3)])
    net = from_pretrained(folder)[0]
    with torch.no_grad():
        x = torch.from_numpy(image).permute(2, 0, 1)[None] / float(bright)
        expected = net(x)[0].permute(1, 2, 0) * float(bright)
    found = unpool.load(folder)(image).image
    np.testing.assert_allclose(found, expected, atol=1e-5)
    gray = unpool.load(folder)(image[..., 0]).image
    assert gray.shape == (32, 48)


@pytest.mark.skipif("deblur-given" not in list_pretrained(), reason="the weights are missing")
def test_the_weights_that_ship(photo):
    """Better than total variation, and far worse with a turned PSF (C11); auto takes them."""
    y, kernel = blurred(photo), find_psf(PSF).kernel
    restorer = unpool.load("deblur-given")
    found = psnr(restorer(y, psf=kernel, noise=0.01).image, photo)
    assert found > psnr(Restorer("tv", noise=0.01)(y, kernel).image, photo) + 0.1
    assert found > psnr(restorer(y, kernel[::-1, ::-1], noise=0.01).image, photo) + 4
    result = Restorer(noise=0.01)(y, kernel)
    assert (result.method, result.reason) == ("given", "auto: the best for images with a known PSF")
    np.testing.assert_array_equal(result.image, restorer(y, psf=kernel, noise=0.01).image)


def test_refusals(weights, blind, tmp_path):
    with pytest.raises(OptionError, match="got method 'tv' with weights"):
        Restorer("tv", weights=weights)
    with pytest.raises(OptionError, match=r"got method 'given' with weights .* 'blind'"):
        Restorer("given", weights=blind)
    with pytest.raises(OptionError, match="got lam with weights"):
        Restorer(weights=weights, lam=0.1)
    with pytest.raises(OptionError, match=r"got lam=0\.1 for method 'given', which has no value"):
        Restorer("given", lam=0.1)
    with pytest.raises(OptionError, match="got a volume for method 'given'"):
        unpool.load(weights)(np.zeros((9, 20, 20)), np.ones((3, 3, 3)))
    with pytest.raises(OptionError, match="got noise=-1"):
        unpool.load(weights)(np.zeros((20, 20)), PSF, noise=-1)
    with pytest.raises(OptionError, match="precision"):
        unpool.load(weights, precision="bf16")
    folder = save_pretrained(FCN(2, ((1, 4),) * 3, 8), tmp_path, {})
    with pytest.raises(WeightsError, match="of a FCN, which does not restore images"):
        Network.load(folder, CPU)


def test_command(weights, photo, tmp_path, monkeypatch, capsys):
    import json

    from PIL import Image

    from unpool.cli import main

    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.rint(blurred(photo) * 255).astype(np.uint8)).save("cat.png")
    arguments = ["restore", "cat.png", "--psf", PSF, "--weights", str(weights), "-o", "out"]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["method"], "lam" in record) == ("given", False)
    assert main([*arguments, "--redo"]) == 0
    assert "cat.png: given (as asked for), estimated noise" in capsys.readouterr().out
