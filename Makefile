# Everything is bootstrapped into .venv from nothing but python3.
SHELL := /bin/bash
PYTHON := .venv/bin/python
UV := .venv/bin/uv
# Before .venv is there.
FIRST_UV := .venv/uv/bin/uv
FOLDERS := calls client launch nodes replay models weights selection data experiments
# The newest of these that is found is taken; 3.13 is fetched if none is.
VERSIONS := 3.14 3.13 3.12
# Trust the system's certificates, which a proxy may need; harmless elsewhere.
export UV_SYSTEM_CERTS := 1
# pyenv's shims answer only for the versions that are switched on; its folders have all.
space := $(subst ,, )
export PATH := $(PATH):$(subst $(space),:,$(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.1*/bin))
LOCK_FLAGS := --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url

.PHONY: env client-wheel older-server other-python demo demo-clip test test-short golden lint format bench lock clean

env: .venv/installed

# The project itself is installed editable, and without its dependencies, which the lock
# file has. Bytecode is compiled at once: otherwise all processes of the first run would
# compile the same files. `classact setup` makes the rest, as for a user of the wheel.
.venv/installed: requirements.lock replay/requirements.lock launch/assembly/launchpad.lock setup.py pyproject.toml
	@test -x $(FIRST_UV) || { python3 -m venv .venv/uv && sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv/lock && \
		.venv/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv/lock; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || { \
		for version in $(VERSIONS); do found=$$($(FIRST_UV) python find --quiet --system --no-python-downloads $$version) && break; done; \
		$(FIRST_UV) venv --quiet --allow-existing --python "$${found:-3.13}" .venv || \
		{ echo "make env: no Python $(VERSIONS) is on PATH, and none could be fetched: install one" >&2; exit 1; }; }
	$(FIRST_UV) pip install --quiet --compile-bytecode --python $(PYTHON) --require-hashes -r requirements.lock
	$(FIRST_UV) pip install --quiet --python $(PYTHON) --no-deps --editable .
	.venv/bin/classact setup
	@touch $@

# What a trainer needs of classact, as a wheel of its own: see setup_client.py.
CLIENT := build/client
client-wheel: env
	@rm -rf $(CLIENT) && mkdir -p $(CLIENT) && cp -r client __init__.py LICENSE pyproject.toml $(CLIENT)
	@cp setup_client.py $(CLIENT)/setup.py
	$(UV) build --wheel --quiet --out-dir dist $(CLIENT)

# Another server, for tests alone: what the client is written for must not be one version's ways.
older-server: .venv/classact/replay-0.7/installed

.venv/classact/replay-0.7/installed: tests/replay/older_server.lock | env
	$(UV) venv --quiet --clear --python 3.10 $(@D)
	$(UV) pip install --quiet --compile-bytecode --python $(@D)/bin/python --require-hashes -r $<
	@touch $@

# Trains the reference, the uniform baseline and ClassAct, then compares them.
demo: env
	@rm -rf runs/demo
	.venv/bin/classact train --config=experiments/configs/demo.py:reference --workdir=runs/demo/reference
	.venv/bin/classact train --config=experiments/configs/demo.py:uniform --workdir=runs/demo/uniform
	.venv/bin/classact train --config=experiments/configs/demo.py:classact --workdir=runs/demo/classact
	.venv/bin/classact compare runs/demo/uniform runs/demo/classact --out=runs/demo/report.html

# Trains two references, the uniform baseline and ActiveCLIP with either reference, then compares.
demo-clip: env
	@rm -rf runs/demo_clip
	export JAX_COMPILATION_CACHE_DIR=$(CURDIR)/runs/demo_clip/xla JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1; \
	set -e; for part in reference_noisy reference_clean uniform active_noisy active_clean; do \
		.venv/bin/classact train --config=experiments/configs/demo_clip.py:$$part --workdir=runs/demo_clip/$$part; done
	.venv/bin/classact compare runs/demo_clip/uniform runs/demo_clip/active_noisy runs/demo_clip/active_clean \
		--metric=eval/icons_50/zero_shot_top1 --metric=eval/retrieval/i2t_r10 --metric=eval/retrieval/t2i_r10 \
		--out=runs/demo_clip/report.html

test: env
	$(PYTHON) -m pytest -n 2 --dist worksteal --durations=30

# What another Python must pass: make test-short VERSION=3.12. It has an environment of its own;
# the replay's server and Launchpad's files are those of .venv.
OTHER = .venv/other/$(VERSION)
SHORT := tests/test_imports.py tests/test_environments.py tests/models tests/selection \
	'tests/test_program.py::test_classact_runs_and_leaves_what_the_contract_says'
other-python: env
	@test -x $(OTHER)/bin/python || $(UV) venv --quiet --clear --python "$(VERSION)" $(OTHER)

test-short: other-python
	$(UV) pip install --quiet --compile-bytecode --python $(OTHER)/bin/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(OTHER)/bin/python --no-deps --editable .
	CLASSACT_ENVIRONMENTS=$(CURDIR)/.venv/classact $(OTHER)/bin/python -m pytest -n 2 --dist worksteal $(SHORT)

# Writes tests/golden/ anew: what every shipped configuration resolves to.
golden: env
	$(PYTHON) tests/golden_configs.py

# mypy must see the repository's root under the package's name.
lint: env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	@mkdir -p .venv/types && ln -sfn "$(CURDIR)" .venv/types/classact
	cd .venv/types && ../bin/mypy --config-file classact/pyproject.toml $(FOLDERS:%=-p classact.%)
	.venv/bin/lint-imports

format: env
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: env
	$(PYTHON) benchmarks/run_all.py

# Resolves the dependencies of setup.py anew; no download address is recorded.
lock:
	$(UV) pip compile setup.py --extra dev --universal --python-version 3.12 $(LOCK_FLAGS) --output-file requirements.lock
	echo dm-reverb==0.14.0 tensorflow-cpu==2.15.1 | tr ' ' '\n' | $(UV) pip compile - --python-version 3.10 \
		--python-platform x86_64-manylinux2014 $(LOCK_FLAGS) --output-file replay/requirements.lock
	echo dm-reverb==0.7.2 tensorflow-cpu==2.8.4 'numpy<2' | tr ' ' '\n' | $(UV) pip compile - --python-version 3.10 \
		--python-platform x86_64-manylinux2014 $(LOCK_FLAGS) --output-file tests/replay/older_server.lock
	echo dm-launchpad==0.5.1 | $(UV) pip compile - --no-deps --python-version 3.10 $(LOCK_FLAGS) \
		--output-file launch/assembly/launchpad.lock

clean:
	rm -rf .venv build *.egg-info
