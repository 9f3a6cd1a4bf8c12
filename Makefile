# The words people type. `make test` and `make demo` set up everything they need in .venv.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
DEMO_METRICS := top_k_accuracy,mean_class_accuracy,time_order_accuracy
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install test fast lint format prove numbers demo gpu cuda-report clean

install: $(INSTALLED)

# torch comes first and the package is built against it, so that it is downloaded once and the op fits it.
$(INSTALLED): setup.py pyproject.toml $(wildcard csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "could not make a virtual environment: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet "setuptools>=77" wheel "torch>=2.11" "torchvision>=0.26" "numpy>=2.0"
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[test]"
	@touch $@

test: lint
	$(BIN)/python -m pytest

fast: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The long proofs: everything marked `prove`, whose short versions run in `make test`.
prove: $(INSTALLED)
	$(BIN)/python -m pytest -m prove --timeout=3600 -rP

# The measured numbers in README.md and docs/, from benchmarks/results.
numbers: $(INSTALLED)
	$(BIN)/python -m benchmarks.page_numbers

# The main job on bundled input: real encoded video, TIN against a network without time, a result file, a bench table.
demo: $(INSTALLED)
	rm -rf $(DEMO)/tin $(DEMO)/tsn $(DEMO)/*.json
	$(BIN)/tin-cli data motion $(DEMO)/motion
	$(BIN)/tin-cli train --dataset motion --data $(DEMO)/motion --work-dir $(DEMO)/tin
	$(BIN)/tin-cli test --checkpoint $(DEMO)/tin/best.pt --data $(DEMO)/motion --out $(DEMO)/tin.json --eval $(DEMO_METRICS)
	$(BIN)/tin-cli train --dataset motion --data $(DEMO)/motion --work-dir $(DEMO)/tsn --arch tsn_resnet18
	$(BIN)/tin-cli test --checkpoint $(DEMO)/tsn/best.pt --data $(DEMO)/motion --out $(DEMO)/tsn.json --eval $(DEMO_METRICS)
	$(BIN)/tin-cli bench --quick --data $(DEMO)/motion --out $(DEMO)/bench.json
	$(BIN)/tin-cli bench train --dataset motion --data $(DEMO)/motion --runs 3 --out $(DEMO)/bench_train.json
	$(BIN)/python benchmarks/demo_summary.py $(DEMO)
	@echo "results: $(DEMO)/tin.json, $(DEMO)/tsn.json, $(DEMO)/bench.json, $(DEMO)/bench_train.json"
	@echo "curves:  $(BIN)/tensorboard --logdir $(DEMO)"

# On a machine with a CUDA GPU, with a Python that has torch, torchvision, numpy, pydantic and pytest; with DALI and PyAV the
# loader's GPU tests run too. OUT receives the logs and the JSON. The op is compiled where nvcc is, else the carried one in tin/lib
# is used. Everything runs even when something fails; what failed is named and makes the exit status.
GPU_PYTHON ?= python3
OUT ?= out
gpu:
	@mkdir -p $(OUT)
	@$(GPU_PYTHON) -c 'import sys, torch; sys.exit("make gpu needs a CUDA GPU that PyTorch sees") if not torch.cuda.is_available() else print(torch.cuda.get_device_name())'
	@test -f tin/lib/libtin_cuda.so || TIN_CUDA=1 $(GPU_PYTHON) setup.py --quiet build_ext --inplace
	@failed=; tests=tests/gpu; \
	$(GPU_PYTHON) -c 'import av, nvidia.dali' 2> /dev/null && tests="$$tests tests/pipelines/test_loader_gpu.py" || \
	    echo "loader tests left out: no DALI or PyAV here"; \
	timeout 150 $(GPU_PYTHON) -m pytest $$tests -m gpu --junitxml=$(OUT)/gpu-tests.xml > $(OUT)/gpu-tests.log 2>&1 || failed="$$failed tests"; \
	tail -n 25 $(OUT)/gpu-tests.log; \
	if command -v compute-sanitizer > /dev/null; then \
	    timeout 60 compute-sanitizer --error-exitcode 1 $(GPU_PYTHON) -m pytest tests/gpu/test_ops_cuda.py \
	        tests/gpu/test_residual_cuda.py -m gpu -k "same_bits or nan_offset or (joins and 10) or (splits and tin-8)" > $(OUT)/sanitizer.log 2>&1 || failed="$$failed sanitizer"; \
	    tail -n 3 $(OUT)/sanitizer.log; \
	else echo "sanitizer left out: no compute-sanitizer here"; fi; \
	timeout 330 $(GPU_PYTHON) -m benchmarks.gpu --quick --out $(OUT) > $(OUT)/benchmarks.log 2>&1 || failed="$$failed benchmarks"; \
	cat $(OUT)/benchmarks.log; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

# Registers and spills of the CUDA kernels on every architecture; needs nvcc, no GPU.
cuda-report:
	$(PYTHON) benchmarks/cuda_report.py

clean:
	rm -rf $(DEMO) build dist *.egg-info
