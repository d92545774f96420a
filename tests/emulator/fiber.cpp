/* Fibers: by a switch of a few instructions on x86-64, by swapcontext elsewhere. */
#include "fiber.h"

#include <stdint.h>
#include <sys/mman.h>

#include "report.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if EMULATOR_SWITCH
extern "C" void emulator_switch(void **save, void *load);
#endif

namespace emulator {

#if defined(__SANITIZE_ADDRESS__)
static const size_t STACK_BYTES = 512 * 1024; /* its frames have room around every variable */

static void leave(Fiber *from, const Fiber *to) {
  __sanitizer_start_switch_fiber(&from->fake_stack, to->bottom, to->bytes);
}
static void enter(void *fake_stack, Fiber *from) {
  __sanitizer_finish_switch_fiber(fake_stack, &from->bottom, &from->bytes);
}
#else
static const size_t STACK_BYTES = 256 * 1024;

static void leave(Fiber *, const Fiber *) {
}
static void enter(void *, Fiber *) {
}
#endif
static const size_t GUARD_BYTES = 4096;

static Fiber *previous; /* the fiber that the last switch left */
static void (*first_main)(void);

static void begin(void) {
  enter(nullptr, previous);
  first_main();
}

/* A stack above a guard page. */
static void take_stack(Fiber *fiber) {
  void *memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE) != 0) die("no memory for a stack");
  fiber->bottom = (char *)memory + GUARD_BYTES;
  fiber->bytes = STACK_BYTES;
}

#if EMULATOR_SWITCH

/* What emulator_switch pops: six registers, then the address of `begin`, which finds the stack as after a
 * call. Tops of stacks are spread over a page, so that they do not fall into the same lines of the cache. */
static void prepare(Fiber *fiber) {
  static unsigned made;
  const uintptr_t top = (uintptr_t)fiber->bottom + fiber->bytes - made++ % 32 * 128;
  void **frame = (void **)top;
  *--frame = nullptr;
  *--frame = (void *)begin;
  fiber->stack_pointer = frame - 6;
  for (int i = 0; i < 6; i++) *--frame = nullptr;
}

static void change_stack(Fiber *from, Fiber *to) {
  emulator_switch(&from->stack_pointer, to->stack_pointer);
}

#else

static void prepare(Fiber *fiber) {
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = (void *)fiber->bottom;
  fiber->context.uc_stack.ss_size = fiber->bytes;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, begin, 0);
}

static void change_stack(Fiber *from, Fiber *to) {
  swapcontext(&from->context, &to->context);
}

#endif

Fiber *fiber_create(void (*main)(void)) {
  Fiber *fiber = new Fiber;
  take_stack(fiber);
  first_main = main;
  prepare(fiber);
  return fiber;
}

void fiber_switch(Fiber *from, Fiber *to) {
  previous = from;
  leave(from, to);
  change_stack(from, to);
  enter(from->fake_stack, previous);
}

} // namespace emulator
