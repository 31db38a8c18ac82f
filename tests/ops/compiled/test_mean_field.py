"""Mean field in machine code against the same in torch, and against pydensecrf."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from unpool.errors import OptionError
from unpool.ops import (
    CRF_PRESETS,
    DenseCRF,
    Kernel,
    crf_filter,
    mean_field,
    unary_from_probabilities,
)
from unpool.ops import meanfield as module
from unpool.ops.crf import NORMALIZATIONS

pytest.importorskip("numba", reason="numba is not installed")

SIZES = [(1, 1), (1, 9), (7, 13), (60, 47), (33, 100)]


def noise(labels, height, width, seed=0):
    """Blotches of labels on blotches of color, with noise on both."""
    random = torch.Generator().manual_seed(seed)
    shape = (height + 7) // 8, (width + 7) // 8

    def blotches(channels):
        coarse = torch.rand(channels, *shape, generator=random)
        grown = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width]
        return grown + 0.2 * torch.rand(channels, height, width, generator=random)

    unary = unary_from_probabilities((4 * blotches(labels)).softmax(0))
    return unary, (200 * blotches(3)).permute(1, 2, 0).byte().contiguous()


def both(unary, image, crf):
    return [mean_field(unary, image, crf, compiled=compiled) for compiled in (True, False)]


def require_same(unary, image, crf, tolerance=1.7e-3):
    """Where torch's best label is clear, it is that of machine code."""
    machine, plain = both(unary, image, crf)
    assert machine.shape == plain.shape
    assert machine.dtype == torch.float32
    assert (machine - plain).abs().max() < tolerance
    if len(plain) > 1:
        best = plain.topk(2, 0).values
        clear = best[0] - best[1] > 2 * tolerance
        assert torch.equal(machine.argmax(0)[clear], plain.argmax(0)[clear])


@pytest.mark.parametrize("labels", [1, 2, 5, 9, 21, 25, 33, 70])
@pytest.mark.parametrize("size", SIZES)
def test_any_number_of_labels_on_any_size(labels, size):
    unary, image = noise(labels, *size)
    require_same(unary, image, CRF_PRESETS["deeplab"]._replace(prune=0))


@pytest.mark.parametrize("preset", CRF_PRESETS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("prune", [0, 1e-3])
def test_presets_and_normalizations(preset, normalization, prune):
    unary, image = noise(7, 60, 47)
    crf = CRF_PRESETS[preset]._replace(normalization=normalization, prune=prune)
    require_same(unary, image, crf)


@pytest.mark.parametrize(
    "kernels",
    [
        (Kernel(3, 2),),
        (Kernel(5, 2, 10),),
        (Kernel(2, 1), Kernel(9, 2, 20), Kernel(4, 1, 50)),
        (Kernel(0.3, 2), Kernel(500, 2, 300)),
    ],
)
def test_kernels_of_any_kind_and_number(kernels):
    unary, image = noise(4, 40, 41)
    require_same(unary, image, DenseCRF(kernels, 4, "after"))
    if all(kernel.rgb is None for kernel in kernels):
        require_same(unary, None, DenseCRF(kernels, 4, "after"))


def test_without_an_iteration_it_is_softmax():
    unary, image = noise(6, 10, 11)
    crf = CRF_PRESETS["deeplab"]._replace(iterations=0, prune=0)
    found = mean_field(unary, image, crf, compiled=True)
    torch.testing.assert_close(found, (-unary).softmax(0), atol=1e-6, rtol=1e-5)


def test_impossible_labels_stay_impossible():
    unary, image = noise(5, 20, 21)
    unary[2] = torch.inf
    unary[3, :10] = torch.inf
    crf = CRF_PRESETS["deeplab"]._replace(prune=0)
    machine, plain = both(unary, image, crf)
    assert not machine[2].any()
    assert not machine[3, :10].any()
    assert machine.isfinite().all()
    assert (machine - plain).abs().max() < 1e-3


def test_there_are_no_denormal_numbers():
    """They would slow everything down tenfold."""
    unary, image = noise(5, 30, 31)
    unary[1:] += torch.linspace(60, 110, 30)[:, None]
    found = mean_field(unary, image, CRF_PRESETS["deeplab"]._replace(prune=0), compiled=True)
    assert not ((found > 0) & (found < torch.finfo(torch.float32).tiny)).any()
    assert (found[1:, -1] == 0).all()


def test_several_threads_find_the_same():
    unary, image = noise(21, 120, 160)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = mean_field(unary, image, "edeconvnet", compiled=True)
        torch.set_num_threads(2)
        two = mean_field(unary, image, "edeconvnet", compiled=True)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_inputs_are_unchanged():
    unary, image = noise(5, 20, 21)
    before = unary.clone(), image.clone()
    mean_field(unary, image, "deeplab", compiled=True)
    assert torch.equal(unary, before[0])
    assert torch.equal(image, before[1])


def test_it_says_what_it_cannot_do():
    unary, image = noise(3, 8, 9)
    filters = crf_filter("deeplab", (8, 9), image)
    tiny = DenseCRF((Kernel(1e-5, 1, 3e-4),))
    unpruned = CRF_PRESETS["deeplab"]._replace(prune=0)
    for arguments, message in [
        ((unary.double(), image), "a unary in torch.float64"),
        ((unary.clone().requires_grad_(), image), "a unary that requires a gradient"),
        ((unary, image, "deeplab", filters), "also filters"),
        ((unary, image.float()), "an image of floating-point colors; pass uint8"),
        ((unary, image, tiny), "deviations as small as"),
        ((*noise(257, 4, 5), unpruned), "257 labels; wanted at most 256"),
    ]:
        with pytest.raises(OptionError, match=f"got compiled=True, but {message}"):
            mean_field(*arguments, compiled=True)
        mean_field(*arguments)  # which torch does


def test_without_numba_torch_does_it(monkeypatch):
    unary, image = noise(3, 8, 9)
    plain = mean_field(unary, image, "deeplab", compiled=False)
    monkeypatch.setattr(module, "_machine", lambda: None)
    assert torch.equal(mean_field(unary, image, "deeplab"), plain)
    with pytest.raises(OptionError, match=r'pip install "unpool\[fast\]"'):
        mean_field(unary, image, "deeplab", compiled=True)


def test_numba_is_loaded_when_it_is_needed():
    code = "import sys, unpool.ops; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """Compiled functions that no other test, in another process, writes at the same time."""
    return {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("numba"))}


@pytest.mark.parametrize("preset", CRF_PRESETS)
def test_warm_up_loads_every_function_that_the_first_image_needs(preset, own_cache):
    code = f"""
        import torch
        from unpool.ops import mean_field
        from unpool.ops.meanfield import warm_up

        def loaded():
            from unpool.ops.compiled import kernels, lattice, mean_field
            found = [vars(module) for module in (kernels, lattice, mean_field)]
            return {{
                name
                for names in found for name, v in names.items() if getattr(v, "signatures", None)
            }}

        assert not loaded()
        warm_up({preset!r})
        before = loaded()
        assert "softmax" in before
        mean_field(torch.rand(21, 40, 60), torch.zeros(40, 60, 3, dtype=torch.uint8), {preset!r})
        assert loaded() == before, loaded() - before
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, check=True, env=own_cache)
