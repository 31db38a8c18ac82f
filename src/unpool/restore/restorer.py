"""`Restorer` restores blurred images, and keeps their type and size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpool.cards import list_pretrained
from unpool.devices import find_device
from unpool.errors import ImageError, OptionError, require_choice, require_int
from unpool.recipes.presets import EDGES, RESTORATIONS, Edges
from unpool.restore.estimate import estimate_psf, family_to_estimate
from unpool.restore.light import parse_gamma
from unpool.restore.methods import METHODS, Facts, Run, choose, require_noise, require_value
from unpool.restore.networks import Network
from unpool.restore.result import Restored
from unpool.restore.samples import (
    as_samples,
    brightest,
    compression_in,
    lowest,
    noise_of,
    require_finite,
    require_fit,
    require_room,
    residual_of,
    strips,
    why_no_photo,
)
from unpool.restore.tiles import Plan, Plane, plan_tiles, run_tiles
from unpool.vision.images import LUMA
from unpool.vision.psf import PSF, find_psf

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.stacks import Frame, Stack


class Restorer:
    """Restores images that were blurred by a PSF.

    Args:
        method: "wiener", "tikhonov", "tv", "rl", "rl-fast", or a network: "given" with the PSF,
            "blind" without; or "auto"; see `docs/restore.md`.
        weights: of a network, by name or folder; it is the method then.
        noise: standard deviation of the noise, as a fraction of the largest value of the type (1
            for floating point); by default estimated. With `gamma`, in linear light.
        balance, lam, steps: the parameter of the method; by default the best one for the noise.
            They refer to images whose brightest parts are scaled to 1. With "auto", they choose
            "tikhonov", "tv" or "rl".
        edges: how to extend the borders: "ramp", "reflect", "zero" or "none".
        gamma: the gamma curve to undo before restoring and to apply afterwards: "srgb", or an
            exponent such as 2.2. Blur happens in linear light, but photos are stored in sRGB.
        luma: restore only the luminance of color images, which is three times as fast.
        tile: side of tiles in pixels; 0 for no tiles, "auto" for tiles beyond 2 GiB of memory.
        as_float: return float32, neither rounded nor clipped.
        device: "auto", "cpu", "cuda" ...

    >>> restorer = Restorer("tikhonov")
    >>> image = np.full((32, 40), 100, np.uint16)
    >>> result = restorer(image, "gaussian:1.6")
    >>> result.image.dtype, result.image.shape, int(result.image[0, 0])
    (dtype('uint16'), (32, 40), 100)
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        weights: str | Path | None = None,
        noise: float | None = None,
        balance: float | None = None,
        lam: float | None = None,
        steps: int | None = None,
        edges: Edges = "ramp",
        gamma: str | float | None = None,
        luma: bool = False,
        tile: int | str = "auto",
        as_float: bool = False,
        device: str = "auto",
    ) -> None:
        require_choice("method", method, RESTORATIONS)
        require_choice("edges", edges, EDGES)
        if noise is not None:
            require_noise(noise)
        given = {"balance": balance, "lam": lam, "steps": steps}
        self.values = {
            name: require_value(name, value) for name, value in given.items() if value is not None
        }
        wrong = [name for name in self.values if method in METHODS
                 and name != METHODS[method].parameter]  # fmt: skip
        if wrong:
            own = METHODS[method].parameter
            raise OptionError(
                f"got {wrong[0]}={self.values[wrong[0]]:g} for method {method!r}, "
                f"{f'whose value is {own}' if own else 'which has no value'}; leave it out"
            )
        if len(self.values) > 1:
            names = " and ".join(self.values)
            raise OptionError(f"got {names}, the values of several methods; give one of them")
        if tile != "auto":
            require_int("tile", tile, 0)
        self.method, self.noise, self.edges = method, noise, edges
        self.gamma, self.luma, self.tile = parse_gamma(gamma), luma, tile
        self.as_float, self.device = as_float, find_device(device)
        self.weights, self._networks = weights, dict[str, Network]()
        if weights is not None:
            network = Network.load(weights, self.device)
            if method not in ("auto", network.method) or self.values:
                got = f"method {method!r}" if method != "auto" else next(iter(self.values))
                raise OptionError(
                    f"got {got} with weights {str(weights)!r}, whose method is "
                    f"{network.method!r}; leave it out"
                )
            self.method = network.method
            self._networks[network.method] = network

    def __call__(
        self,
        image: Any,
        psf: Any = "none",
        *,
        noise: float | None = None,
        background: float | None = None,
        progress: "Progress | None" = None,
    ) -> Restored:
        """Restore an image.

        Args:
            image: (H, W), (H, W, C), or with a PSF (d, h, w) a volume (D, H, W), of any numeric
                type; a Pillow image; or the path of an image. The last of 2 or 4 channels is
                opacity, which is not changed.
            psf: a source for `unpool.vision.psf.find_psf`, or "estimate:" and a family; "none" for
                a blind network.
            noise: as for the class, for this image.
            background: quantile to subtract from a PSF, see `unpool.vision.psf.find_psf`.
            progress: called for each tile.

        Raises:
            ImageError, ShapeError, OptionError: the image, the PSF or a parameter cannot be used.
        """
        values, frame = as_samples(image)
        found = self.psf_for(values, frame, psf, background)
        return self.restore(values, frame, found, progress, noise)

    def psf_for(
        self, values: NDArray[Any], frame: "Frame", psf: Any, background: float | None = None
    ) -> PSF:
        """Make the PSF for an image; "estimate:" sources are estimated from it."""
        family = family_to_estimate(psf)
        if family is None:
            return find_psf(psf, background)
        return self.estimates(values, frame, family, 1)[0]

    def estimates(self, values: NDArray[Any], frame: "Frame", family: str, count: int) -> list[PSF]:
        """The most likely PSFs of a family for an image."""
        planes = values.reshape(*frame.shape)[..., : frame.colors]
        gray = np.mean([self._linear(planes[..., i], frame) for i in range(frame.colors)], 0)
        return estimate_psf(gray, family, count)

    def pages(
        self, stack: "Stack", psf: Any, progress: "Progress | None" = None
    ) -> Iterator[Restored]:
        """Restore the pages of a stack one by one; each gets its own estimate of the PSF.

        Args:
            stack: see `unpool.vision.stacks.read_stack`.
            psf: as for `__call__`.
            progress: called for each tile.
        """
        for i, values in enumerate(stack):

            def within(done: int, total: int, what: str, i: int = i) -> None:
                if progress is not None:
                    progress(i * total + done, len(stack) * total, what)

            frame = stack.frames[i]
            yield self.restore(values, frame, self.psf_for(values, frame, psf), within)

    def restore(
        self,
        values: NDArray[Any],
        frame: "Frame",
        psf: PSF,
        progress: "Progress | None" = None,
        noise: float | None = None,
    ) -> Restored:
        """Restore samples that a frame describes; `__call__` accepts other kinds of images.

        Args:
            values: (H, W, C), or a volume (D, H, W).
            frame: the type and the largest value, and whether the last channel is opacity.
            psf: see `psf_for`.
            progress: called for each tile.
            noise: see `__call__`.
        """
        noise = self.noise if noise is None else require_noise(noise)
        volume = psf.kernel.ndim == 3
        require_fit(values, frame, volume)
        planes = values[..., None] if volume else values.reshape(*values.shape[:2], -1)
        count = 1 if volume else frame.colors
        require_finite(planes[..., :count])
        require_room(planes.shape, psf)
        linear = [self._linear(planes[..., i], frame) for i in range(count)]
        estimated, floor = noise is None, 0.0
        if noise is None:
            floor = compression_in(linear, frame, self.gamma)
            noise = math.hypot(np.mean([noise_of(plane) for plane in linear]), floor)
        sigma = noise
        bright = max(float(np.mean([brightest(plane) for plane in linear])), 1e-12)
        side = max(psf.kernel.shape) if psf.known else 0
        ours = self.weights is None or str(self.weights) in list_pretrained()
        facts = Facts(
            *(volume, lowest(linear) >= 0, sigma / bright, side, [*self.values]),
            *(why_no_photo(frame, bright), ours),
        )
        name, reason = choose(self.method, facts)
        method = METHODS[name]
        if method.counts and lowest(linear) < 0:
            raise ImageError(
                f"got values down to {lowest(linear) * frame.largest:.4g}; method {name!r} "
                "restores counts, wanted 0 or more: choose method='tikhonov' or method='tv'"
            )
        value = self.values.get(method.parameter)
        chosen = value is None
        value = method.value_for(sigma / bright) if value is None else value
        plan = plan_tiles(planes.shape[:-1], psf.kernel.shape, method.memory, self.tile, count)
        run = method.run or self._network(name)
        job = _Job(run, value, torch.from_numpy(psf.kernel), self.edges, bright, self.device)
        restored = self._planes(linear, job, plan, progress)
        residual = None
        if psf.known:
            residual = residual_of(linear[0], restored[0], psf.kernel, sigma)
        found, clipped = self._back(planes, restored, frame)
        return Restored(
            found.reshape(values.shape), values, psf, name, reason, method.parameter, value, chosen,
            sigma, estimated, floor, residual, clipped, frame.largest, plan.parts, plan.memory,
        )  # fmt: skip

    def _network(self, method: str) -> Network:
        """The network of a method, loaded once."""
        if method not in self._networks:
            self._networks[method] = Network.load(METHODS[method].weights, self.device)
        return self._networks[method]

    def _planes(
        self, linear: list[Plane], job: "_Job", plan: Plan, progress: "Progress | None"
    ) -> list[Plane]:
        """Restore each channel, or with `luma` add the change of the luminance to all channels."""
        gray = self.luma and len(linear) == 3
        planes = linear
        if gray:
            planes = [np.tensordot(np.array(LUMA, np.float32), np.stack(linear), 1)]
        elif job.takes_colors and len(linear) == 3:
            planes = [np.stack(linear)]
        total, found = plan.parts * len(planes), list[Plane]()
        for i, plane in enumerate(planes):

            def report(done: int, start: int = i * plan.parts) -> None:
                if progress is not None:
                    progress(start + done, total, plan.text)

            found.append(run_tiles(job, plane, plan, report))
        if gray:
            return [plane + (found[0] - planes[0]) for plane in linear]
        return found if len(found) == len(linear) else [*found[0]]

    def _linear(self, plane: NDArray[Any], frame: "Frame") -> Plane:
        """Convert a channel to linear light, as fractions of the largest value."""
        found, largest = np.empty(plane.shape, np.float32), np.float32(frame.largest)
        for strip in strips(plane):
            found[strip] = self.gamma.decode(plane[strip].astype(np.float32) / largest)
        return found

    def _back(
        self, planes: NDArray[Any], restored: list[Plane], frame: "Frame"
    ) -> tuple[NDArray[Any], float]:
        """Convert restored channels to the original type; also return the clipped fraction."""
        kind = np.dtype(np.float32) if self.as_float else planes.dtype
        found = planes.astype(kind, copy=True)
        clipped = 0
        for i, plane in enumerate(restored):
            for strip in strips(plane):
                values = self.gamma.encode(plane[strip]) * np.float32(frame.largest)
                if kind.kind != "f":
                    low = -frame.largest - 1 if kind.kind == "i" else 0.0
                    clipped += int(((values < low - 0.5) | (values > frame.largest + 0.5)).sum())
                    # the largest values of 32 bits are no numbers of float32
                    exact = values if kind.itemsize <= 2 else values.astype(np.float64)
                    values = np.clip(np.rint(exact), low, frame.largest)
                found[strip, ..., i] = values.astype(kind)
        return found, clipped / sum(plane.size for plane in restored)


@dataclass(frozen=True)
class _Job:
    """A method with its arguments, to restore images or tiles (H, W) or (D, H, W)."""

    run: Run
    value: float
    kernel: Tensor
    edges: Edges
    bright: float
    device: torch.device

    @property
    def takes_colors(self) -> bool:
        """Whether it restores the channels of color images together, as (3, H, W)."""
        return isinstance(self.run, Network) and self.run.net.channels == 3

    def __call__(self, plane: Plane) -> Plane:
        y = torch.from_numpy(np.ascontiguousarray(plane)).to(self.device)[None]
        y = y if self.takes_colors and y.dim() == 4 else y[None]
        kernel = self.kernel.to(self.device)
        with torch.inference_mode():
            x = self.run(y / self.bright, kernel, self.value, self.edges) * self.bright
        return x.reshape(plane.shape).cpu().numpy()
