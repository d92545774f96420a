/* The arguments of a command. */
#include "train/command_line.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/names.h"
#include "train/options.h"

static int64_t flag_count(const Command *command) {
  int64_t count = 0;
  while (count < COMMAND_MAX_FLAGS && command->flags[count].name) count++;
  return count;
}

/* The place of a flag whose name has `length` bytes, or -1. */
static int64_t find_flag(const Command *command, const char *name, size_t length) {
  for (int64_t i = 0; i < flag_count(command); i++)
    if (strlen(command->flags[i].name) == length && strncmp(command->flags[i].name, name, length) == 0)
      return i;
  return -1;
}

static Status unknown_flag(const Command *command, const char *name, size_t length, Error *error) {
  char given[NAME_MAX_BYTES];
  (void)snprintf(given, sizeof given, "%.*s", (int)(length < sizeof given ? length : sizeof given - 1), name);
  const char *nearest = "help";
  int64_t least = names_distance(given, nearest);
  for (int64_t i = 0; i < flag_count(command); i++) {
    const int64_t distance = names_distance(given, command->flags[i].name);
    if (distance >= least) continue;
    least = distance;
    nearest = command->flags[i].name;
  }
  if (names_near(given, least))
    return fail(error, STATUS_USAGE, "%s: unknown flag '--%s'; did you mean '--%s'?", command->name, given,
                nearest);
  return fail(error, STATUS_USAGE, "%s: unknown flag '--%s'; 'ringgpt %s --help' lists them", command->name,
              given, command->name);
}

/* Takes the flag argv[*at] and moves *at to its last word. */
static Status take_flag(const Command *command, int argc, char **argv, int *at, CommandLine *out,
                        Error *error) {
  const char *name = argv[*at] + 2;
  const size_t length = strcspn(name, "=");
  const int64_t place = find_flag(command, name, length);
  if (place < 0) return unknown_flag(command, name, length, error);
  const CommandFlag *flag = &command->flags[place];
  if (out->flags[place])
    return fail(error, STATUS_USAGE, "%s: '--%s' is given twice", command->name, flag->name);
  const char *value = name[length] == '=' ? name + length + 1 : NULL;
  if (!flag->value && value)
    return fail(error, STATUS_USAGE, "%s: '--%s' takes no value", command->name, flag->name);
  if (flag->value && !value) {
    if (*at + 1 >= argc)
      return fail(error, STATUS_USAGE, "%s: '--%s' needs a value: --%s %s", command->name, flag->name,
                  flag->name, flag->value);
    value = argv[++*at];
  }
  out->flags[place] = value ? value : "";
  return STATUS_OK;
}

static Status check_complete(const Command *command, const CommandLine *line, Error *error) {
  for (int64_t i = 0; i < flag_count(command); i++)
    if (command->flags[i].required && !line->flags[i])
      return fail(error, STATUS_USAGE, "%s: '--%s %s' is missing; usage: ringgpt %s %s", command->name,
                  command->flags[i].name, command->flags[i].value, command->name, command->usage);
  if (line->count < command->least_arguments)
    return fail(error, STATUS_USAGE, "%s: an argument is missing; usage: ringgpt %s %s", command->name,
                command->name, command->usage);
  if (command->most_arguments >= 0 && line->count > command->most_arguments)
    return fail(error, STATUS_USAGE, "%s: '%.200s' is one argument too many; usage: ringgpt %s %s",
                command->name, line->arguments[command->most_arguments], command->name, command->usage);
  return STATUS_OK;
}

Status command_line_parse(const Command *command, int argc, char **argv, CommandLine *out, Error *error) {
  *out = (CommandLine){.command = command, .arguments = argv};
  bool flags_end = false;
  for (int i = 0; i < argc; i++) {
    const bool is_flag = !flags_end && argv[i][0] == '-' && argv[i][1] != '\0';
    if (!is_flag) {
      argv[out->count++] = argv[i];
    } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      out->help = true;
      return STATUS_OK;
    } else if (strcmp(argv[i], "--") == 0) {
      flags_end = true;
    } else if (argv[i][1] != '-') {
      return fail(error, STATUS_USAGE, "%s: unknown flag '%.60s'; 'ringgpt %s --help' lists them",
                  command->name, argv[i], command->name);
    } else {
      TRY(take_flag(command, argc, argv, &i, out, error));
    }
  }
  return check_complete(command, out, error);
}

const char *command_line_flag(const CommandLine *line, const char *name) {
  const int64_t place = find_flag(line->command, name, strlen(name));
  return place < 0 ? NULL : line->flags[place];
}

Status command_line_integer(const char *name, const char *text, int64_t minimum, int64_t maximum,
                            int64_t *out, Error *error) {
  char *end = NULL;
  errno = 0;
  *out = strtoll(text, &end, 10);
  if (end != text && !*end && errno == 0 && *out >= minimum && *out <= maximum) return STATUS_OK;
  return fail(error, STATUS_USAGE, "%s is '%.60s'; it must be a whole number from %" PRId64 " to %" PRId64,
              name, text, minimum, maximum);
}

Status command_line_real(const char *name, const char *text, double minimum, double maximum, double *out,
                         Error *error) {
  char *end = NULL;
  *out = strtod(text, &end);
  if (end != text && !*end && *out >= minimum && *out <= maximum) return STATUS_OK;
  return fail(error, STATUS_USAGE, "%s is '%.60s'; it must be a number from %g to %g", name, text, minimum,
              maximum);
}

void command_line_print_help(const Command *command, FILE *stream) {
  (void)fprintf(stream, "usage: ringgpt %s %s\n\n%s\n", command->name, command->usage, command->summary);
  if (flag_count(command) > 0) (void)fprintf(stream, "\n");
  for (int64_t i = 0; i < flag_count(command); i++) {
    const CommandFlag *flag = &command->flags[i];
    char left[64];
    (void)snprintf(left, sizeof left, "--%s %s", flag->name, flag->value ? flag->value : "");
    (void)fprintf(stream, "  %-22s %s\n", left, flag->help);
  }
  if (!command->configured) return;
  (void)fprintf(stream, "\nThe configuration is a YAML file; each option below is \"key: default\". On the "
                        "command line\nany of them is overridden by section.key=value.\n");
  options_print_help(stream);
}
