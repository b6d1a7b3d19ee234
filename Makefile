# Everything that people and CI do. `make` lists it. Nothing but Python 3.11+, make and (for test servers) apt is needed.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Debian's servers (haproxy, nginx) are in a folder that is not on everybody's PATH.
export PATH := $(PATH):/usr/sbin
BIN := .venv/bin
NODE := tests/node
# the folders of tests that need no store
COVERED := catalog contracts documents operations policies query responses series server sync
LOCK = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --no-strip-extras -q pyproject.toml

.PHONY: help demo test test-windows test-size coverage check bench truth quiet-days chaos dashboards docs format lock clean servers

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: .venv/demo.stamp ## run the bridge with embedded stores and a simulated trade feed (DEMO_ARGS="--scale 500")
	$(BIN)/python -m app demo $(DEMO_ARGS)

test: .venv/test.stamp servers $(NODE)/node_modules/.stamp .wine/tree.stamp ## run every test on real servers (TEST_ARGS="-k name")
	$(BIN)/python -m pytest $(TEST_ARGS)

test-windows: .venv/test.stamp .wine/tree.stamp servers ## run the Windows services on a real Windows Python under wine (in `make test` too)
	$(BIN)/python -m pytest tests/winsvc -m wine $(TEST_ARGS)

test-size: .venv/test.stamp servers ## every panel at a thousand accounts over a day: some minutes, for the night (TEST_ARGS="-k equity")
	$(BIN)/python -m pytest -m size tests/size $(TEST_ARGS)
	ROLLUP_CASES=2000 $(BIN)/python -m pytest tests/rollups -k answers_as $(TEST_ARGS)

coverage: .venv/test.stamp servers $(NODE)/node_modules/.stamp ## branch coverage by the tests that need no store; it fails below the figure in pyproject.toml
	$(BIN)/python -m pytest --cov --cov-report=term $(addprefix tests/,$(COVERED)) $(TEST_ARGS)

check: .venv/test.stamp ## format, lint, types, layers, spelling, configuration and catalogue, generated pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell app dashboards demo docs manual winsvc provisioning scripts README.md CHANGELOG.md .github
	$(BIN)/python -m app check --config provisioning/bridge.yaml
	$(BIN)/python -m manual --check

bench: .venv/test.stamp servers ## the ratios, as a table (BENCH_ARGS="--rounds 15")
	@scripts/servers.sh nginx wrk
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

truth: .venv/test.stamp servers ## 10,000 generated questions; 100,000 answers while others leave (TRUTH_ARGS="--seed 12")
	$(BIN)/python -m tests.truth $(TRUTH_ARGS)
	$(BIN)/python -m tests.truth.leaving $(LEAVING_ARGS)

quiet-days: .venv/test.stamp servers ## twenty simulated days on which no alert rule may say anything (QUIET_ARGS="--seeds 3 --hours 8")
	$(BIN)/python -m tests.provisioning.quiet_day $(QUIET_ARGS)

chaos: .venv/test.stamp servers ## break every store by script under load, check every promise (CHAOS_ARGS="--speed 1 --outage 60")
	$(BIN)/python -m tests.chaos.lab $(CHAOS_ARGS)

dashboards: .venv/test.stamp ## write the Grafana dashboards and alert rules anew, from dashboards/ and the catalogue
	$(BIN)/python -m dashboards

docs: .venv/test.stamp ## write the generated pages of docs/ anew: metrics from the catalogue, settings from the code
	$(BIN)/python -m manual

format: .venv/test.stamp ## format the code and sort its imports
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: .venv/test.stamp ## lock the dependencies anew, with hashes
	@scripts/progress.sh "installing uv" $(BIN)/pip install --disable-pip-version-check --progress-bar off uv
	$(LOCK) -o requirements/run.lock
	$(LOCK) --extra demo -o requirements/demo.lock
	$(LOCK) --extra test -o requirements/test.lock
	$(LOCK:--universal=--python-platform x86_64-pc-windows-msvc) --extra winsvc -c requirements/run.lock -o requirements/windows.lock

clean: ## remove everything that was made here, and nothing else
	@[ ! -e .venv/bin/python ] || [ -f .venv/python.stamp ] || { echo ".venv: make has not made it, so it stays; nothing was removed"; exit 1; }
	rm -rf .venv .wine $(NODE)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@if [ -f demo-data/.bridge-demo ]; then cd demo-data && rm -rf redis clickhouse duckdb prometheus .bridge-demo; fi
	@[ ! -d demo-data ] || rmdir demo-data 2>/dev/null || echo "demo-data: what no demo has made in it stays"

servers: ## install the test servers that are missing (redis, prometheus, node)
	@scripts/servers.sh

.venv/python.stamp: scripts/venv.sh
	scripts/venv.sh
	touch $@

.venv/demo.stamp: .venv/python.stamp requirements/demo.lock
	@scripts/install.sh requirements/demo.lock "about 250 MB to download, one to three minutes, once"
	touch $@

.venv/test.stamp: .venv/python.stamp requirements/test.lock
	@scripts/install.sh requirements/test.lock "about 350 MB to download, two to five minutes, once"
	touch $@ .venv/demo.stamp

# A Windows Python and the bridge's wheels for Windows, for wine.
.wine/tree.stamp: .venv/test.stamp requirements/windows.lock $(wildcard tests/winsvc/wine/*.c tests/winsvc/wine/*.lock) tests/winsvc/wine/tree.py | servers
	@scripts/progress.sh "making a Windows Python for wine: one to three minutes, once" $(BIN)/python -m tests.winsvc.wine.tree

$(NODE)/node_modules/.stamp: $(NODE)/package-lock.json | servers
	@cd $(NODE) && ../../scripts/progress.sh "installing Grafana's own packages for node: about a minute, once" npm ci --no-audit --no-fund
	touch $@
