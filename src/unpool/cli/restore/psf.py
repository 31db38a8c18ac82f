"""`unpool restore psf`: a look at a PSF."""

from pathlib import Path

import click

from unpool.cli import console, options

BACKGROUND = click.option(
    "--background",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="QUANTILE",
    help="Subtract this quantile of a PSF from a file, such as 0.5.  [default: nothing]",
)


@click.command()
@click.argument("given", required=False, metavar="[FILE|NAME:NUMBERS]")
@click.option("--psf", "name", metavar="FILE|NAME:NUMBERS", help="The PSF, if not given first.")
@BACKGROUND
@click.option(
    *("-o", "--output"),
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Write the PSF, enlarged, and its transfer function.  [default: only figures]",
)
@options.JSON
def psf(
    given: str | None,
    name: str | None,
    background: float | None,
    output: Path | None,
    as_json: bool,
) -> int:
    """Look at a PSF: its size, its width, what was changed, and what it leaves of each frequency.

    \b
    Example: unpool restore psf motion:13,30 -o psf.png
    """
    from unpool.vision.psf import describe, find_psf

    if (given is None) == (name is None):
        count = "no PSF" if name is None else "two PSFs"
        raise click.UsageError(f"got {count}; name one: unpool restore psf motion:13,30")
    found = find_psf(given or name, background)
    if not found.known:
        raise click.UsageError(f"got {found.name}, which is no PSF to look at; name one")
    facts = describe(found)
    if output is not None:
        import numpy as np

        from unpool.vision.drawing import heat_map
        from unpool.vision.figures import contact_sheet, scale_to
        from unpool.vision.images import write_image
        from unpool.vision.psf import transfer

        plane = found.kernel if found.kernel.ndim == 2 else found.kernel.sum(0)
        left = np.log10(np.maximum(transfer(found), 1e-4))
        tiles = [(scale_to(heat_map(plane), 512), found.name),
                 (scale_to(heat_map(left), 512), "transfer, 1e-4 (dark) to 1")]  # fmt: skip
        write_image(output, contact_sheet(tiles, 2))
        facts["figure"] = str(output)
    if as_json:
        console.print_json(facts)
    else:
        console.print_facts(facts)
    return 0
