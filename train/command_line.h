/* The arguments of a command: its flags by a table, and what stands between them. */
#ifndef RINGGPT_TRAIN_COMMAND_LINE_H
#define RINGGPT_TRAIN_COMMAND_LINE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"

#define COMMAND_MAX_FLAGS 16

/* A flag "--name VALUE" or "--name=VALUE", or "--name" alone where `value` is NULL. */
typedef struct CommandFlag {
  const char *name;  /* without dashes */
  const char *value; /* what --help calls its value */
  const char *help;
  bool required;
} CommandFlag;

struct Command;

typedef struct CommandLine {
  const struct Command *command;
  Comm *processes; /* those that an MPI launcher started, this one among them; NULL: this one alone */
  const char *flags[COMMAND_MAX_FLAGS]; /* by place in the command's table: the value, "" for a flag that
                                           takes none, NULL for one that was not given */
  char **arguments;                     /* (count) what is no flag, in order; inside the caller's argv */
  int64_t count;
  bool help; /* --help was given: nothing else was looked at */
} CommandLine;

typedef struct Command {
  const char *name;
  const char *usage;                    /* what follows the name: "CONFIG.yaml [section.key=value ...]" */
  const char *summary;                  /* one line for the list of commands */
  CommandFlag flags[COMMAND_MAX_FLAGS]; /* ended by a NULL name unless all are used */
  int64_t least_arguments;
  int64_t most_arguments; /* -1: any number */
  bool configured;        /* takes a configuration: --help lists its options */
  bool parallel;          /* may be one of several processes that an MPI launcher started */
  Status (*run)(const CommandLine *line, Error *error);
} Command;

/* Parses what follows the command's name, argv[0] ... argv[argc - 1]; reorders argv. "--" ends the flags.
 * Fails with STATUS_USAGE. */
Status command_line_parse(const Command *command, int argc, char **argv, CommandLine *out, Error *error);

/* The value of the command's flag `name`, "" for a flag that takes none, or NULL where it was not given. */
const char *command_line_flag(const CommandLine *line, const char *name);

/* Parses a whole number from `minimum` to `maximum` given on the command line as `name`. STATUS_USAGE. */
Status command_line_integer(const char *name, const char *text, int64_t minimum, int64_t maximum,
                            int64_t *out, Error *error);

/* Likewise a number. */
Status command_line_real(const char *name, const char *text, double minimum, double maximum, double *out,
                         Error *error);

/* Prints a command's usage, its flags and, where it takes one, the options of the configuration. */
void command_line_print_help(const Command *command, FILE *stream);

#endif
