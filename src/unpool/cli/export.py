"""`unpool export`: write a network for another engine."""

from pathlib import Path

import click

from unpool.cards import EXPORTED
from unpool.cli import console
from unpool.cli.options import JSON, QUIET, choice


@click.command()
@click.option(
    "--weights",
    default="objects",
    metavar="NAME|FOLDER",
    help="Weights that ship with the package, or a folder of weights.  [default: objects]",
)
@choice(
    "--format",
    list(EXPORTED.values()),
    "onnx: for ONNX Runtime; openvino: for OpenVINO; torch-export: for torch.export.load.  "
    "[default: by the suffix of FILE]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="NAME.onnx, NAME.xml (and NAME.bin) or NAME.pt2; the card is written to NAME.card.json.",
)
@JSON
@QUIET
def export(weights: str, format: str | None, output: Path, as_json: bool, quiet: bool) -> None:
    """Write a network for another engine, and verify it.

    The exported network takes batches of any size and images of any size, or of the design size
    if the network has code layers. The file is kept only if at most one pixel in 10,000 gets
    another label than by PyTorch, on synthetic images and, if scikit-image is installed, on its
    photos.

    Of a CRF-RNN, only the FCN is exported, without the CRF; the card says so.

    With --json, the object has file, card, format, weights, input (the shape), bytes, images,
    pixels, different (the number of pixels that differ), and note (what is not in the file).

    \b
    Example: unpool export --weights objects -o objects.onnx
             unpool segment photo.jpg --weights objects.onnx
    """
    from unpool.export.write import export as application

    with console.progress("exporting", quiet) as show:
        written = application(weights, output, format, progress=show)
    if as_json:
        console.print_json(written._asdict())
    elif not quiet:
        click.echo(
            f"{written.file}: {written.format}, {written.bytes / 1e6:.1f} MB, for {written.input}; "
            f"labels of {written.images} images verified: {written.different} of "
            f"{written.pixels} pixels differ from PyTorch's"
            + (f"; note: {written.note}" if written.note else "")
        )
