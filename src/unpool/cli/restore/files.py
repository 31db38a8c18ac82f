"""`unpool restore`: blurred images in, sharp ones out."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console, images, options
from unpool.cli.restore.psf import BACKGROUND
from unpool.cli.restore.psf import psf as show_psf
from unpool.cli.restore.text import text
from unpool.errors import OptionError
from unpool.recipes.presets import EDGES, RESTORATIONS

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.restore import Restored, Restorer
    from unpool.vision.psf import PSF
    from unpool.vision.samples import Samples
    from unpool.vision.sources import Source
    from unpool.vision.stacks import Stack

_HOW = "--psf motion:13,30, --psf bead.tif, or --psf estimate:motion"

SUFFIXES = (".tif", ".png", ".jpg", ".compare.jpg", ".sheet.jpg")
"""Of the files that may be written for an image."""

CANDIDATES, MIDDLE = 3, 768  # estimates on a contact sheet, and the side of the part it shows

PSFS = click.option(
    "--psf",
    "psfs",
    multiple=True,
    metavar="FILE|NAME:NUMBERS",
    help="The PSF: an image, a TIFF stack or a .npy file; gaussian:SIGMA, disk:RADIUS, "
    "motion:LENGTH,ANGLE, airy:RADIUS, moffat:FWHM,BETA, shake:SEED; or estimate:motion, "
    "estimate:disk or estimate:gaussian; or none, for a blind network. Repeated, a contact sheet "
    "of all is written.  [required]",
)


class WithPsf(click.Command):
    """A command for images, which has another one for PSFs below it: `psf`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> click.Context:
        """The context of this command, or of `psf` if that is the first argument."""
        if args[:1] == ["psf"] and not Path("psf").exists():
            return show_psf.make_context(f"{info_name} psf", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def parse_steps(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    found = options.numbers("30 or 5,10,20")(ctx, param, value) or ()
    if any(number != int(number) or number < 1 for number in found):
        raise click.BadParameter(f"got {value!r}; wanted whole numbers above 0.", ctx, param)
    return tuple(int(number) for number in found)


def parse_tile(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    """A number of pixels, or auto."""
    if value == "auto" or value.isdecimal():
        return value if value == "auto" else int(value)
    raise click.BadParameter(f"got {value!r}; wanted auto, 0 or pixels, such as 512.", ctx, param)


@click.command(cls=WithPsf)
@click.argument("inputs", nargs=-1, required=True)
@images.output_option("restored")
@PSFS
@BACKGROUND
@options.choice(
    "--method", RESTORATIONS, "How to restore; auto chooses, and says why.  [default: auto]"
)
@click.option(
    "--weights",
    metavar="NAME|FOLDER",
    help="A network to restore with, such as a run folder of unpool train deblur-given.  "
    "[default: those that ship with the package]",
)
@click.option(
    "--noise",
    type=click.FloatRange(min=0),
    help="Standard deviation of the noise, as a fraction of the largest value of the type.  "
    "[default: estimated]",
)
@click.option("--balance", type=click.FloatRange(min=0), help="The value of wiener and tikhonov.")
@click.option("--lam", type=click.FloatRange(min=0), help="The value of tv.")
@click.option(
    "--steps",
    callback=parse_steps,
    metavar="N[,N...]",
    help="The value of rl and rl-fast; several give a contact sheet.",
)
@options.choice("--edges", EDGES, "How borders are continued.  [default: ramp]")
@click.option(
    "--gamma",
    metavar="srgb|NUMBER",
    help="Restore in linear light: undo this curve before, and redo it after.  [default: none]",
)
@click.option("--luma", is_flag=True, help="Of color images restore the luminance only.")
@click.option(
    "--tile",
    default="auto",
    metavar="auto|PIXELS",
    callback=parse_tile,
    help="Side of tiles; 0 for none, auto for tiles beyond 2 GiB.  [default: auto]",
)
@click.option("--volume", is_flag=True, help="The pages of a TIFF are the slices of a volume.")
@click.option("--float", "as_float", is_flag=True, help="Write float32 TIFFs, not clipped.")
@click.option(
    "--truth",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE|FOLDER",
    help="Sharp images of the same names: report PSNR and SSIM before and after.",
)
@click.option(
    "--compare/--no-compare",
    default=True,
    help="Write images with the left half before and the right half after.  [default: compare]",
)
@options.DEVICE
@images.SCALE
@options.REDO
@options.JSON
@options.QUIET
def restore(
    inputs: tuple[str, ...],
    output: Path,
    psfs: tuple[str, ...],
    background: float | None,
    steps: tuple[int, ...],
    volume: bool,
    truth: Path | None,
    compare: bool,
    redo: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> int:
    """Undo a blur whose point spread function (PSF) is known, or of a known kind.

    With --psf none, a network restores without it; only mild blur can be undone that way.

    INPUTS are images, folders, patterns, lists of paths (.txt), tar files (as of WebDataset),
    URLs that fsspec knows (s3://...), or - for standard input.

    For a/cat.tif in the folder photos this writes OUTPUT/a/cat.tif, of the same type, size, pages
    and tags, and OUTPUT/a/cat.compare.jpg. TIFF, PNG and JPEG stay such; other formats become PNG.
    Values are not rescaled, but clipped at the ends of their type. With several --psf or --steps,
    only a contact sheet is written, OUTPUT/a/cat.sheet.jpg; for an estimated PSF, it shows the best
    three beside the result. Unreadable images are reported and skipped (exit code 3).

    With --json, each image gives a line with source, image, comparison, psf, psf_changes, method,
    reason, its value if it has one (balance, lam or steps), noise, noise_of_compression (the part
    of an estimated noise that is due to JPEG), residual (about 1 if just the noise is left; it does
    not find a wrong PSF), noise_to_try (a larger noise, if the residual asks for it), clipped (the
    fraction of the values), tiles, memory (bytes) and seconds, with --truth also psnr, psnr_before,
    ssim and ssim_before; or with source and error. Of several pages, these are those of the first,
    with pages (their number).

    `unpool restore psf` shows a PSF.

    \b
    Example: unpool restore blurred.jpg --psf motion:13,30 --gamma srgb -o out
             unpool restore stack.tif --psf bead.tif --volume --method rl --steps 30
    """
    if not psfs:
        raise click.UsageError(f"got no PSF; say what blurred the image: {_HOW}")
    scale = images.Scale.taken(given)
    found = images.find_inputs(inputs, output, images.with_suffixes(*SUFFIXES), scale=scale)

    from unpool.restore.estimate import family_to_estimate
    from unpool.vision.psf import find_psf

    with console.progress("loading the PSF", quiet):
        given = {k: v for k, v in options.typed(given).items() if v is not False}
        kernels = [p if family_to_estimate(p) else find_psf(p, background) for p in psfs]
        job = Job(given, steps or (None,), kernels, volume, truth, compare)
        job.prepare()
    _require_dimensions(kernels, volume)
    shown = (text, "restoring", as_json, quiet, f"restored, into {output}")
    more: dict[str, Any] = {"also": job.also, "prepare": job.prepare, "redo": redo}
    more["network"] = job.network()
    return images.each_image(found, output, job.image, *shown, scale=scale, **more)


def _require_dimensions(kernels: "Sequence[PSF | str]", volume: bool) -> None:
    for kernel in kernels:
        deep = not isinstance(kernel, str) and kernel.kernel.ndim == 3
        name = kernel if isinstance(kernel, str) else kernel.name
        if volume and not deep:
            raise OptionError(f"got --volume with the PSF {name} of two dimensions; name a stack")
        if deep and not volume:
            raise OptionError(f"got the PSF {name} of three dimensions; add --volume")


@dataclass(frozen=True)
class Job:
    """Restores images, and writes the results; each process makes its restorers."""

    options: dict[str, Any]  #: of the restorers
    steps: Sequence[int | None]
    psfs: "list[PSF | str]"  #: those to be estimated as texts
    volume: bool
    truth: Path | None
    compare: bool

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "restorers"}

    @cached_property
    def restorers(self) -> "list[Restorer]":
        """The restorers of this process, one for each number of steps."""
        from unpool.restore import Restorer

        return [Restorer(**self.options, steps=count) for count in self.steps]

    def prepare(self) -> None:
        """Make the restorers before the first image."""
        _ = self.restorers

    def network(self) -> str:
        """A digest of the weights that may be used: those that were named, or that ship."""
        from unpool.cards import weights_digest
        from unpool.restore.methods import shipped_for

        restorer = self.restorers[0]
        given = restorer.weights
        names = [given] if given is not None else shipped_for(restorer.method)
        return " ".join(map(weights_digest, names))

    def image(self, source: "Source", stem: Path, progress: "Progress") -> images.Record:
        """Restore the pages of an image, or write a contact sheet."""
        from unpool.restore.evaluate import require_same
        from unpool.restore.result import reduced, sheet
        from unpool.vision.images import write_image
        from unpool.vision.stacks import read_stack

        stack, path = read_stack(source.content()), self._truth_of(source)
        truth = read_stack(path) if path else None
        if truth is not None:
            require_same(stack.frames[0].shape, truth.frames[0].shape)
        self._require_voxels(stack)
        if len(self.restorers) * len(self.psfs) > 1:
            results = list(self._variants(stack, progress))
            path = Path(f"{stem}.sheet.jpg")
            write_image(path, reduced(sheet(results)))
            return {
                "sheet": str(path),
                "results": [{**r.to_dict(), **self._figures(truth, r)} for r in results],
            }
        others = self._write_estimates(stack, stem) if self.compare else {}
        kept: list[Restored] = []
        target = stack.as_float() if self.restorers[0].as_float else stack
        path = Path(f"{stem}{target.suffix}")
        target.write(path, self._pages(stack, kept, progress))
        record = {"image": str(path)}
        if self.compare:
            record["comparison"] = f"{stem}.compare.jpg"
            kept[0].save_comparison(record["comparison"])
        about = {**kept[0].to_dict(), **others, "pages": len(stack)}
        return {**record, **about, **self._figures(truth, kept[0])}

    def _write_estimates(self, stack: "Stack", stem: Path) -> dict[str, Any]:
        """Write a contact sheet of the middle of the first page for the best estimates."""
        from unpool.restore.estimate import family_to_estimate
        from unpool.restore.result import reduced, sheet
        from unpool.vision.images import write_image

        if (family := family_to_estimate(self.psfs[0])) is None:
            return {}
        restorer, frame, values = self.restorers[0], stack.frames[0], stack[0]
        found = restorer.estimates(values, frame, family, CANDIDATES)
        starts = [max(0, (n - MIDDLE) // 2) for n in values.shape[:2]]
        part = values[tuple(slice(start, start + MIDDLE) for start in starts)]
        path = Path(f"{stem}.sheet.jpg")
        write_image(path, reduced(sheet([restorer.restore(part, frame, psf) for psf in found])))
        return {"estimates": [psf.name for psf in found], "sheet": str(path)}

    def also(self, source: "Source") -> object:
        """The content of the files that results depend on besides the image and the weights."""
        from unpool.files import sha256

        kernels = [p.kernel.tobytes() for p in self.psfs if not isinstance(p, str)]
        truth = self._truth_of(source)
        return [hashlib.sha256(b"".join(kernels)).hexdigest(), truth and sha256(truth)]

    def _pages(
        self, stack: "Stack", kept: "list[Restored]", progress: "Progress"
    ) -> "Iterator[Samples]":
        """The restored pages, one at a time; the first result, or the last one, is kept."""
        restorer, psf = self.restorers[0], self.psfs[0]
        if self.volume:
            result = self._restored(restorer, stack, psf, progress)
            kept.append(result)
            yield from result.image[..., None]
            return
        for result in restorer.pages(stack, psf, progress):
            if not kept:
                kept.append(result)
            yield result.image

    def _restored(
        self, restorer: "Restorer", stack: "Stack", psf: "PSF | str", progress: "Progress"
    ) -> "Restored":
        """The first page, or the volume, restored."""
        import numpy as np

        frame = stack.frames[0]
        if not self.volume:
            values = stack[0]
            return restorer.restore(values, frame, restorer.psf_for(values, frame, psf), progress)
        if {f.shape[:2] for f in stack.frames} != {frame.shape[:2]} or frame.shape[2] > 1:
            raise OptionError("got pages of several sizes, or in color, for a volume")
        values = np.stack([page[..., 0] for page in stack])
        return restorer.restore(values, frame, restorer.psf_for(values, frame, psf), progress)

    def _variants(self, stack: "Stack", progress: "Progress") -> "Iterator[Restored]":
        for psf in self.psfs:
            for restorer in self.restorers:
                yield self._restored(restorer, stack, psf, progress)

    def _require_voxels(self, stack: "Stack") -> None:
        """Refuse a PSF whose voxels have another size than those of the image."""
        for psf in self.psfs:
            known = None if isinstance(psf, str) else psf.voxel
            pairs = list(zip(known or (), stack.voxel or (), strict=False))
            if any(a and b and abs(a / b - 1) > 0.01 for a, b in pairs):
                raise OptionError(
                    f"got voxels of {known} micrometers in the PSF and of {stack.voxel} in the "
                    "image (depth, height, width); resample the PSF"
                )

    def _truth_of(self, source: "Source") -> Path | None:
        """The sharp image for a source: the file, or the one of its name in the folder."""
        if self.truth is None or self.truth.is_file():
            return self.truth
        from unpool.vision.images import SUFFIXES as READ

        # names of results have a suffix where two images have the same
        stem = source.name.name if source.path is None else source.path.stem
        folder = self.truth / source.name.parent
        found = [f for f in sorted(folder.glob("*")) if f.stem == stem and f.suffix.lower() in READ]
        if not found:
            raise OptionError(
                f"got no image {source.name.parent / stem} in {self.truth}; give the sharp image "
                "the name of the blurred one, or leave out --truth"
            )
        same = [f for f in found if source.path and f.suffix == source.path.suffix]
        return (same or found)[0]

    def _figures(self, truth: "Stack | None", result: "Restored") -> dict[str, float]:
        """PSNR and SSIM; for floating point beyond 1, the range ends at the largest true value."""
        import numpy as np

        from unpool.restore import compare

        if truth is None:
            return {}
        values = np.stack([page[..., 0] for page in truth]) if self.volume else truth[0]
        values = values * (result.largest / truth.frames[0].largest)
        largest = max(1.0, float(values.max())) if result.largest == 1 else result.largest
        return compare(values, result.before, result.image, largest, self.volume)
