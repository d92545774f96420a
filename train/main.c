/* The program: finds the command, runs it, prints its error and returns its status. */
#include <stdio.h>
#include <string.h>

#include "kernels/base/status.h"
#include "train/commands.h"
#include "train/names.h"
#include "train/options.h"

static void print_help(void) {
  int64_t count;
  const Command *table = commands_table(&count);
  (void)printf("ringgpt %s trains GPT language models over a ring of devices that share each sequence.\n\n"
               "usage: ringgpt COMMAND ...\n\n",
               RINGGPT_VERSION);
  for (int64_t i = 0; i < count; i++) (void)printf("  %-9s %s\n", table[i].name, table[i].summary);
  (void)printf("\n  ringgpt COMMAND --help   what a command takes\n"
               "  ringgpt help config      the options of a configuration\n"
               "  ringgpt --version        the version\n\n"
               "exit status: 0 done, 64 usage, 65 damaged data, 66 missing input, 70 internal fault,\n"
               "71 memory or threads refused, 74 input or output, 75 stopped by a signal and resumable,\n"
               "78 configuration\n");
}

static Status find_command(const char *name, const Command **out, Error *error) {
  int64_t count, least = INT64_MAX;
  const Command *table = commands_table(&count), *nearest = table;
  for (int64_t i = 0; i < count; i++) {
    const int64_t distance = names_distance(name, table[i].name);
    if (distance >= least) continue;
    least = distance;
    nearest = &table[i];
  }
  *out = nearest;
  if (strcmp(name, nearest->name) == 0) return STATUS_OK;
  if (names_near(name, least))
    return fail(error, STATUS_USAGE, "unknown command '%.60s'; did you mean '%s'?", name, nearest->name);
  return fail(error, STATUS_USAGE, "unknown command '%.60s'; 'ringgpt --help' lists them", name);
}

/* ringgpt help [COMMAND | config] */
static Status help(int argc, char **argv, Error *error) {
  const Command *command = NULL;
  if (argc == 0) {
    print_help();
  } else if (strcmp(argv[0], "config") == 0) {
    options_print_help(stdout);
  } else {
    TRY(find_command(argv[0], &command, error));
    command_line_print_help(command, stdout);
  }
  return STATUS_OK;
}

static Status run(int argc, char **argv, Error *error) {
  if (argc < 2) return fail(error, STATUS_USAGE, "no command; 'ringgpt --help' lists them");
  const char *name = argv[1];
  const Command *command = NULL;
  CommandLine line;
  if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
    return help(argc - 2, argv + 2, error);
  if (strcmp(name, "--version") == 0) {
    (void)printf("ringgpt %s\n", RINGGPT_VERSION);
    return STATUS_OK;
  }
  TRY(find_command(name, &command, error));
  TRY(command_line_parse(command, argc - 2, argv + 2, &line, error));
  if (!line.help) return command->run(&line, error);
  command_line_print_help(command, stdout);
  return STATUS_OK;
}

int main(int argc, char **argv) {
  Error error = {0};
  Status status = run(argc, argv, &error);
  if ((fflush(stdout) != 0 || ferror(stdout)) && status == STATUS_OK)
    status = fail(&error, STATUS_IO, "standard output cannot be written");
  if (status != STATUS_OK) (void)fprintf(stderr, "ringgpt: %s\n", error.text);
  return (int)status;
}
