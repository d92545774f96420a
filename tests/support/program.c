/* The built program, for tests that start it. */
#include "tests/support/program.h"

#include <libgen.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/support/unit.h"

void program_path(char path[PATH_MAX]) {
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  assert_true(length > 0);
  self[length] = '\0';
  const char *folder = dirname(dirname(self));
  if (snprintf(path, PATH_MAX, "%s/ringgpt", folder) >= PATH_MAX) fail_msg("%s: too long", folder);
  if (access(path, X_OK) != 0) fail_msg("%s is not built", path);
}
