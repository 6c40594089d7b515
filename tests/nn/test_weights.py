"""Initial weights: reading files, loading them into a model, downloading torchvision's."""

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minet.core.errors import InputError
from minet.core.files import file_digest
from minet.models.registry import MODELS, build, pretrained_url, reinitialized_layers
from minet.nn.weights import head_names, load_matching, read_weights, weight_problems
from tests.helpers.stage import call_stage

PRETRAINED = {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "densenet121"}
PRETRAINED |= {"dwg_densenet121", "dwg_any"}


def _weights(name: str, classes: int, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return build(name, num_classes=classes).state_dict()


def _head(name: str) -> set[str]:
    with torch.device("meta"):
        return head_names(build(name, num_classes=2), build(name, num_classes=3))


@pytest.mark.parametrize("name", MODELS)
def test_only_the_head_depends_on_the_number_of_classes(name: str) -> None:
    """The head is the weight and bias of the last linear layer."""
    head = _head(name)
    with torch.device("meta"):
        state = build(name, num_classes=2).state_dict()
    assert head == set(list(state)[-2:])
    assert {state[key].shape[0] for key in head} == {2}


@pytest.mark.parametrize("name", MODELS)
def test_torchvisions_weights_fit_the_architecture(name: str) -> None:
    """The stock model with 1000 classes replaces the file: same names, same shapes."""
    url = pretrained_url(name)
    assert (url is not None) == (name in PRETRAINED)
    if url is None:
        return
    assert url.startswith("https://download.pytorch.org/models/")
    stock = name if "dwg" not in name else "densenet121"
    assert stock in url
    with torch.device("meta"):
        weights = build(stock, num_classes=1000).state_dict()
        model = build(name, num_classes=50)
    reinitialized = reinitialized_layers(name)
    assert weight_problems(model, weights, head=_head(name), reinitialized=reinitialized) == []
    if reinitialized:
        problems = weight_problems(model, weights, head=_head(name), reinitialized=())
        assert all("features.conv0." in problem for problem in problems)
        assert problems


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_are_read_from_a_file(tmp_path: Path, suffix: str) -> None:
    path, weights = tmp_path / f"w{suffix}", _weights("rrdb", 5, 0)
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    loaded = read_weights(path)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_common_wrappers_of_state_dicts_are_removed(tmp_path: Path, key: str) -> None:
    weights = _weights("rrdb", 5, 0)
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({key: wrapped, "epoch": 7}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").keys() == weights.keys()


def test_tensors_that_share_memory_are_accepted(tmp_path: Path) -> None:
    """Two names of one tensor and views of a larger one, as torch files may contain."""
    whole = torch.arange(12.0).view(3, 4)
    (tmp_path / "weights").mkdir()
    torch.save({"a": whole, "b": whole, "c": whole[:, 1]}, tmp_path / "weights/w.pt")
    assert "3 tensors of w.pt" in _stage(tmp_path, {"file": "w.pt", "url": None})
    loaded = load_file(tmp_path / "out.safetensors")
    assert torch.equal(loaded["a"], whole)
    assert torch.equal(loaded["c"], whole[:, 1])


def test_old_names_of_densenet_become_the_current_ones(tmp_path: Path) -> None:
    """Files of torchvision have norm.1 where its code has norm1."""
    weights = _weights("densenet121", 5, 0)
    old = {
        name.replace("norm1", "norm.1").replace("norm2", "norm.2")
        .replace("conv1", "conv.1").replace("conv2", "conv.2")
        if "denselayer" in name else name: tensor
        for name, tensor in weights.items()
    }  # fmt: skip
    assert old.keys() != weights.keys()
    torch.save(old, tmp_path / "densenet121.pth")
    assert read_weights(tmp_path / "densenet121.pth").keys() == weights.keys()


class Evil:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        """Return the call that unpickling makes."""
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Evil(tmp_path / "done")}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt: not readable as weights: "):
        read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", b"not a torch file", "not readable as weights"),
        ("w.safetensors", b"short", "not readable as weights"),
        ("w.pt", [1, 2], "contains no named weights but a list"),
        ("w.pt", {}, "contains no named weights but a dict"),
        ("w.pt", {"weight": 3}, "'weight' is a int, not a tensor"),
        ("w.pt", {1: torch.ones(1)}, "1 is not a tensor name"),
    ],
)
def test_a_file_without_named_weights_is_rejected_with_the_reason(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"w\.pt: no such file"):
        read_weights(tmp_path / "w.pt")


