"""Convert the initial weights to safetensors; an empty file stands for random weights."""

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
    """Write the weights of the file named in the settings, or none."""
    args = parse_paths(__doc__, "settings", "folder", "out")
    settings = read_settings(args.settings, WeightsSettings)
    if settings.file is None:
        message, content = "random weights", safetensors.serialize({})
    else:  # imported here: random weights do not need torch
        from safetensors.torch import save

        from minet.nn.weights import read_weights

        tensors = read_weights(_weights_file(settings.file, settings.url, args.folder))
        message = f"{len(tensors)} tensors of {settings.file}"
        # copies: safetensors refuses tensors that share memory, as views in a torch file do
        content = save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})
    with atomic_write(args.out) as partial:
        partial.write_bytes(content)
    print(message)


def _weights_file(file: str, url: str | None, folder: Path) -> Path:
    """Return the path of a file in the folder or, if it has an address, in torch's cache."""
    local = folder / file
    if url is None:
        return local
    path = local if local.exists() else _download(file, url, local)
    _check_digest(path)
    return path


def _download(file: str, url: str, local: Path) -> Path:
    """Download a file to torch's cache unless it is there; InputError if that fails."""
    from torch import hub

    path = Path(hub.get_dir(), "checkpoints", file)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            hub.download_url_to_file(url, str(path), progress=False)
        except (OSError, HTTPException) as error:
            from_root = Path(*(part for part in local.parts if part != ".."))
            raise InputError(
                f"{url}: cannot be fetched ({error}); fetch it elsewhere and save it as {from_root}"
            ) from error
    return path


def _check_digest(path: Path) -> None:
    """Compare a file with the digest in its name, as in torchvision's `name-f37072fd.pth`."""
    named = re.search(r"-([0-9a-f]{8,})\.", path.name)
    digest = file_digest(path)
    if named and not digest.startswith(named[1]):
        raise InputError(
            f"{path}: its SHA-256 begins {digest[: len(named[1])]}, not {named[1]} as its name "
            "says; remove it and fetch it again"
        )


if __name__ == "__main__":
    run(main)
