"""The folder that the processes of one service share, and what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parakeet_stt.errors import StartupError

RUN_FOLDER = "PARAKEET_STT_RUN_FOLDER"  # in the environment of a service's processes: the folder, set by their parent
LONGEST_SOCKET_PATH = 100  # bytes; Linux has room for 107


@dataclass(frozen=True, slots=True)
class Paths:
    """Where processes find each other. Only the service's own user may open the folder."""

    folder: Path

    @property
    def media(self) -> Path:
        """The socket of the media program."""
        return self.folder / "media.sock"

    @property
    def metrics(self) -> Path:
        """The folder of the metrics."""
        return self.folder / "metrics"

    @property
    def filters(self) -> Path:
        """The folder of the resampling filters."""
        return self.folder / "filters"

    @property
    def source(self) -> Path:
        """The file that says where the model is; see `catalogue.write_source`."""
        return self.folder / "model.json"

    @property
    def diarizer(self) -> Path:
        """The file that says where the diarizer is, if there is one; see `catalogue.write_source`."""
        return self.folder / "diarizer.json"

    @property
    def failure(self) -> Path:
        """The file that says why the service can't run."""
        return self.folder / "failure"

    def device(self, number: int) -> Path:
        """The socket of a device process, numbered from 0."""
        return self.folder / f"device-{number}.sock"

    def ledger(self, number: int) -> Path:
        """The ledger of a device."""
        return self.folder / f"ledger-{number}"

    def create(self) -> None:
        """Make the folders. Raises StartupError if no socket can be made there."""
        if len(str(self.device(99)).encode()) > LONGEST_SOCKET_PATH:
            raise StartupError(f"the temporary folder {self.folder.parent} has too long a name: set TMPDIR=/tmp")
        for folder in (self.metrics, self.filters):
            folder.mkdir()
