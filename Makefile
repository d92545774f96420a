# Everything that can be done with ringgpt: `make help` lists it.
#
#   DEBUG=1                        no optimisation, debug information
#   SANITIZE=address,undefined     with sanitizers (libgomp stays as it is)
#   DNNL=0                         without oneDNN: products by the reference operation
#   MPI=0                          without MPI; else it is used where pkg-config finds one
#   CUDA=0                         without the CUDA device; 1: with it, or not at all (default: where nvcc is)
#   CUDA_HOME=DIR                  the CUDA toolkit (default: that of the nvcc in PATH, or /usr/local/cuda)
#   CUDA_ARCH="sm_80 sm_90a"       the GPUs to build for (default sm_80 sm_90a sm_100, and PTX for newer ones)
#   OPENMP=0                       without OpenMP and oneDNN: one thread a rank
#   V=1                            shows every command
#   BUILD=DIR                      where everything that is built goes (default build/)
#   CPPFLAGS, CFLAGS, LDFLAGS, LDLIBS   added to the project's own

.DEFAULT_GOAL := all
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
ifeq ($(origin CC),default)
CC := gcc
endif
BUILD ?= build
DNNL ?= auto
MPI ?= auto
CUDA ?= auto
OPENMP ?= 1

Q := $(if $(V),,@)

variant := release
ifdef DEBUG
variant := debug
endif
ifdef SANITIZE
comma := ,
variant := $(variant)-$(subst $(comma),-,$(SANITIZE))
endif

# ---------------------------------------------------------------- what is there

ifeq ($(OPENMP),0)
DNNL := 0
endif
DNNL_HEADER := oneapi/dnnl/dnnl.h
ifeq ($(DNNL),auto)
HAVE_DNNL := $(shell $(CC) $(CPPFLAGS) $(CFLAGS) -E -include $(DNNL_HEADER) -x c /dev/null >/dev/null 2>&1 && \
               echo 1 || echo 0)
else
HAVE_DNNL := $(DNNL)
endif
ifeq ($(HAVE_DNNL),0)
variant := $(variant)-nodnnl
endif
# The MPI that pkg-config knows: Open MPI, MPICH, or what Debian's alternatives call "mpi".
ifneq ($(MPI),0)
MPI_PACKAGE := $(firstword $(foreach name,ompi-c mpi-c mpich ompi mpi,$(shell pkg-config --exists $(name) 2>/dev/null && echo $(name))))
endif
HAVE_MPI := $(if $(MPI_PACKAGE),1,0)
ifeq ($(HAVE_MPI),1)
# Its headers are not held to the project's warnings.
MPI_CFLAGS := $(patsubst -I%,-isystem %,$(shell pkg-config --cflags $(MPI_PACKAGE)))
MPI_LIBS   := $(shell pkg-config --libs $(MPI_PACKAGE))
else
variant := $(variant)-nompi
endif
ifeq ($(OPENMP),0)
variant := $(variant)-noopenmp
endif
OUT := $(BUILD)/$(variant)

# nvcc: of CUDA_HOME, in PATH, in the usual place, or what deps-cuda installed.
ifneq ($(CUDA),0)
NVCC := $(firstword $(wildcard $(if $(CUDA_HOME),$(CUDA_HOME)/bin/nvcc,$(shell command -v nvcc) /usr/local/cuda/bin/nvcc \
                               $(BUILD)/toolkit/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)))
endif
ifneq ($(NVCC),)
CUDA_HOME ?= $(abspath $(dir $(realpath $(NVCC)))..)
NCCL := $(firstword $(wildcard $(addprefix $(CUDA_HOME)/,lib64/libnccl.so lib/libnccl.so ../nccl/lib/libnccl.so.2) \
                               /usr/lib/$(shell uname -m)-linux-gnu/libnccl.so /usr/local/lib/libnccl.so))
