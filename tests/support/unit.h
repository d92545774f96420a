/* cmocka with what it needs, for test programs. cmocka's macro fail() would hide the function of that name in
 * kernels/base/status.h, so fail_msg is made anew without it. */
#ifndef RINGGPT_SUPPORT_UNIT_H
#define RINGGPT_SUPPORT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                                        \
  do {                                                                                                       \
    print_error(__VA_ARGS__);                                                                                \
    print_error("\n");                                                                                       \
    _fail(__FILE__, __LINE__);                                                                               \
  } while (0)

/* Whether tests run under a checker and should take fewer or smaller cases: the environment variable
 * RINGGPT_TEST_SMALL, which make check-sanitize, check-variants and check-mutants, and tests/gpu/check.sh
 * set. */
static inline bool test_wants_small(void) {
  return getenv("RINGGPT_TEST_SMALL") != NULL;
}

#endif
