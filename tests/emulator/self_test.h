/* What the parts of the emulator's own test share. */
#ifndef RINGGPT_EMULATOR_SELF_TEST_H
#define RINGGPT_EMULATOR_SELF_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include <cmocka.h>
}

#include "emulator.h"

enum { SEEDS = 20 };

/* How a child process ended. */
struct Ending {
  bool aborted;      /* by the emulator or a sanitizer, or by a fault of memory */
  int status;        /* of its exit, where it was not */
  char errors[4096]; /* the start of what it wrote to stderr */
};

/* Runs body(argument), whose result is the exit status, in a child process. */
Ending run_child(int (*body)(int argument), int argument);

/* The child was ended, and said `text` on stderr. */
void expect_end(int (*body)(int argument), int argument, const char *text);

void expect_cuda(cudaError_t code, int line);
#define CUDA(call) expect_cuda(call, __LINE__)

/* Device memory with a copy of `count` values, and the way back. */
template <typename T> T *to_device(const T *values, size_t count) {
  T *memory;
  CUDA(cudaMalloc(&memory, count * sizeof(T)));
  CUDA(cudaMemcpy(memory, values, count * sizeof(T), cudaMemcpyHostToDevice));
  return memory;
}

template <typename T> T *new_on_device(size_t count) {
  T *memory;
  CUDA(cudaMalloc(&memory, count * sizeof(T)));
  return memory;
}

template <typename T> void to_host(T *values, const T *memory, size_t count) {
  CUDA(cudaDeviceSynchronize());
  CUDA(cudaMemcpy(values, memory, count * sizeof(T), cudaMemcpyDeviceToHost));
}

/* Each part adds up its failed tests. */
int test_arithmetic(void);
int test_instructions(void);
int test_threads(void);
int test_defects(void);
int test_memory(void);
int test_streams(void);

#endif
