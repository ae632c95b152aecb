"""The service, with decoders for which some files are traps."""

import sys

from parakeet_stt.media import pool as media

media.PROGRAM = (sys.executable, "-m", "tests.trapped_decoder")

from service import ParakeetSTT  # noqa: E402

# BentoML's; traps take longer, and are to be answered all the same.
ParakeetSTT.config["traffic"]["timeout"] = 1.0  # type: ignore[attr-defined]
