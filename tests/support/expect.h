/* What tests expect of a Status and its Error, on top of cmocka's assertions. */
#ifndef RINGGPT_SUPPORT_EXPECT_H
#define RINGGPT_SUPPORT_EXPECT_H

#include "kernels/base/status.h"

/* The call worked; otherwise the test fails with the error's text. */
#define expect_ok(status, error) expect_status_at((status), (error), __FILE__, __LINE__)

/* The call failed with `wanted`, in one line that contains each of the texts given (at least one). Empties
 * the error, so that it can be used again. */
#define expect_error(status, error, wanted, ...)                                                             \
  expect_error_at((status), (error), (wanted), (const char *const[]){__VA_ARGS__, NULL}, __FILE__, __LINE__)

void expect_status_at(Status status, const Error *error, const char *file, int line);
void expect_error_at(Status status, Error *error, Status wanted, const char *const *texts, const char *file,
                     int line);

#endif
