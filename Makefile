# Everything that can be done with ringgpt: `make help` lists it.
#
#   DEBUG=1                        no optimisation, debug information
#   SANITIZE=address,undefined     with sanitizers (libgomp stays as it is)
#   DNNL=0                         without oneDNN: products by the reference operation
#   V=1                            shows every command
#   BUILD=DIR                      where everything that is built goes (default build/)

.DEFAULT_GOAL := all
SHELL := /bin/bash
ifeq ($(origin CC),default)
CC := gcc
endif
BUILD ?= build
DNNL ?= auto

Q := $(if $(V),,@)

variant := release
ifdef DEBUG
variant := debug
endif
ifdef SANITIZE
comma := ,
variant := $(variant)-$(subst $(comma),-,$(SANITIZE))
endif
OUT := $(BUILD)/$(variant)

# ---------------------------------------------------------------- what is there

ifeq ($(DNNL),auto)
DNNL := $(shell (pkg-config --exists dnnl 2>/dev/null || \
          printf '\#include <oneapi/dnnl/dnnl.h>\n' | $(CC) -E -x c - >/dev/null 2>&1) && echo 1 || echo 0)
endif
ifeq ($(DNNL),0)
OUT := $(OUT)-nodnnl
endif

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
            -Wcast-qual -Wwrite-strings -Wvla -Wundef -Wformat=2 -Werror
CPPFLAGS += -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DRINGGPT_DNNL=$(DNNL)
# -ffp-contract=off: the same expression gives the same bits in every file and instruction set.
CFLAGS   += -std=c11 -fopenmp -ffp-contract=off -fno-math-errno $(WARNINGS)
LDLIBS   := -lyaml -ljansson -lpcre2-8 -lz -lm -lpthread
LDFLAGS  += -fopenmp
ifeq ($(DNNL),1)
LDLIBS   += -ldnnl
endif
CFLAGS   += $(if $(DEBUG),-O0 -g3,-O3 -g)
ifdef SANITIZE
CFLAGS   += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
LDFLAGS  += -fsanitize=$(SANITIZE)
endif

# Files for one instruction set carry it in their name; kernels/device.c enters them only where the CPU has it.
ifneq ($(filter x86_64 amd64,$(shell uname -m)),)
%_avx512.o: CFLAGS += -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512
%_avx2.o: CFLAGS += -mavx2 -mfma
endif

# ---------------------------------------------------------------- the program

MODULES := kernels/base kernels/comm kernels/cpu kernels model data checkpoints train
SOURCES := $(filter-out train/main.c,$(wildcard $(addsuffix /*.c,$(MODULES))))
OBJECTS := $(SOURCES:%.c=$(OUT)/%.o)
LIBRARY := $(OUT)/libringgpt.a
PROGRAM := $(OUT)/ringgpt

.PHONY: all help
all: $(PROGRAM) ## builds the program: build/release/ringgpt

$(PROGRAM): $(OUT)/train/main.o $(LIBRARY)
	@echo "  link     $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(LIBRARY): $(OBJECTS)
	@rm -f $@
	@echo "  archive  $@"
	$(Q)ar rcs $@ $^

$(OUT)/%.o: %.c
	@mkdir -p $(dir $@)
	@echo "  compile  $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

help: ## lists what can be made
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# ---------------------------------------------------------------- tests

TEST_SUPPORT := $(patsubst %.c,$(OUT)/%.o,$(wildcard tests/support/*.c tests/reference/*.c))
TESTS := $(patsubst tests/unit/%.c,$(OUT)/tests/%,$(wildcard tests/unit/test_*.c))

$(OUT)/tests/%: $(OUT)/tests/unit/%.o $(TEST_SUPPORT) $(LIBRARY)
	@mkdir -p $(dir $@)
	@echo "  link     $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

.PHONY: tests
tests: $(TESTS) $(PROGRAM) ## builds the tests

# ---------------------------------------------------------------- style

FORMATTED := $(wildcard $(addsuffix /*.[ch],$(MODULES) tests/unit tests/support tests/reference))

.PHONY: format clean
format: ## formats all sources in place
	clang-format -i $(FORMATTED)

clean: ## removes what was built
	rm -rf $(BUILD)

.SECONDARY:
-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
