# Everything is bootstrapped into .venv from nothing but python3.
SHELL := /bin/bash
PYTHON := .venv/bin/python
UV := .venv/uv/bin/uv
REPLAY := .venv/classact/replay/bin/python
FOLDERS := calls launch nodes replay models selection data experiments
# Trust the system's certificates, which a proxy may need; harmless elsewhere.
export UV_SYSTEM_CERTS := 1

.PHONY: env demo demo-clip test lint format bench lock clean

env: .venv/installed

# The second step installs the project itself, editable and without its
# dependencies, which the lock file has. Bytecode is compiled at once: otherwise
# all processes of the first run would compile the same files.
# Beside it: Launchpad's files, unpacked, and the replay server's Python.
.venv/installed: requirements.lock replay/requirements.lock launch/assembly/launchpad.lock setup.py pyproject.toml .python-version
	@test -x $(UV) || { python3 -m venv .venv/uv && .venv/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9; }
	@test -x $(PYTHON) || $(UV) venv --quiet --allow-existing --python "$$(head -1 .python-version)" .venv
	$(UV) pip install --quiet --compile-bytecode --python $(PYTHON) --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --editable .
	rm -rf .venv/classact/launchpad
	$(UV) pip install --quiet --python $(PYTHON) --target .venv/classact/launchpad --no-deps --python-version 3.10 \
		--python-platform x86_64-manylinux2014 --require-hashes -r launch/assembly/launchpad.lock
	@test -x $(REPLAY) || $(UV) venv --quiet --allow-existing --python 3.11 .venv/classact/replay
	$(UV) pip install --quiet --compile-bytecode --python $(REPLAY) --require-hashes -r replay/requirements.lock
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
	$(PYTHON) -m pytest -n 2 --dist worksteal

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
	$(UV) pip compile setup.py --extra dev --universal --python-version 3.12 --generate-hashes --no-header \
		--no-annotate --no-emit-index-url --output-file requirements.lock
	echo "dm-reverb==0.14.0 tensorflow-cpu==2.15.1" | tr ' ' '\n' | $(UV) pip compile - --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --output-file replay/requirements.lock
	echo "dm-launchpad==0.5.1" | $(UV) pip compile - --no-deps --python-version 3.10 --generate-hashes --no-header \
		--no-annotate --no-emit-index-url --output-file launch/assembly/launchpad.lock

clean:
	rm -rf .venv build *.egg-info
