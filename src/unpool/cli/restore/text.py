"""What `unpool restore` prints for a file."""

from collections.abc import Mapping
from typing import Any


def text(record: Mapping[str, Any]) -> str:
    """The lines that `unpool restore` prints for a file."""
    source, seconds = record["source"], f"({record['seconds']:.1f} s)"
    if "results" in record:
        first = f"{source}: {len(record['results'])} variants, {record['sheet']} {seconds}"
        return "\n".join([first, *map(_variant_text, record["results"])])
    estimated = "estimated " if record["noise_estimated"] else ""
    jpeg = record["noise_of_compression"]
    part = f" (JPEG compression {jpeg:.2g})" if jpeg else ""
    lines = [
        f"{source}: {record['method']} ({record['reason']}), {_value(record)}"
        f"{estimated}noise {record['noise']:.2g}{part}, {record['image']} {seconds}"
    ]
    lines += [f"  PSF {record['psf']}: {change}" for change in record["psf_changes"]]
    if "estimates" in record:
        others = ", ".join(record["estimates"][1:]) or "none"
        lines.append(f"  other estimates: {others}; compare {record['sheet']}, choose by --psf")
    if more := record.get("noise_to_try"):
        lines.append(
            f"  residual {record['residual']:.2g}: the noise is larger than estimated, as in "
            f"a PNG made of a JPEG, or the PSF is wrong; try a larger one, as --noise {more:.2g}"
        )
    if record["clipped"] >= 0.001:
        lines.append(f"  {record['clipped']:.1%} of the values clipped; --float keeps them")
    if record["tiles"] > 1:
        lines.append(f"  {record['tiles']} tiles, {record['memory'] / 2**30:.1f} GiB")
    if "psnr" in record:
        lines.append(f"  {_figures_text(record)}")
    return "\n".join(lines)


def _value(record: Mapping[str, Any]) -> str:
    return "".join(f"{n} {record[n]:.3g}, " for n in ("balance", "lam", "steps") if n in record)


def _figures_text(record: Mapping[str, Any]) -> str:
    names = (name for name in ("psnr", "ssim") if name in record)
    return ", ".join(f"{n.upper()} {record[n + '_before']:.4g} -> {record[n]:.4g}" for n in names)


def _variant_text(one: Mapping[str, Any]) -> str:
    return f"  {one['psf']}: {one['method']}, {_value(one)}{_figures_text(one)}".rstrip(", ")