CUBLASLT := $(firstword $(wildcard $(addprefix $(CUDA_HOME)/,lib64/libcublasLt.so lib/libcublasLt.so lib/libcublasLt.so.13)))
endif

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
            -Wcast-qual -Wwrite-strings -Wvla -Wundef -Wformat=2 -Werror
OPENMP_FLAGS := $(if $(filter 0,$(OPENMP)),-Wno-unknown-pragmas -Wno-unused-variable -Wno-unused-parameter,-fopenmp)
# The project's own flags; what the user gives comes after them.
OWN_CPPFLAGS := -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DRINGGPT_DNNL=$(HAVE_DNNL) \
                -DRINGGPT_MPI=$(HAVE_MPI)
# -ffp-contract=off: the same expression gives the same bits in every file and instruction set.
OWN_CFLAGS   := -std=c11 $(OPENMP_FLAGS) -ffp-contract=off -fno-math-errno $(WARNINGS) $(if $(DEBUG),-O0 -g3,-O3 -g)
OWN_LDFLAGS  := $(OPENMP_FLAGS)
ifdef SANITIZE
SANITIZE_FLAGS := -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
OWN_CFLAGS   += $(SANITIZE_FLAGS)
OWN_LDFLAGS  += -fsanitize=$(SANITIZE)
endif
LIBS := -lyaml -ljansson -lpcre2-8 -lz -lm -lpthread -ldl $(if $(filter 0,$(HAVE_DNNL)),,-ldnnl) $(MPI_LIBS)

# Files for one instruction set carry it in their name; kernels/device.c enters them only where the CPU has it.
ifneq ($(filter x86_64 amd64,$(shell uname -m)),)
%_avx512.o: private FILE_CFLAGS := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512
%_avx512bf16.o: private FILE_CFLAGS := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx512bf16 -mfma -mprefer-vector-width=512
%_avx2.o: private FILE_CFLAGS := -mavx2 -mfma
endif

$(OUT)/kernels/comm/mpi.o $(OUT)/kernels/comm/mpi_%.o: private FILE_CFLAGS := $(MPI_CFLAGS)

COMPILE = $(CC) $(OWN_CPPFLAGS) $(CPPFLAGS) $(OWN_CFLAGS) $(FILE_CFLAGS) $(CFLAGS) -MMD -MP -c
LINK = $(CC) $(OWN_CFLAGS) $(CFLAGS) $(OWN_LDFLAGS) $(LDFLAGS)

# Jobs of a make inside, unless this make shares out its own.
JOBS = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

# ---------------------------------------------------------------- the program

