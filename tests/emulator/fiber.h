/* Fibers: stacks of their own between which one host thread switches. */
#ifndef RINGGPT_EMULATOR_FIBER_H
#define RINGGPT_EMULATOR_FIBER_H

#include <stddef.h>

/* Whether switch.S knows the processor; EMULATOR_UCONTEXT takes the C library's way all the same. */
#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_SWITCH 1
#else
#define EMULATOR_SWITCH 0
#include <ucontext.h>
#endif

namespace emulator {

struct Fiber {
  /* Of the stack; the sanitizer tells them of the host thread's own. */
  const void *bottom = nullptr;
  size_t bytes = 0;
  void *fake_stack = nullptr; /* the address sanitizer's */
#if EMULATOR_SWITCH
  void *stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
};

/* A fiber that will begin with `main`, which never returns. It lives as long as the process. */
Fiber *fiber_create(void (*main)(void));

/* Goes on in `to`, until something switches back to `from`, the fiber that runs (or a fresh Fiber for a host
 * thread on its own stack). */
void fiber_switch(Fiber *from, Fiber *to);

} // namespace emulator

#endif
