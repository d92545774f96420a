/* The configuration that a command names, with what its flags say beside it. */
#ifndef RINGGPT_TRAIN_COMMAND_CONFIG_H
#define RINGGPT_TRAIN_COMMAND_CONFIG_H

#include "kernels/base/status.h"
#include "train/command_line.h"
#include "train/config.h"

/* Loads the command's first argument with the others as overrides, and --context as eval.contexts, so that
 * one parser and one check serve both. Fails as config_load; STATUS_USAGE for a list that is too long. */
Status command_config_load(const CommandLine *line, Config *config, Error *error);

#endif
