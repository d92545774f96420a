/* The table of options: from it come parsing, types, ranges, defaults, the help text, the resolved dump and
 * the name to suggest for one that does not exist. */
#ifndef RINGGPT_TRAIN_OPTIONS_H
#define RINGGPT_TRAIN_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/status.h"
#include "train/config.h"
#include "train/yaml_reader.h"

#define OPTION_NAME_BYTES 64 /* a full name, its terminating zero included */

typedef enum OptionType {
  OPTION_INTEGER,  /* int64_t */
  OPTION_REAL,     /* double */
  OPTION_BOOLEAN,  /* bool */
  OPTION_CHOICE,   /* an enum: the index into `choices` */
  OPTION_TEXT,     /* char[CONFIG_TEXT_BYTES] */
  OPTION_INTEGERS, /* IntegerList */
  OPTION_SCHEDULE  /* SequenceSchedule */
} OptionType;

/* A choice that other builds have or that does not exist yet, and what to say about it. */
typedef struct AbsentChoice {
  const char *name;
  const char *reason;
} AbsentChoice;

typedef struct Option {
  const char *section; /* "" for an option without one */
  const char *key;     /* "group.key" for one of a mapping within the section */
  OptionType type;
  size_t offset;              /* of the value in Config */
  const char *initial;        /* the default, as YAML */
  double minimum, maximum;    /* of a number, or of each number of a list */
  bool above;                 /* the minimum itself is not allowed */
  bool below;                 /* the maximum itself is not allowed */
  const char *const *choices; /* names of a choice, ended by NULL */
  const AbsentChoice *absent; /* ended by a NULL name; NULL: none */
  const char *help;           /* one sentence */
} Option;

/* The table, in the order of help and dump; options of one section, and of one group, lie together. */
const Option *options_table(int64_t *count);

/* The option "section.key" or "key", or NULL. */
const Option *option_find(const char *section, const char *key);

/* Stores an option's full name, "section.key" or "key", in `name`. */
void option_name(const Option *option, char *name, size_t bytes);

/* Sets every option to its default. */
Status options_set_defaults(Config *config, Error *error);

/* Sets the options that a document names: a mapping from sections to mappings from keys to values; those of a
 * group are in a mapping of their own, "model: {rope_scaling: {factor: 2}}".
 * Fails with STATUS_CONFIG and the line. */
Status options_apply(const YamlDocument *document, Config *config, Error *error);

/* Sets one option from "section.key=value". Fails with STATUS_USAGE when it has not that form, else with
 * STATUS_CONFIG. */
Status options_override(const char *text, Config *config, Error *error);

/* Prints all options by section: name, default, what is allowed, what it is. */
void options_print_help(FILE *stream);

#endif
