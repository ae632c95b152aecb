"""Loads the network of a .nemo archive in a second or two.

NeMo's own `restore_from` unpacks the archive into a temporary folder and fills every weight with random numbers before
it overwrites them: of its time at 0.6B parameters, little is the loading. Here NeMo still reads the configuration,
chooses the class and checks the names of the weights; only those two steps are left out, and copies of the list of
tokens. The weights are first where they lie in the archive, which is mapped into memory. Whoever casts, packs or
quantizes them so needs no copy of all of them as well.
"""

from __future__ import annotations

import mmap
import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from nemo.collections.asr.models import ASRModel
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from torch.overrides import TorchFunctionMode

ZIP_MAGIC = b"PK\x03\x04"


def restore(path: Path, *, mapped: bool = False) -> Any:
    """The NeMo speech model of the archive at `path`, on the CPU, with the types that its configuration gives it.

    An archive that is compressed as a whole, as NeMo wrote them before 1.7, is unpacked in NeMo's own way.

    mapped: leave the weights in the file until `copy_mapped`, which must not be written to meanwhile. Otherwise nothing
    of the file is needed any more.
    Raises whatever tar, YAML, Hydra and torch raise, also if a weight is missing or is one too many.
    """
    model = ASRModel.restore_from(str(path), map_location="cpu", save_restore_connector=_Connector())
    if not mapped:
        copy_mapped(model)
    return model


def copy_mapped(model: Any) -> None:
    """Copy all weights that the network still has, on a CPU, so that it needs no file. Shared ones remain shared."""
    copies: dict[int, torch.UntypedStorage] = {}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type != "cpu":
                continue
            storage = tensor.untyped_storage()
            place = storage.data_ptr()
            if place not in copies:
                copies[place] = storage.clone()
            tensor.set_(copies[place], tensor.storage_offset(), tensor.shape, tensor.stride())


class _Connector(SaveRestoreConnector):  # type: ignore[misc]
    """Restores one archive. What it overrides is of NeMo 3.0.0, where the base class calls it on `self`."""

    def __init__(self) -> None:
        super().__init__()
        self._archive = Path()
        self._weights: tarfile.TarInfo | None = None

    def load_config_and_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        with _LeftUnfilled():
            return super().load_config_and_state_dict(*args, **kwargs)

    def _unpack_nemo_file(
        self, path2file: str, out_folder: str, members: Sequence[tarfile.TarInfo] | None = None
    ) -> str:
        self._archive = Path(path2file)
        self._weights = _stored_plainly(self._archive, self.model_weights_ckpt)
        if self._weights and members:
            members = [member for member in members if member.offset != self._weights.offset]
        super()._unpack_nemo_file(path2file, out_folder, members)
        config = Path(out_folder, self.model_config_yaml)
        if config.is_file():
            config.write_text(_without_tokens(config.read_text("utf-8")), "utf-8")
        return out_folder

    def _load_state_dict_from_disk(self, model_weights: str, map_location: Any = "cpu") -> dict[str, Any]:
        if self._weights:
            return _mapped(self._archive, self._weights)
        state: dict[str, Any] = super()._load_state_dict_from_disk(model_weights, map_location)
        return state

    def load_instance_with_state_dict(self, instance: Any, state_dict: dict[str, Any], strict: bool) -> None:
        types = {key: tensor.dtype for key, tensor in instance.state_dict().items()}
        state = {key: tensor.to(types.get(key, tensor.dtype)) for key, tensor in state_dict.items()}
        instance.load_state_dict(state, strict=strict, assign=True)
        instance._set_model_restore_state(is_being_restored=False)
        for kept in (state_dict, state):
            kept.clear()  # OmegaConf's caught exceptions keep NeMo's frames, and with them the mapped file


class _LeftUnfilled(TorchFunctionMode):
    """While entered, and in this thread alone, torch's initializers leave new weights as the memory happens to be.

    Safe only where each of them is overwritten afterwards, which a strict `load_state_dict` makes sure of.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _without_tokens(config: str) -> str:
    """The YAML with its two lists of tokens empty where the class replaces them by the tokenizer's anyway.

    NeMo copies its configuration a dozen times, at a tenth of a millisecond a token and copy.
    """
    if not re.search(r"^target: \S+\.EncDecRNNTBPEModel$", config, re.MULTILINE):
        return config
    config = re.sub(r"^(labels:)\n(?:[- ].*\n|\n)+", r"\1 []\n", config, flags=re.MULTILINE)
    return re.sub(r"^(joint:\n(?:  .*\n)*?  vocabulary:)\n(?:  [- ].*\n|\n)+", r"\1 []\n", config, flags=re.MULTILINE)


def _stored_plainly(archive: Path, name: str) -> tarfile.TarInfo | None:
    """The member `name` if its bytes lie in the file as torch reads them: neither compressed nor in its oldest format.

    Raises FileNotFoundError if there is no such member.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                if member.isreg() and Path(member.name).name == name:
                    return member if _content(tar, member).read(len(ZIP_MAGIC)) == ZIP_MAGIC else None
    except tarfile.ReadError:
        return None
    raise FileNotFoundError(f"there is no {name} in the archive")


def _mapped(archive: Path, weights: tarfile.TarInfo) -> dict[str, Any]:
    """The state that torch saved in the member `weights`, its tensors being private pages of the mapped file.

    Whoever keeps one keeps the mapping, which outlives the file's removal but not its being overwritten in place.
    """
    with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        state: dict[str, Any] = torch.load(_content(tar, weights), map_location="meta", weights_only=True)
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return {
        key: _placed(pages, weights.offset_data, value) if isinstance(value, torch.Tensor) else value
        for key, value in state.items()
    }


def _placed(pages: mmap.mmap, start: int, described: torch.Tensor) -> torch.Tensor:
    """The tensor that `described` says everything about but the values. start: of the checkpoint in the file."""
    if not described.numel():
        return torch.empty_like(described, device="cpu")
    storage = described.untyped_storage()
    assert storage._checkpoint_offset is not None  # torch.load sets it for the meta device
    stored = torch.frombuffer(
        pages,
        dtype=described.dtype,
        count=storage.nbytes() // described.element_size(),
        offset=start + storage._checkpoint_offset,
    )
    # Not a view, which would keep the mapping through its base.
    found = torch.empty(0, dtype=described.dtype)
    return found.set_(stored.untyped_storage(), described.storage_offset(), described.size(), described.stride())


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # a regular file
    return content
