/* What tests expect of a Status and its Error. */
#include "tests/support/expect.h"

#include <stdbool.h>
#include <string.h>

#include "tests/support/unit.h"

void expect_status_at(Status status, const Error *error, const char *file, int line) {
  if (status == STATUS_OK) return;
  print_error("unexpected status %d: %s\n", (int)status, error->text);
  _fail(file, line);
}

void expect_error_at(Status status, Error *error, Status wanted, const char *const *texts, const char *file,
                     int line) {
  bool good = status == wanted && error->status == wanted && strchr(error->text, '\n') == NULL;
  for (size_t i = 0; texts[i] != NULL; i++) {
    if (strstr(error->text, texts[i]) == NULL) {
      print_error("the message lacks \"%s\"\n", texts[i]);
      good = false;
    }
  }
  if (!good) {
    print_error("status %d, wanted %d: %s\n", (int)status, (int)wanted, error->text);
    _fail(file, line);
  }
  *error = (Error){0};
}
