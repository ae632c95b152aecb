"""The service, whose device process is forked; see preloaded.py."""

import service

service.DEVICE_MODULE = "tests.preloaded"  # before BentoML has the processes started

ParakeetSTT = service.ParakeetSTT
