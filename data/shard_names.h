/* Which shards a pattern of the configuration names, and the prepared set to which they belong. */
#ifndef RINGGPT_DATA_SHARD_NAMES_H
#define RINGGPT_DATA_SHARD_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "data/description.h"
#include "kernels/base/status.h"

/* Start with `ShardNames names = {0};`, end with shard_names_free. */
typedef struct ShardNames {
  char **paths;            /* (count), in the order of their names */
  int64_t count;           /* >= 1 */
  char *directory;         /* in which the first shard lies */
  bool described;          /* DIRECTORY/dataset.json is there ... */
  Description description; /* ... and says this */
  int64_t tokens;          /* that the shards hold together by the description; -1: it does not say */
} ShardNames;

/* Resolves a pattern, whose forms data/dataset.h lists. STATUS_NO_INPUT when nothing matches, STATUS_DATA
 * when the description of a prepared set is damaged. */
Status shard_names_find(const char *pattern, ShardNames *out, Error *error);

/* Releases what it holds and empties it. */
void shard_names_free(ShardNames *names);

#endif
