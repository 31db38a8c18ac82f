"""Unpack untrusted zip files safely."""

import stat
import zipfile
from pathlib import Path, PureWindowsPath

from unpool.errors import DataError
from unpool.files import require_regular, require_zip_directory
from unpool.limits import MAX_ZIP_BYTES, MAX_ZIP_FILES, MAX_ZIP_RATIO, MAX_ZIP_SMALL, MIB


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip file into an empty folder; all entries are checked before any is written.

    Raises:
        DataError: not a zip file, broken, or encrypted; it has absolute paths, paths that lead out
            of the folder, or links; or it unpacks to more than 1 GiB or 20,000 files, or to more
            than 100 times its size.
    """
    require_regular(path, DataError)
    try:
        require_zip_directory(path, DataError)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_sizes(path, entries)
            for entry in entries:
                _check_entry(path, entry)
            for entry in entries:
                archive.extract(entry, folder)  # never more than the declared size
    except (DataError, MemoryError):
        raise
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        message = f"{path} has files and folders of the same name; zip its files again"
        raise DataError(message) from None
    except Exception as error:  # `zipfile` and its decoders raise nearly every type
        raise DataError(f"{path} cannot be unpacked: {error}; zip its files again") from None


def _check_sizes(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_ZIP_FILES:
        wanted = f"wanted at most {MAX_ZIP_FILES:,}; unpack it yourself and pass the folder"
        raise DataError(f"{path} has {len(entries):,} files, {wanted}")
    size = sum(entry.file_size for entry in entries)
    if size > MAX_ZIP_BYTES or size > max(MAX_ZIP_SMALL, MAX_ZIP_RATIO * path.stat().st_size):
        most = f"{MAX_ZIP_BYTES // MIB:,} MiB"
        if size <= MAX_ZIP_BYTES:
            most = f"{MAX_ZIP_RATIO} times its own size, or {MAX_ZIP_SMALL // MIB} MiB"
        got = f"{path} would unpack to {size / MIB:,.0f} MiB, wanted at most {most}"
        raise DataError(f"{got}; if you trust it, unpack it yourself and pass the folder")


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    """Refuse an entry that could leave the folder, on any system."""
    name = PureWindowsPath(entry.filename)  # splits at / and \
    got, kind = f"{path} has {entry.filename!r}", stat.S_IFMT(entry.external_attr >> 16)
    if name.drive or name.root or ".." in name.parts:
        raise DataError(f"{got}, which leads out of its folder; nothing was unpacked")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"{got}, which is a link or a device; zip the files themselves")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{got}, which is compressed in an unusual way; zip its files again")
    if entry.flag_bits & 1:
        raise DataError(f"{path} is encrypted; unpack it with its password, and pass the folder")
