# The verbs. `make loop` and `make test` set everything up by themselves from a bare clone with Python 3.11 and make.
# The distribution's where there is one, with venv: it is built with optimizations, pyenv's is not unless told, and runs Python half as fast
PYTHON ?= $(or $(shell /usr/bin/python3.11 -c 'import ensurepip, sys; print(sys.executable)' 2>/dev/null),python3.11)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)
export RAY_USAGE_STATS_ENABLED = 0
export DAGSTER_DISABLE_TELEMETRY = yes
unexport PYTHONDONTWRITEBYTECODE  # hundreds of processes read the same modules

.PHONY: setup loop ui test test-cluster test-oracle test-captioning lint bench cluster-up cluster-down clean lock

setup: $(READY)

$(READY): requirements.lock deploy/images/collector.pth
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x "$(UV)" || $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	# Bytecode is compiled once here: where PYTHONDONTWRITEBYTECODE is set, each of Ray's processes would compile for itself
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	cp deploy/images/collector.pth "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	touch $@

loop: $(READY)  ## Three days of a simulated fleet through the whole loop; DATA=folder for your own recordings
	$(BIN)/python -m orchestration.cli loop $(if $(DATA),--data "$(DATA)") $(ARGS)

ui: $(READY)  ## Dagster's UI over the runs that `make loop` made
	$(BIN)/python -m orchestration.cli ui $(ARGS)

test: $(READY)  ## Every test that needs neither root nor a cluster; each module in one process
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder tests --ignore tests/cluster $(ARGS)

test-cluster: $(READY)  ## Every fault on a real Kubernetes, and the daily loop as RayJobs; as root, or KUBECONFIG=… for another cluster
	$(if $(KUBECONFIG),,$(BIN)/python -m testbed up)
	# First and by themselves those that break the cluster for all. ARGS may leave one of the two without a test, which pytest tells by 5
	$(BIN)/python -m pytest -m exclusive tests/cluster $(ARGS); first=$$?; \
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not exclusive" tests/cluster $(ARGS); most=$$?; \
	$(if $(KUBECONFIG),,$(BIN)/python -m testbed down;) case $$first$$most in 00|05|50) ;; *) exit 1 ;; esac

test-oracle: $(READY)  ## LeRobot's own reader, in an environment of its own, opens what we pack
	$(BIN)/python -m tests.oracle.run

test-captioning: $(READY)  ## vLLM, in an environment of its own, captions clips inside Ray Data with a tiny random model
	$(BIN)/python -m tests.captioning.run

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(READY)  ## BENCH=name for one of them
	$(BIN)/python -m benchmarks $(BENCH)

cluster-up: $(READY)  ## A real Kubernetes on this machine, as root: docs/testbed.md. The first time it compiles for ten minutes
	$(BIN)/python -m testbed up

cluster-down: $(READY)  ## Remove the cluster; what was compiled stays
	$(BIN)/python -m testbed down

clean:  ## Remove what the loop made; the environment stays
	$(BIN)/python -m orchestration.cli clean

lock:  ## Resolve requirements.lock again: hashes, and no registry's name
	$(UV) pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet --python-version 3.11 pyproject.toml --group dev -o requirements.lock
