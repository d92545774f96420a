/* The commands of the program: one function each, and the table of them with their flags. Each returns
 * STATUS_OK or records one line in `error`; the status is the exit code of the program. They print results on
 * stdout. */
#ifndef RINGGPT_TRAIN_COMMANDS_H
#define RINGGPT_TRAIN_COMMANDS_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "train/command_line.h"
#include "train/config.h"

#define RINGGPT_VERSION "0.1.0"

/* The table of all commands. */
const Command *commands_table(int64_t *count);

/* prepare --out DIR [flags] PATH...: text files and folders to compressed shards. */
Status command_prepare(const CommandLine *line, Error *error);

/* train CONFIG.yaml [section.key=value ...]. STATUS_STOPPED after a signal: the same command goes on. */
Status command_train(const CommandLine *line, Error *error);

/* eval CONFIG.yaml --checkpoint DIR --context N[,N...] [--json FILE] [section.key=value ...]. */
Status command_eval(const CommandLine *line, Error *error);

/* plan CONFIG.yaml [--context N[,N...]] [--ranks N] [section.key=value ...]: a table of the memory of
 * training, or of an evaluation at these contexts. STATUS_SYSTEM where it does not fit this machine. */
Status command_plan(const CommandLine *line, Error *error);

/* eval with --task (train/tasks.h), for a configuration that command_eval has loaded. */
Status command_eval_task(const CommandLine *line, const Config *config, Error *error);

/* generate --checkpoint DIR (--prompt TEXT | --prompt-file FILE) --tokens N [flags]: text on stdout as it
 * comes; the prompt is not repeated. */
Status command_generate(const CommandLine *line, Error *error);

/* inspect PATH: what a shard or a checkpoint holds, and whether it is whole. */
Status command_inspect(const CommandLine *line, Error *error);

#endif
