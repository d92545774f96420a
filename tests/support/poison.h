/* Training runs in which some steps have no finite loss: the embedding of one letter is not a number, and
 * only some samples contain that letter. */
#ifndef RINGGPT_SUPPORT_POISON_H
#define RINGGPT_SUPPORT_POISON_H

#include <stdint.h>

#include "train/config.h"

/* Steps of such a run, and samples of each step. */
enum { POISON_STEPS = 24, POISON_BATCH = 2 };

/* The run DIRECTORY/run-NAME, which begins from a checkpoint of step 0 whose embedding of Z is NaN: with the
 * untied head only samples that contain a Z are spoilt. Its data are the shard DIRECTORY/NAME, which
 * poison_shard writes, in order; it saves after every step and keeps all. *shard: its path, to be freed. */
Config poison_config(const char *directory, const char *name, char **shard);

/* Writes the shard, of POISON_STEPS x POISON_BATCH samples: those from `first` to before `end` contain a Z.
 */
void poison_shard(const char *path, int64_t first, int64_t end);

#endif
