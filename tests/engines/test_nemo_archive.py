"""The quick way of loading a .nemo archive, against NeMo's own."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf

from parakeet_stt.engines import nemo_archive
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from scripts.make import real_shapes

State = dict[str, Any]


def everything_in(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers, also the buffers that no checkpoint holds."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def assert_same(model: Any, expected: Any) -> None:
    assert type(model) is type(expected)
    ours, theirs = everything_in(model), everything_in(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert ours[name].stride() == tensor.stride(), name
        assert ours[name].requires_grad == tensor.requires_grad, name
        assert torch.equal(ours[name], tensor), name
    assert model.training == expected.training
    assert OmegaConf.to_yaml(model.cfg) == OmegaConf.to_yaml(expected.cfg)
    assert model.tokenizer.vocab == expected.tokenizer.vocab


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """The bundled archive, its weights' bytes changed."""
    with tarfile.open(BUNDLED_FILE) as source, tarfile.open(path, "w") as target:
        for member in source.getmembers():
            content = source.extractfile(member)
            data = b"" if content is None else content.read()
            if member.name.endswith(".ckpt"):
                data = change(data)
                member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return path


def resaved(change: Callable[[State], None], **how: Any) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        state: State = torch.load(io.BytesIO(data), weights_only=True)
        change(state)
        torch.save(state, out := io.BytesIO(), **how)
        return out.getvalue()

    return changed


def nothing(state: State) -> None:
    """Leave it as it is."""


@pytest.fixture(scope="module")
def expected() -> Any:
    return ASRModel.restore_from(str(BUNDLED_FILE), map_location="cpu")


def test_every_parameter_and_buffer_is_what_nemo_restores(expected: Any) -> None:
    model = nemo_archive.restore(BUNDLED_FILE)
    assert_same(model, expected)
    persistent = model.state_dict().keys()
    assert everything_in(model).keys() > persistent  # the positional encodings, which come from the constructor
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}  # the file has them in float16


def test_the_weights_outlive_the_file(tmp_path: Path, expected: Any) -> None:
    path = tmp_path / "copy.nemo"
    shutil.copy(BUNDLED_FILE, path)
    model = nemo_archive.restore(path)
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(path) not in maps.read_text()
    path.write_bytes(b"")  # in place: pages of a mapping that was kept would be gone
    assert_same(model, expected)


def test_mapped_weights_need_the_file_until_they_are_copied(tmp_path: Path, expected: Any) -> None:
    path, maps = tmp_path / "copy.nemo", Path("/proc/self/maps")
    shutil.copy(BUNDLED_FILE, path)
    model = nemo_archive.restore(path, mapped=True)
    assert not maps.exists() or str(path) in maps.read_text()
    nemo_archive.copy_mapped(model)
    assert not maps.exists() or str(path) not in maps.read_text()
    assert_same(model, expected)


def test_the_weights_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[str] = []
    extract = tarfile.TarFile.extract

    def recorded(self: tarfile.TarFile, member: tarfile.TarInfo, *args: Any, **kwargs: Any) -> None:
        unpacked.append(member.name)
        extract(self, member, *args, **kwargs)

    monkeypatch.setattr(tarfile.TarFile, "extract", recorded)
    nemo_archive.restore(BUNDLED_FILE)
    assert "./model_config.yaml" in unpacked
    assert "./model_weights.ckpt" not in unpacked


def test_a_compressed_archive_is_restored_too(tmp_path: Path, expected: Any) -> None:
    path = tmp_path / "compressed.nemo"
    path.write_bytes(gzip.compress(BUNDLED_FILE.read_bytes(), compresslevel=1))
    assert_same(nemo_archive.restore(path), expected)


