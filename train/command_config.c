/* The configuration that a command names: see the header. */
#include "train/command_config.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/memory.h"

Status command_config_load(const CommandLine *line, Config *config, Error *error) {
  const char *contexts = command_line_flag(line, "context");
  char override[CONFIG_TEXT_BYTES];
  const int length =
      snprintf(override, sizeof override, "eval.contexts=[%s]", contexts == NULL ? "" : contexts);
  if (length < 0 || (size_t)length >= sizeof override) {
    return fail(error, STATUS_USAGE, "--context: more than %d characters", CONFIG_TEXT_BYTES - 32);
  }
  void *memory = NULL;
  TRY(memory_alloc((size_t)line->count, sizeof(char *), "overrides", &memory, error));
  char **overrides = memory;
  for (int64_t i = 1; i < line->count; i++) overrides[i - 1] = line->arguments[i];
  overrides[line->count - 1] = override;
  const int64_t count = contexts == NULL ? line->count - 1 : line->count;
  const Status status = config_load(line->arguments[0], overrides, count, config, error);
  free(memory);
  return status;
}