def test_all_weights_but_a_head_of_another_size_are_loaded() -> None:
    """Such a head keeps its random weights; with as many classes it is loaded too."""
    weights = _weights("rrdb", 10, 1)
    torch.manual_seed(0)
    model = build("rrdb", num_classes=4)
    initial = {key: value.clone() for key, value in model.state_dict().items()}
    head = _head("rrdb")
    assert weight_problems(model, weights, head=head, reinitialized=()) == []
    assert set(load_matching(model, weights)) == head
    loaded = model.state_dict()
    for key, value in loaded.items():
        assert torch.equal(value, (initial if key in head else weights)[key])
    same = build("rrdb", num_classes=10)
    assert load_matching(same, weights) == []
    assert all(torch.equal(same.state_dict()[key], weights[key]) for key in weights)


def test_weights_that_do_not_fit_are_listed() -> None:
    weights = _weights("rrdb", 4, 0)
    weights["extra"] = torch.ones(1)
    weights["1.conv.weight"] = weights["1.conv.weight"][:8]
    del weights["0.0.weight"]
    del weights["0.1.num_batches_tracked"]  # which old files lack
    model = build("rrdb", num_classes=4)
    assert weight_problems(model, weights, head=_head("rrdb"), reinitialized=()) == [
        "0.0.weight is not in the file",
        "1.conv.weight is (8, 64, 3, 3) in the file, (32, 64, 3, 3) in the model",
        "extra is not in the model",
    ]
    other = weight_problems(model, _weights("resnet18", 4, 0), head=_head("rrdb"), reinitialized=())
    assert len(other) == 9
    assert other[-1].startswith("and ")


def _stage(folder: Path, settings: dict[str, Any], *, code: int = 0) -> str:
    """Run the weights stage without a network."""
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "weights").mkdir(exist_ok=True)
    paths = ["--settings", str(folder / "settings.json"), "--folder", str(folder / "weights")]
    paths += ["--out", str(folder / "out.safetensors")]
    offline = {"https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(folder / "torch")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib.request, "_opener", None)  # one made before has other proxies
        done = call_stage("weights", *paths, **offline)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.rglob("*.partial"))
    assert (folder / "out.safetensors").exists() == (code == 0)
    return done.stdout + done.stderr


def test_random_weights_are_an_empty_file(tmp_path: Path) -> None:
    assert "random weights" in _stage(tmp_path, {"file": None, "url": None})
    assert load_file(tmp_path / "out.safetensors") == {}


def _stock_file(folder: Path) -> Path:
    """Write a file named as torchvision's, with its digest in the name."""
    weights = _weights("resnet18", 1000, 0)
    torch.save(weights, folder / "plain.pth")
    digest = file_digest(folder / "plain.pth")[:8]
    return (folder / "plain.pth").rename(folder / f"resnet18-{digest}.pth")


def test_weights_are_downloaded_once_and_checked(tmp_path: Path) -> None:
    path = _stock_file(tmp_path)
    settings = {"file": path.name, "url": path.as_uri()}
    assert "tensors of resnet18-" in _stage(tmp_path, settings)
    loaded = load_file(tmp_path / "out.safetensors")
    with torch.device("meta"):
        model: nn.Module = build("resnet18", num_classes=3)
    assert weight_problems(model, loaded, head=_head("resnet18"), reinitialized=()) == []
    path.unlink()
    assert "tensors of resnet18-" in _stage(tmp_path, settings)  # from torch's cache


def test_a_damaged_download_is_rejected(tmp_path: Path) -> None:
    path = _stock_file(tmp_path)
    (tmp_path / "weights").mkdir()
    local = tmp_path / "weights" / path.name
    local.write_bytes(path.read_bytes()[:-100])
    output = _stage(tmp_path, {"file": path.name, "url": path.as_uri()}, code=1)
    assert f"{local}: its SHA-256 begins " in output
    assert "as its name says; remove it and fetch it again" in output


def test_without_a_network_the_error_says_where_to_place_the_file(tmp_path: Path) -> None:
    url = pretrained_url("resnet18")
    assert url is not None
    name = url.rpartition("/")[2]
    output = _stage(tmp_path, {"file": name, "url": url}, code=1)
    assert output.startswith(f"error: {url}: cannot be fetched (")
    assert f"fetch it elsewhere and save it as {tmp_path}/weights/{name}" in output


def test_a_file_placed_by_hand_needs_no_network(tmp_path: Path) -> None:
    path = _stock_file(tmp_path)
    (tmp_path / "weights").mkdir()
    path.rename(tmp_path / "weights" / path.name)
    settings = {"file": path.name, "url": f"https://download.pytorch.org/models/{path.name}"}
    assert "tensors of resnet18-" in _stage(tmp_path, settings)
