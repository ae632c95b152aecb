"""The service, with media workers for which some files are traps."""

import service
from parakeet_stt.media import pool
from tests.services import preloaded_service

service.MEDIA_MODULE = "tests.services.trapped_decoder"  # before BentoML has the processes started
pool.HELD_SECONDS = 0.2  # as much shorter as a worker's limits are in `trapped_decoder`

ParakeetSTT = preloaded_service.ParakeetSTT
# BentoML's; traps take longer, and are to be answered all the same.
ParakeetSTT.config["traffic"]["timeout"] = 1.0  # type: ignore[attr-defined]