def test_an_archive_that_a_gpu_saved_with_an_older_torch_is_restored_too(tmp_path: Path, expected: Any) -> None:
    path = tmp_path / "gpu.nemo"
    real_shapes.resave(BUNDLED_FILE, path)
    with tarfile.open(path) as archive:
        weights = archive.extractfile("./model_weights.ckpt")
        assert weights is not None
        data = weights.read()
    with zipfile.ZipFile(io.BytesIO(data)) as records:
        assert not [name for name in records.namelist() if name.endswith(".format_version")]
        described = next(name for name in records.namelist() if name.endswith("data.pkl"))
        assert b"cuda:0" in records.read(described)
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(io.BytesIO(data), weights_only=True)
    state: State = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    recurrent = [tensor for name, tensor in state.items() if "lstm" in name]
    assert len({tensor.untyped_storage().data_ptr() for tensor in recurrent}) == 1
    assert_same(nemo_archive.restore(path), expected)


def test_a_checkpoint_in_torchs_oldest_format_is_restored_too(tmp_path: Path, expected: Any) -> None:
    path = rewritten(tmp_path / "old.nemo", resaved(nothing, _use_new_zipfile_serialization=False))
    assert_same(nemo_archive.restore(path), expected)


def test_strides_and_shared_storages_are_kept(tmp_path: Path) -> None:
    """A checkpoint may hold views: transposed ones, or two of one storage."""
    path = tmp_path / "views.ckpt"
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    saved = {"whole": base, "turned": base.T, "part": base[1:3, 2:5], "none": torch.empty(0, 3), "one": torch.tensor(7)}
    archive = tmp_path / "views.nemo"
    torch.save(saved, path)
    with tarfile.open(archive, "w") as tar:
        tar.add(path, "model_weights.ckpt")
    member = nemo_archive._stored_plainly(archive, "model_weights.ckpt")
    assert member
    read = nemo_archive._mapped(archive, member)
    assert read.keys() == saved.keys()
    for name, tensor in saved.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def remove_one(state: State) -> None:
    del state["joint.enc.bias"]


def add_one(state: State) -> None:
    state["joint.enc.more"] = torch.zeros(1)


@pytest.mark.parametrize(("change", "named"), [(remove_one, "joint.enc.bias"), (add_one, "joint.enc.more")])
def test_a_weight_that_is_missing_or_one_too_many_is_named(
    tmp_path: Path, change: Callable[[State], None], named: str
) -> None:
    path = rewritten(tmp_path / "other.nemo", resaved(change))
    with pytest.raises(RuntimeError, match=named):
        nemo_archive.restore(path)


@pytest.mark.parametrize("kept", [0, 3, 1000, 500_000])
def test_weights_that_were_cut_short_are_refused(tmp_path: Path, kept: int) -> None:
    path = rewritten(tmp_path / "cut.nemo", lambda data: data[:kept])
    with pytest.raises(Exception):  # noqa: B017, PT011  # whatever torch raises; the engine says it in one line
        nemo_archive.restore(path)


def initialized() -> bool:
    weight = torch.zeros(8, 8)
    torch.nn.init.kaiming_uniform_(weight)
    torch.nn.init.normal_(bias := torch.zeros(8))
    return bool(weight.any()) and bool(bias.any())


def test_only_the_network_being_restored_is_left_uninitialized(tmp_path: Path) -> None:
    with nemo_archive._LeftUnfilled():
        assert not initialized()
    nemo_archive.restore(BUNDLED_FILE)
    assert initialized()
    with pytest.raises(Exception):  # noqa: B017, PT011
        nemo_archive.restore(rewritten(tmp_path / "cut.nemo", lambda data: data[:1000]))
    assert initialized()


def test_only_the_lists_that_the_tokenizer_replaces_are_emptied() -> None:
    kept = "joint:\n  net:\n    vocabulary:\n    - a\n{}  num_classes: 2\n{}train_ds:\n  labels:\n  - a\ntarget: x.{}\n"
    full = ("  vocabulary:\n  - a\n  - '\n\n    '\n  - b\n", "labels:\n- a\n- '\n\n  '\n- b\n")
    empty = ("  vocabulary: []\n", "labels: []\n")
    ours, others = "EncDecRNNTBPEModel", "EncDecRNNTModel"
    assert nemo_archive._without_tokens(kept.format(*full, ours)) == kept.format(*empty, ours)
    assert nemo_archive._without_tokens(kept.format(*empty, ours)) == kept.format(*empty, ours)
    assert nemo_archive._without_tokens(kept.format(*full, others)) == kept.format(*full, others)
