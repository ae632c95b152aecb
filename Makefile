# What a person types. Each target makes .venv from the locks when it is missing or stale.
.DELETE_ON_ERROR:
.PHONY: serve test lint check format bench accuracy examples wheel bento env-example docs lock clean

PORT ?= 3000
HOST ?= 127.0.0.1
PYTHON ?= $(shell for name in python3.11 python3.12 python3 python; do \
	$$name -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info[:3] < (3, 13))' 2>/dev/null && echo $$name && break; done)
UV = .venv/bin/uv pip install --python .venv/bin/python --require-hashes
# Without packages' tests and transformers' networks, a quarter of all. It fails on files that are templates.
BYTECODE = .venv/bin/python -m compileall -qq -j 0 -x '/tests?/|/transformers/models/.*/modeling_' .venv/lib || true
COMPILE = .venv/bin/uv pip compile -q --no-header --universal --python-version 3.11.4 --generate-hashes pyproject.toml
SERVED = --extra engine --extra serve --extra microphone --extra measure
RUN = .venv/bin/python

serve: .venv/served ## serve on http://127.0.0.1:3000 (PORT=, HOST=)
	BENTOML_DO_NOT_TRACK=True .venv/bin/bentoml serve service:ParakeetSTT --host $(HOST) --port $(PORT)

test: .venv/developed ## all tests, two at a time; then those that measure time, alone
	$(RUN) -m pytest -q -n 2 --dist loadfile -m "not alone"
	$(RUN) -m pytest -q -m alone $$(grep -rl "mark\.alone" tests)

lint: .venv/developed ## lint, format, types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(RUN) -m mypy

check: lint test ## what CI runs

format: .venv/developed ## format, and correct what lint can correct
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/developed ## what the engine and a served model reach here
	$(RUN) -m scripts.bench.engine --short
	$(RUN) -m scripts.bench.server --seconds 6

accuracy: .venv/developed ## word error rate and word times; needs `apt-get install espeak-ng flite`
	$(RUN) -m scripts.bench.accuracy

examples: .venv/developed ## run each example against the service that `make serve` has started (PORT=, HOST=)
	for example in files stream live keywords; do $(RUN) examples/$$example.py --url http://$(HOST):$(PORT) || exit; done

wheel: .venv/developed ## build dist/parakeet_stt-*.whl; needs no network
	$(RUN) -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

bento: .venv/served ## build parakeet_stt:latest into the BentoML store (MODEL=, DIARIZER=, of the store, to be baked in)
	$(RUN) -m scripts.make.build_bento $(if $(MODEL),--model $(MODEL)) $(if $(DIARIZER),--diarizer $(DIARIZER))

env-example: .venv/served ## .env.example, from the settings in the code
	$(RUN) -c 'from parakeet_stt.server.settings import env_example; print(env_example(), end="")' > .env.example

docs: .venv/served ## the parts of docs/operations.md that are made from the code
	$(RUN) -m scripts.make.make_docs

lock: .venv/made ## make the locks again, after a change of pyproject.toml; needs the package index
	$(COMPILE) $(SERVED) -o requirements.lock
	@mkdir -p build
	cat requirements*.lock > build/bulk.lock # uv keeps the versions of the file that it writes
	cp build/bulk.lock build/all.lock
	$(COMPILE) --all-extras -c requirements.lock -o build/bulk.lock
	$(COMPILE) --all-extras --group dev -c requirements.lock -c build/bulk.lock -o build/all.lock
	$(RUN) -m scripts.make.lock_stamp --write build/bulk.lock build/all.lock

clean: ## remove everything that was made
	rm -rf .venv build dist

.venv/made: requirements-uv.lock
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info[:3] < (3, 13))' || \
		{ echo "Python 3.11.4 or later, or 3.12, is needed: none is on the PATH, or PYTHON= names another." >&2; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version) ..."
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements-uv.lock
	@touch $@

.venv/served: requirements.lock .venv/made
	@echo "Installing the service (about 6 GB unpacked, most of it torch) ..."
	@$(UV) -r requirements.lock
	@$(BYTECODE)
	@touch $@

.venv/developed: requirements.lock requirements-bulk.lock requirements-dev.lock .venv/made
	@echo "Installing the service and the development tools (about 6 GB unpacked, most of it torch) ..."
	@$(UV) -r requirements.lock -r requirements-bulk.lock -r requirements-dev.lock
	@$(BYTECODE)
	@touch $@ .venv/served
