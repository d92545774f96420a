/* Limits of memory that control groups set: see the header. */
#include "kernels/base/cgroup.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, LINE_BYTES = PATH_BYTES + 256 };

/* The files of a version of control groups. */
typedef struct Version {
  const char *mount; /* below the root */
  const char *limit;
  const char *usage;
  const char *cached; /* in memory.stat: of the group and those in it */
} Version;

static const Version first_version = {"/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                      "total_inactive_file"};
static const Version second_version = {"", "memory.max", "memory.current", "inactive_file"};

static FILE *open_in(const char *directory, const char *name) {
  char path[LINE_BYTES];
  const int length = snprintf(path, sizeof path, "%s/%s", directory, name);
  return length < 0 || (size_t)length >= sizeof path ? NULL : fopen(path, "re");
}

/* The number in a file of one; `otherwise` where it has none: no such file, or "max". */
static uint64_t read_number(const char *directory, const char *name, uint64_t otherwise) {
  char text[64] = "";
  char *end = text;
  FILE *file = open_in(directory, name);
  if (file == NULL) return otherwise;
  const char *line = fgets(text, sizeof text, file);
  (void)fclose(file);
  const uint64_t number = strtoull(text, &end, 10);
  return line == NULL || end == text ? otherwise : number;
}

/* The number behind `key` in memory.stat; 0 where it is not there. */
static uint64_t read_statistic(const char *directory, const char *key) {
  char line[128];
  uint64_t number = 0;
  const size_t length = strlen(key);
  FILE *file = open_in(directory, "memory.stat");
  while (file != NULL && fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, key, length) == 0 && line[length] == ' ') number = strtoull(line + length, NULL, 10);
  }
  if (file != NULL) (void)fclose(file);
  return number;
}

static size_t left_in(const char *directory, const Version *version) {
  const uint64_t limit = read_number(directory, version->limit, UINT64_MAX);
  if (limit == UINT64_MAX) return SIZE_MAX;
  const uint64_t used = read_number(directory, version->usage, 0);
  const uint64_t cached = read_statistic(directory, version->cached);
  const uint64_t held = used > cached ? used - cached : 0;
  return limit > held ? limit - held : 0;
}

/* The least of a group and those around it. In a container the group's own place may lie outside of what can
 * be seen; the root is then the container's. */
static size_t least_of(const char *root, const char *group, const Version *version) {
  char directory[LINE_BYTES];
  size_t least = SIZE_MAX;
  const size_t top = strlen(root) + strlen(version->mount);
  const int length = snprintf(directory, sizeof directory, "%s%s%s", root, version->mount, group);
  if (length < 0 || (size_t)length >= sizeof directory) return SIZE_MAX;
  for (char *end = directory + length; end != NULL; end = strrchr(directory + top, '/')) {
    *end = '\0';
    const size_t left = left_in(directory, version);
    if (left < least) least = left;
  }
  return least;
}

/* Whether a list such as "cpu,memory" has `name`. */
static int lists(const char *list, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = list; at != NULL; at = strchr(at, ',')) {
    if (*at == ',') at++;
    if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0')) return 1;
  }
  return 0;
}

/* A line is "NUMBER:CONTROLLERS:GROUP"; of the second version there are no controllers. */
static size_t left_of_line(char *line, const char *root) {
  line[strcspn(line, "\n")] = '\0';
  char *controllers = strchr(line, ':');
  char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
  if (group == NULL) return SIZE_MAX;
  *group = '\0';
  group += 1;
  controllers += 1;
  if (strcmp(group, "/") == 0) group += 1;
  if (*controllers == '\0') return least_of(root, group, &second_version);
  return lists(controllers, "memory") ? least_of(root, group, &first_version) : SIZE_MAX;
}

size_t cgroup_memory_left(const char *membership, const char *root) {
  char line[LINE_BYTES];
  size_t least = SIZE_MAX;
  FILE *file = fopen(membership, "re");
  if (file == NULL) return SIZE_MAX;
  while (fgets(line, sizeof line, file) != NULL) {
    const size_t left = left_of_line(line, root);
    if (left < least) least = left;
  }
  (void)fclose(file);
  return least;
}
