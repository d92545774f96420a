/* A set of shards seen as one long stream of tokens. A set is for one thread: each opens its own. */
#ifndef RINGGPT_DATA_DATASET_H
#define RINGGPT_DATA_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "data/description.h"
#include "kernels/base/status.h"

typedef struct Dataset Dataset;

/* Opens the shards that `pattern` names, in the order of their names. A pattern is
 *   - a file;
 *   - DIR/train or DIR/val of a prepared set, or DIR where it has one split only;
 *   - a glob as the shell's, such as "DIR/train_*.bin.gz" or "shards/fineweb_*.bin".
 * Every shard's header and size is checked now. STATUS_NO_INPUT when nothing matches, STATUS_CONFIG when the
 * set was prepared with a vocabulary larger than `vocab_size`, STATUS_DATA when a shard is damaged or the
 * shards differ in the width of their tokens. The caller closes *out. */
Status dataset_open(const char *pattern, int64_t vocab_size, Dataset **out, Error *error);

/* Tokens of all shards. */
int64_t dataset_tokens(const Dataset *dataset);

/* Identity of the set, to compare hosts: zlib's crc32 over the names without folders, the sizes and the
 * numbers of tokens of the shards, in their order, and over the token that ends a document where a
 * description says it. Contents are not read. */
uint32_t dataset_crc32(const Dataset *dataset);

/* Reads tokens [first, first + count) of the stream into tokens (count); the range must lie in the set.
 * Fails as shard_read. */
Status dataset_read(Dataset *dataset, int64_t first, int64_t count, int32_t *tokens, Error *error);

/* Releases a set; NULL is allowed. */
void dataset_close(Dataset *dataset);

/* Looks for the description of the prepared set to which the shards of `pattern` belong; *found is false
 * where there is none. STATUS_DATA when it is damaged, otherwise as dataset_open. */
Status dataset_describe(const char *pattern, Description *out, bool *found, Error *error);

#endif
