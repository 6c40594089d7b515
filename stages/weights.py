"""Bring the weights that training starts from into one form; none for random ones."""

import re
from http.client import HTTPException
from pathlib import Path

import safetensors

from minet.core.cli import parse_paths, run
from minet.core.errors import InputError
from minet.core.files import atomic_write, file_digest
from minet.core.settings import read_settings
from minet.nn.config import WeightsSettings


def main() -> None:
    """Write safetensors: those of the file named in the settings, or an empty one."""
    args = parse_paths(__doc__, "settings", "folder", "out")
    settings = read_settings(args.settings, WeightsSettings)
    if settings.file is None:
        said, content = "random weights", safetensors.serialize({})
    else:  # random weights are spared the import of torch
        from safetensors.torch import save

        from minet.nn.weights import read_weights

        tensors = read_weights(_found(settings.file, settings.url, args.folder))
        said = f"{len(tensors)} tensors of {settings.file}"
        # copies: of tensors that share memory, as views in a torch file do, safetensors saves none
        content = save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})
    with atomic_write(args.out) as partial:
        partial.write_bytes(content)
    print(said)


def _found(file: str, url: str | None, folder: Path) -> Path:
    """Find a file in the folder, or else download it into torch's own cache."""
    placed = folder / file
    if url is not None:
        path = placed if placed.exists() else _downloaded(file, url, placed)
        _check_digest(path)
        return path
    return placed


def _downloaded(file: str, url: str, placed: Path) -> Path:
    from torch import hub

    path = Path(hub.get_dir(), "checkpoints", file)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            hub.download_url_to_file(url, str(path), progress=False)
        except (OSError, HTTPException) as error:
            raise InputError(
                f"{url}: cannot be fetched ({error}); fetch it elsewhere and place it as {placed}"
            ) from error
    return path


def _check_digest(path: Path) -> None:
    """Hold a file against the digest in its name, as torchvision's have it: `name-f37072fd.pth`."""
    named = re.search(r"-([0-9a-f]{8,})\.", path.name)
    digest = file_digest(path)
    if named and not digest.startswith(named[1]):
        raise InputError(
            f"{path}: its SHA-256 begins {digest[: len(named[1])]}, not {named[1]} as its name "
            "says; remove it and fetch it again"
        )


if __name__ == "__main__":
    run(main)
