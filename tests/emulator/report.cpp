/* The emulator's way to end. */
#include "report.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "block.h"
#include "device_memory.h"

namespace emulator {

static void print_thread(const Thread *thread) {
  fprintf(stderr, "(%u,%u,%u)", thread->index.x, thread->index.y, thread->index.z);
}

/* In a form that addr2line takes. */
static void print_code(const void *code) {
  Dl_info info;
  if (code && dladdr(code, &info))
    fprintf(stderr, " [addr2line -fie %s 0x%zx]", info.dli_fname,
            (size_t)((const char *)code - (const char *)info.dli_fbase) - 1);
}

static bool same_state(const Thread *a, const Thread *b) {
  return a->ended == b->ended && a->wait.name == b->wait.name && a->wait.caller == b->wait.caller;
}

static void print_state(const Thread *thread) {
  if (thread == current && !thread->wait.name) {
    fprintf(stderr, "runs");
  } else if (thread->ended) {
    fprintf(stderr, "ended");
  } else if (!thread->wait.name) {
    fprintf(stderr, "has not started");
  } else {
    fprintf(stderr, "waits: %s", thread->wait.name);
    print_code(thread->wait.caller);
  }
}

/* One line for threads in a row with the same state. */
static void print_threads(void) {
  const int most_lines = 48;
  int lines = 0;
  for (int i = 0, next; i < block.threads && lines < most_lines; i = next, lines++) {
    for (next = i + 1; next < block.threads && same_state(&threads[next], &threads[i]); next++) {
    }
    if (next == i + 1)
      fprintf(stderr, "  thread %d ", i);
    else
      fprintf(stderr, "  threads %d to %d ", i, next - 1);
    print_state(&threads[i]);
    fprintf(stderr, "\n");
  }
}

static void print_place(void) {
  if (!current) return;
  fprintf(stderr, "  block (%u,%u,%u), thread ", here.block.x, here.block.y, here.block.z);
  print_thread(current);
  fprintf(stderr, "\n");
}

void die(const char *format, ...) {
  fprintf(stderr, "emulator: ");
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, "\n");
  print_place();
  if (current) print_threads();
  fflush(stderr);
  abort();
}

#if defined(__SANITIZE_ADDRESS__)
void watch_faults(void) {
}
void unwatch_faults(void) {
}
#else
static struct sigaction others_handling;

/* Returns with the others' handling in place: the access is made again, and they get to see it. */
static void report_fault(int, siginfo_t *fault, void *) {
  fprintf(stderr, "emulator: a kernel has no access to address %p\n", fault->si_addr);
  print_nearest_memory(fault->si_addr);
  print_place();
  fflush(stderr);
  unwatch_faults();
}

void watch_faults(void) {
  struct sigaction handling = {};
  handling.sa_sigaction = report_fault;
  handling.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &handling, &others_handling);
}

void unwatch_faults(void) {
  sigaction(SIGSEGV, &others_handling, nullptr);
}
#endif

} // namespace emulator
