/* Status codes and error messages. */
#include "kernels/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#undef fail
#undef fail_errno

static size_t write_text(Error *error, Status status, const char *format, va_list arguments) {
  error->status = status;
  const int written = vsnprintf(error->text, sizeof error->text, format, arguments);
  if (written < 0) return 0;
  return (size_t)written < sizeof error->text ? (size_t)written : sizeof error->text - 1;
}

Status fail(Error *error, Status status, const char *format, ...) {
  if (error->status != STATUS_OK) return error->status;
  va_list arguments;
  va_start(arguments, format);
  (void)write_text(error, status, format, arguments);
  va_end(arguments);
  return status;
}

Status fail_errno(Error *error, Status status, int code, const char *format, ...) {
  if (error->status != STATUS_OK) return error->status;
  va_list arguments;
  va_start(arguments, format);
  const size_t used = write_text(error, status, format, arguments);
  va_end(arguments);
  char reason[128];
  /* The GNU strerror_r returns the text, which is not always in the buffer. */
  (void)snprintf(error->text + used, sizeof error->text - used, ": %s",
                 strerror_r(code, reason, sizeof reason));
  return status;
}
