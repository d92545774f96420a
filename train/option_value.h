/* The value of one option: from a YAML node into Config, from Config into YAML, and its range in words. */
#ifndef RINGGPT_TRAIN_OPTION_VALUE_H
#define RINGGPT_TRAIN_OPTION_VALUE_H

#include <stddef.h>
#include <stdint.h>
#include <yaml.h>

#include "kernels/base/status.h"
#include "train/config.h"
#include "train/options.h"
#include "train/yaml_reader.h"

/* Stores the value of node `index` of the document; a document without that node is an empty value. Fails
 * with STATUS_CONFIG: wrong type, outside the range, unknown choice, too long. */
Status option_value_set(const Option *option, const YamlDocument *document, int64_t index, Config *config,
                        Error *error);

/* Stores a text as it is in an option of type OPTION_TEXT. */
Status option_value_set_text(const Option *option, const YamlDocument *document, int64_t line,
                             const char *text, Config *config, Error *error);

/* Emits the value so that option_value_set reads the same. Returns 0 when libyaml failed. */
int option_value_emit(const Option *option, const Config *config, yaml_emitter_t *emitter);

/* Says what is allowed: "a whole number, at least 1", "cosine, linear, constant or wsd". */
void option_value_allowed(const Option *option, char *text, size_t bytes);

/* Prints a finite number with as few digits as read back to the same number. */
void option_value_print_real(double value, char *text, size_t bytes);

#endif
