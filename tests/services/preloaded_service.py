"""The service, whose device process is forked; see preloaded.py."""

import service

service.DEVICE_MODULE = "tests.services.preloaded"  # before BentoML has the processes started

ParakeetSTT = service.ParakeetSTT