MODULES := kernels/base kernels/comm kernels/cpu kernels/cuda kernels model data checkpoints train
SOURCES := $(filter-out train/main.c,$(wildcard $(addsuffix /*.c,$(MODULES))))
OBJECTS := $(SOURCES:%.c=$(OUT)/%.o)
LIBRARY := $(OUT)/libringgpt.a
PROGRAM := $(OUT)/ringgpt

ifeq ($(CUDA)$(NVCC),1)
$(PROGRAM): no-toolkit
.PHONY: no-toolkit
no-toolkit:
	@echo "CUDA=1, but there is no nvcc: install the CUDA toolkit, by make deps-cuda or otherwise, or say where it" \
	  "is by CUDA_HOME=DIR"; exit 1
endif

.PHONY: all help
all: $(PROGRAM) $(if $(NVCC),$(OUT)/ringgpt-cuda.so $(if $(NCCL),$(OUT)/ringgpt-nccl.so)) ## builds the program: build/release/ringgpt

$(PROGRAM): $(OUT)/train/main.o $(LIBRARY)
	@echo "  link     $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS) $(LDLIBS)

$(LIBRARY): $(OBJECTS) $(OUT)/objects.txt
	@rm -f $@
	@echo "  archive  $@"
	$(Q)ar rcs $@ $(OBJECTS)

# What was built with other flags, or from other files, is built again.
$(OUT)/flags.txt: TEXT = $(COMPILE) $(LINK) $(LIBS) $(LDLIBS)
$(OUT)/objects.txt: TEXT = $(OBJECTS)
.PHONY: always
always:
$(OUT)/flags.txt $(OUT)/objects.txt $(OUT)/cuda/flags.txt $(OUT)/emulated/flags.txt $(OUT)/races/flags.txt: always
	@mkdir -p $(dir $@)
	@text='$(subst ','\'',$(TEXT))'; if [ "$$(cat $@ 2>/dev/null)" != "$$text" ]; then echo "$$text" >$@; fi

$(OUT)/%.o: %.c $(OUT)/flags.txt
	@mkdir -p $(dir $@)
	@echo "  compile  $<"
	$(Q)$(COMPILE) -o $@ $<

# ---------------------------------------------------------------- the CUDA device

# A shared object beside the program, which loads it: what it shares with the program is built into it.
# NCCL is an object of its own, so that the device does without.
NCCL_SOURCES := $(wildcard kernels/cuda/nccl_*.cu)
CUDA_SOURCES := $(filter-out $(NCCL_SOURCES),$(wildcard kernels/cuda/*.cu))
CUDA_SHARED  := kernels/base/cgroup.c kernels/base/memory.c kernels/base/status.c kernels/device.c
NCCL_SHARED  := $(CUDA_SHARED) kernels/base/clock.c kernels/comm/comm.c kernels/comm/combine.c
CUDA_ARCH    ?= sm_80 sm_90a sm_100 compute_100
CUDA_TARGETS := $(foreach arch,$(CUDA_ARCH),-gencode arch=compute_$(lastword $(subst _, ,$(arch))),code=$(arch))
NVCC_FLAGS   := -std=c++17 -O3 -lineinfo $(CUDA_TARGETS) -Werror all-warnings \
                -Xcompiler -Wall,-Wextra,-Wno-unused-parameter,-fPIC,-fvisibility=hidden
COMPILE_CUDA = $(NVCC) -I. $(addprefix -I,$(wildcard $(CUDA_HOME)/../nccl/include)) -ccbin $(CXX) $(NVCC_FLAGS) $(CPPFLAGS) $(NVCCFLAGS)
LINK_CUDA    = $(NVCC) -shared $(CUDA_TARGETS) -ccbin $(CXX) -Xlinker --exclude-libs,ALL \
                -Xlinker -rpath,$(patsubst %/,%,$(dir $(CUBLASLT)))

$(OUT)/cuda/flags.txt: TEXT = $(COMPILE_CUDA) $(LINK_CUDA)

$(OUT)/cuda/%.o: %.cu $(OUT)/cuda/flags.txt
	@mkdir -p $(dir $@)
	@echo "  nvcc     $<"
	$(Q)$(COMPILE_CUDA) -MMD -MP -c -o $@ $<

$(OUT)/pic/%.o: %.c $(OUT)/flags.txt
	@mkdir -p $(dir $@)
	@echo "  compile  $< for shared objects"
	$(Q)$(COMPILE) -fPIC -fvisibility=hidden -o $@ $<

$(OUT)/ringgpt-cuda.so: $(CUDA_SOURCES:%.cu=$(OUT)/cuda/%.o) $(CUDA_SHARED:%.c=$(OUT)/pic/%.o)
	@echo "  link     $@"
	$(Q)$(LINK_CUDA) -o $@ $^ $(CUBLASLT)

$(OUT)/ringgpt-nccl.so: $(NCCL_SOURCES:%.cu=$(OUT)/cuda/%.o) $(NCCL_SHARED:%.c=$(OUT)/pic/%.o)
	@echo "  link     $@"
	$(Q)$(LINK_CUDA) -o $@ $^ -Xlinker -rpath,$(patsubst %/,%,$(dir $(NCCL))) $(NCCL)

# The same sources under the emulator of tests/emulator, by the host's compiler: a device for tests.
EMULATOR := $(filter-out tests/emulator/self_test%,$(wildcard tests/emulator/*.cpp tests/emulator/*.S))
EMULATED := $(OUT)/emulated/ringgpt-cuda.so
FAKE_NCCL := $(wildcard tests/nccl/*.cpp)
COMPILE_EMULATED = $(CXX) -std=c++17 -O2 -g -fPIC -fvisibility=hidden -DRINGGPT_EMULATED -fno-strict-aliasing \
                   -ffp-contract=off -Wall -Wextra -Werror -Wno-unknown-pragmas -I. -Itests/emulator/include \
                   -Itests/emulator -Itests/nccl/include $(SANITIZE_FLAGS) $(CPPFLAGS) -MMD -MP -c

$(OUT)/emulated/flags.txt: TEXT = $(COMPILE_EMULATED)

$(OUT)/emulated/%.o: %.cu $(OUT)/emulated/flags.txt
	@mkdir -p $(dir $@)
	@echo "  emulate  $<"
	$(Q)$(COMPILE_EMULATED) -o $@ -x c++ $<

$(OUT)/emulated/%.o: %.cpp $(OUT)/emulated/flags.txt
	@mkdir -p $(dir $@)
	@echo "  emulate  $<"
	$(Q)$(COMPILE_EMULATED) -o $@ $<

$(OUT)/emulated/%.o: %.S $(OUT)/emulated/flags.txt
	@mkdir -p $(dir $@)
	@echo "  emulate  $<"
	$(Q)$(CXX) -c -o $@ $<

EMULATED_OBJECTS := $(patsubst %,$(OUT)/emulated/%.o,$(basename $(CUDA_SOURCES) $(NCCL_SOURCES) $(FAKE_NCCL) $(EMULATOR)))

# What the emulator itself is tested by: its own cases, and those that a GPU runs too.
EMULATED_INSTRUCTIONS := $(OUT)/emulated/gpu/instructions
EMULATOR_TESTS := $(OUT)/tests/emulator_self_test $(EMULATED_INSTRUCTIONS)
SELF_TEST := $(filter-out %/cublaslt.o,$(patsubst %,$(OUT)/emulated/%.o,$(basename $(wildcard tests/emulator/*.cpp tests/emulator/*.S))))

$(OUT)/tests/emulator_self_test: $(SELF_TEST)
	@mkdir -p $(dir $@)
	@echo "  link     $@"
	$(Q)$(CXX) $(SANITIZE_FLAGS) $(LDFLAGS) -o $@ $^ -lcmocka -lpthread -ldl $(LDLIBS)

# Holds the fake NCCL of tests/nccl too: it works on the same streams.
$(EMULATED): $(EMULATED_OBJECTS) $(NCCL_SHARED:%.c=$(OUT)/pic/%.o)
	@echo "  link     $@"
	$(Q)$(CXX) -shared $(if $(SANITIZE),,-Wl,-z,defs) $(SANITIZE_FLAGS) -o $@ $^ -lpthread -ldl

# The same with the emulator's check for races in shared memory: kernels call it before each access, in place of the
# sanitizer, whose library is not linked. Not under another sanitizer.
RACES := $(OUT)/races/ringgpt-cuda.so
RACES_OBJECTS := $(CUDA_SOURCES:%.cu=$(OUT)/races/%.o)

$(OUT)/races/flags.txt: TEXT = $(COMPILE_EMULATED) -fsanitize=thread

$(OUT)/races/%.o: %.cu $(OUT)/races/flags.txt
	@mkdir -p $(dir $@)
	@echo "  emulate  $< with a check for races"
	$(Q)$(COMPILE_EMULATED) -fsanitize=thread -o $@ -x c++ $<

$(RACES): $(RACES_OBJECTS) $(filter-out $(CUDA_SOURCES:%.cu=$(OUT)/emulated/%.o),$(EMULATED_OBJECTS)) $(NCCL_SHARED:%.c=$(OUT)/pic/%.o)
	@echo "  link     $@"
	$(Q)$(CXX) -shared -Wl,-z,defs -o $@ $^ -lpthread -ldl

help: ## lists what can be made, and the settings
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo; sed -n 's/^#   \([A-Z]\)/  \1/p' $(firstword $(MAKEFILE_LIST))

# ---------------------------------------------------------------- packages

BUILD_PACKAGES := libyaml-dev libjansson-dev libpcre2-dev zlib1g-dev $(if $(filter 0,$(DNNL)),,libdnnl-dev)
MPI_PACKAGES   := libopenmpi-dev openmpi-bin pkgconf
CHECK_PACKAGES := g++ libcmocka-dev patch $(MPI_PACKAGES)
PEERS_PACKAGES := python3-venv
HOSTS_PACKAGES := $(MPI_PACKAGES) iproute2 util-linux
LINT_PACKAGES  := clang-format clang-tidy libomp-dev cppcheck

# Installs what is missing of the packages $(1), as root or by sudo; otherwise names them and stops.
define install
@missing=; for package in $(1); do \
  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
done; \
if [ -z "$$missing" ]; then exit 0; fi; \
if [ "$$(id -u)" = 0 ]; then as=; elif sudo -n true 2>/dev/null; then as=sudo; else \
  echo "missing packages:$$missing"; \
  echo "install them as root (apt-get install$$missing) and call make again"; exit 1; \
fi; \
echo "installing$$missing"; \
$$as apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends $$missing
endef

# NVIDIA's own packages of PyPI: Debian has an older toolkit, outside of its main section.
TOOLKIT := $(foreach part,nvcc crt runtime cccl,nvidia-cuda-$(part)==13.0.*) nvidia-nvvm==13.0.* nvidia-cublas==13.0.* \
           nvidia-curand nvidia-nccl-cu13

.PHONY: deps-cuda
deps-cuda: ## installs a CUDA toolkit into build/toolkit where there is no nvcc (1.3 GB)
ifeq ($(NVCC),)
	$(call install,g++ python3-venv)
	python3 -m venv $(BUILD)/toolkit
	$(BUILD)/toolkit/bin/pip install --quiet --no-deps $(TOOLKIT)
else
	@echo "there is $(NVCC)"
endif

.PHONY: deps deps-mpi deps-check deps-lint deps-peers deps-hosts
deps: ## installs what the build needs
	$(call install,$(BUILD_PACKAGES))

deps-mpi: ## installs an MPI, for runs of many processes
	$(call install,$(BUILD_PACKAGES) $(MPI_PACKAGES))

deps-check:
	$(call install,$(BUILD_PACKAGES) $(CHECK_PACKAGES))

deps-peers:
	$(call install,$(BUILD_PACKAGES) $(PEERS_PACKAGES))

deps-hosts:
	$(call install,$(BUILD_PACKAGES) $(HOSTS_PACKAGES))

deps-lint:
	$(call install,$(BUILD_PACKAGES) $(CHECK_PACKAGES) $(LINT_PACKAGES))

# ---------------------------------------------------------------- the main job on real input

# What is installed by deps is found by a make of its own.
.PHONY: demo run-demo
demo: deps ## does the main job on this machine's C headers: prepare, train, stop, resume, evaluate
	@$(MAKE) $(JOBS) run-demo

run-demo: all
	@tests/demo.sh $(PROGRAM)

# Draws with gnuplot.
.PHONY: million run-million
million: deps ## trains at up to 65,536 tokens and measures perplexity at 1,048,576, in half an hour
	$(call install,gnuplot-nox)
	@$(MAKE) $(JOBS) run-million

run-million: all
	@tests/million.sh $(PROGRAM)

.PHONY: recall run-recall
recall: deps ## trains key-value recall over a ring of four and shows that the answers cross it
	@$(MAKE) $(JOBS) run-recall

run-recall: all
	@tests/recall.sh $(PROGRAM)

# ---------------------------------------------------------------- tests

TEST_SUPPORT := $(patsubst %.c,$(OUT)/%.o,$(wildcard tests/support/*.c tests/reference/*.c))
TESTS := $(patsubst tests/unit/%.c,$(OUT)/tests/%,$(sort $(wildcard tests/unit/test_*.c)))
LONG_TESTS := $(patsubst tests/long/%.c,$(OUT)/tests/%,$(sort $(wildcard tests/long/test_*.c)))

$(OUT)/tests/%: $(OUT)/tests/unit/%.o $(TEST_SUPPORT) $(LIBRARY)
	@mkdir -p $(dir $@)
	@echo "  link     $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS) -lcmocka $(LDLIBS)

$(OUT)/tests/%: $(OUT)/tests/long/%.o $(TEST_SUPPORT) $(LIBRARY)
	@mkdir -p $(dir $@)
	@echo "  link     $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS) -lcmocka $(LDLIBS)

# Where threads meet: transports, loader, saving and signals; check-long adds whole training runs.
TSAN_TESTS := stop resume comm loader ring_attention device float_mode checkpoint checkpoint_io \
              checkpoint_faults run_log threads model
# Whose kernels share memory.
RACES_TESTS := $(addprefix $(OUT)/tests/test_,attention ops_linear ops_norm ops_loss ops_optimizer cuda_model)

.PHONY: tests run-tests run-host-tests run-long-tests run-mutants run-tsan run-races
tests: all $(TESTS) $(LONG_TESTS) ## builds the tests

run-tests: tests $(EMULATED) $(EMULATOR_TESTS)
	@RINGGPT_TEST_CUDA=$(abspath $(EMULATED)) RINGGPT_TEST_NCCL=$(abspath $(EMULATED)) tests/run.sh $(TESTS) $(EMULATOR_TESTS)

# Without the emulated GPU, whose tests are skipped.
run-host-tests: tests
	@tests/run.sh $(TESTS)

run-long-tests: all $(LONG_TESTS)
	@TEST_TIMEOUT=3600 tests/run.sh $(LONG_TESTS)

run-tsan: all $(TSAN_TESTS:%=$(OUT)/tests/test_%)
	@tests/run.sh $(TSAN_TESTS:%=$(OUT)/tests/test_%)

run-races: $(RACES) $(RACES_TESTS)
	@RINGGPT_TEST_CUDA=$(abspath $(RACES)) tests/run.sh $(RACES_TESTS)

MUTANTS := $(wildcard tests/mutants/*.patch)
run-mutants:
	@RINGGPT_TEST_SMALL=1 tests/mutants.sh $(BUILD)/mutants $(variant) $(MUTANTS)

$(OUT)/peers/%: $(OUT)/tests/peers/%.o $(OUT)/tests/support/hf_logits.o $(LIBRARY)
	@mkdir -p $(dir $@)
	@echo "  link     $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS) $(LDLIBS)

.PHONY: run-peers run-hosts
run-peers: all $(OUT)/peers/logits
	@tests/peers/check.sh $(PROGRAM) $(OUT)/peers/logits $(BUILD)/peers

run-hosts: all $(OUT)/bench/bench_ring
	@tests/hosts.sh $(PROGRAM) $(OUT)/bench/bench_ring

# The thread sanitizer knows neither libgomp nor MPI: ranks are threads there, each with one thread.
TSAN := SANITIZE=thread OPENMP=0 MPI=0 CUDA=0

.PHONY: check check-long check-sanitize check-races check-variants check-mutants check-peers check-hosts
check: deps-check ## builds and runs all tests
	@$(MAKE) $(JOBS) run-tests

check-long: deps-check ## the tests that take up to an hour
	@$(MAKE) $(JOBS) run-long-tests
	@TEST_TIMEOUT=3600 $(MAKE) $(JOBS) $(TSAN) TSAN_TESTS=training run-tsan

check-sanitize: deps-check ## tests under the sanitizers of addresses, undefined behaviour and threads
	@RINGGPT_TEST_SMALL=1 TEST_TIMEOUT=600 $(MAKE) $(JOBS) SANITIZE=address,undefined CUDA=0 run-tests
	@TEST_TIMEOUT=600 $(MAKE) $(JOBS) $(TSAN) run-tsan
	@$(MAKE) check-races

check-races: deps-check ## looks for races in the GPU's shared memory, on the emulated GPU
	@RINGGPT_TEST_SMALL=1 TEST_TIMEOUT=600 $(MAKE) $(JOBS) CUDA=0 run-races

check-variants: deps-check ## builds with DEBUG=1, and with DNNL=0 MPI=0 and runs the CPU's tests of that
	@$(MAKE) $(JOBS) DEBUG=1 CUDA=0 tests
	@RINGGPT_TEST_SMALL=1 $(MAKE) $(JOBS) DNNL=0 MPI=0 CUDA=0 run-host-tests

check-mutants: deps-check ## plants each fault of tests/mutants and shows that a test finds it
	@$(MAKE) $(JOBS) CUDA=0 run-mutants

check-peers: deps-peers ## compares with Hugging Face transformers, installed into build/peers (6 GB)
	@$(MAKE) $(JOBS) run-peers

check-hosts: deps-hosts ## trains over hosts that are network namespaces of this machine; as root
	@$(MAKE) $(JOBS) run-hosts

# ---------------------------------------------------------------- speed

BENCH := $(OUT)/bench/bench
BENCH_RING := $(addprefix $(OUT)/tests/bench/,bench_ring.o ring_measure.o)
BENCH_OBJECTS := $(filter-out $(OUT)/tests/bench/bench_ring.o $(OUT)/tests/bench/ring_measure.o, \
                 $(patsubst %.c,$(OUT)/%.o,$(wildcard tests/bench/*.c)))

# A multiply-add where the CPU has it: what is measured is the fastest way.
$(OUT)/tests/bench/peak_plain.o: private FILE_CFLAGS := -ffp-contract=fast

$(BENCH): $(BENCH_OBJECTS) $(LIBRARY)
	@mkdir -p $(dir $@)
	@echo "  link     $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS) $(LDLIBS)

$(OUT)/bench/bench_ring: $(BENCH_RING) $(LIBRARY)
	@mkdir -p $(dir $@)
	@echo "  link     $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS) $(LDLIBS)

# Which runs it.
$(OUT)/tests/test_bench: | $(BENCH)

.PHONY: bench run-bench bench-compare
bench: deps ## measures everything against the peaks of this machine (BENCH_FLAGS="-p attention -j new.json"; --help)
	@$(MAKE) $(JOBS) run-bench

run-bench: $(BENCH) $(OUT)/bench/bench_ring
	@RINGGPT_CUDA="$${RINGGPT_CUDA:-$(abspath $(OUT)/ringgpt-cuda.so)}" $(BENCH) $(BENCH_FLAGS)

bench-compare: $(BENCH) ## compares two runs of bench -j: A=old.json B=new.json
	@$(BENCH) --compare $(A) $(B)

# ---------------------------------------------------------------- on a GPU

# Needs a GPU, the CUDA toolkit and the libraries of the build and of the tests, and installs nothing. Where those
# lie in a folder of their own: CPPFLAGS=-IDIR/include LDFLAGS=-LDIR/lib, and LD_LIBRARY_PATH=DIR/lib.
GPU_TESTS := $(addprefix $(OUT)/tests/test_,ops_activation ops_dropout ops_linear ops_loss ops_norm ops_optimizer \
             ops_position attention predict cuda_device cuda_products comm_device cuda_model cuda_training \
             $(patsubst tests/unit/test_%.c,%,$(wildcard tests/unit/test_nccl.c)))

$(OUT)/gpu/instructions: $(OUT)/cuda/tests/gpu/instructions.o
	@mkdir -p $(dir $@)
	@echo "  link     $@"
	$(Q)$(NVCC) $(CUDA_TARGETS) -ccbin $(CXX) -o $@ $^

$(EMULATED_INSTRUCTIONS): $(OUT)/emulated/tests/gpu/instructions.o $(patsubst %,$(OUT)/emulated/%.o,$(basename $(EMULATOR)))
	@mkdir -p $(dir $@)
	@echo "  link     $@"
	$(Q)$(CXX) $(SANITIZE_FLAGS) -o $@ $^ -lpthread

# Built for the GPU that is there, unless CUDA_ARCH says for what.
ON_GPU = $(if $(filter command line environment,$(origin CUDA_ARCH)),,arch="$$(tests/gpu/architecture.sh)" || exit 1;) \
         $(MAKE) $(JOBS) CUDA=1 CUDA_ARCH="$(if $(filter command line environment,$(origin CUDA_ARCH)),$(CUDA_ARCH),$$arch)"

.PHONY: check-gpu bench-gpu run-check-gpu run-bench-gpu run-check-gpu-emulated
check-gpu: ## checks what runs on a GPU, part by part; goes on where it was cut off (GPU_FLAGS="--part NAME")
	@$(ON_GPU) run-check-gpu

bench-gpu: ## measures the GPU against its peak, part by part; goes on where it was cut off (GPU_FLAGS="--part NAME")
	@$(ON_GPU) run-bench-gpu

run-check-gpu: all $(OUT)/gpu/instructions $(GPU_TESTS)
	@CUDA_HOME=$(CUDA_HOME) tests/gpu/check.sh $(GPU_FLAGS) $(PROGRAM) $(OUT)/gpu/instructions $(GPU_TESTS)

run-bench-gpu: all $(BENCH)
	@CUDA_HOME=$(CUDA_HOME) tests/gpu/bench.sh $(GPU_FLAGS) $(PROGRAM) $(BENCH)

# The scripts themselves, without a GPU: the results are the emulator's.
run-check-gpu-emulated: $(PROGRAM) $(EMULATED) $(EMULATED_INSTRUCTIONS) $(GPU_TESTS) $(BENCH)
	@tests/gpu/check.sh --object $(EMULATED) --state $(OUT)/emulated/gpu-check $(GPU_FLAGS) $(PROGRAM) \
	  $(EMULATED_INSTRUCTIONS) $(GPU_TESTS)
	@tests/gpu/bench.sh --quick --object $(EMULATED) --state $(OUT)/emulated/gpu-bench $(PROGRAM) $(BENCH)

# ---------------------------------------------------------------- style

FORMATTED := $(wildcard $(addsuffix /*.[ch],$(MODULES) tests/unit tests/long tests/support tests/reference \
             tests/bench tests/gpu tests/peers)) $(wildcard kernels/cuda/*.cu tests/nccl/*.cpp tests/nccl/include/* tests/gpu/*.cu \
             tests/emulator/*.h tests/emulator/*.cpp tests/emulator/include/*.h tests/emulator/include/emulated/*)
# Vector code is not for clang-tidy: its types and intrinsics are the compiler's own.
TIDIED := $(filter-out %_avx2.c %_avx512.c %_avx512bf16.c,$(SOURCES)) train/main.c

.PHONY: format lint clean
format: ## formats all sources in place
	clang-format -i $(FORMATTED)

lint: deps-lint ## clang-format, clang-tidy and cppcheck, without a remark
	@clang-format --dry-run -Werror $(FORMATTED) && echo "clang-format: clean"
	@printf '%s\n' $(TIDIED) | xargs -P $(shell nproc) -n 8 sh -c 'said=$$(clang-tidy --quiet --warnings-as-errors="*" \
	  "$$@" -- $(OWN_CPPFLAGS) $(MPI_CFLAGS) $(CPPFLAGS) -std=c11 -fopenmp 2>&1) || { printf "%s\n" "$$said"; exit 1; }' tidy && \
	  echo "clang-tidy: clean"
	@cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
	  --error-exitcode=1 --suppress=missingIncludeSystem $(OWN_CPPFLAGS) $(CPPFLAGS) -j $(shell nproc) $(SOURCES) train/main.c && \
	  echo "cppcheck: clean"

clean: ## removes what was built
	rm -rf $(BUILD)

.SECONDARY:
-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
