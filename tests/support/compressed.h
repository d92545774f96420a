/* Helpers for tests of compressed files. Every helper ends the test as failed when something does not work.
 */
#ifndef RINGGPT_SUPPORT_COMPRESSED_H
#define RINGGPT_SUPPORT_COMPRESSED_H

#include <stddef.h>
#include <stdint.h>

#include "data/block_index.h"
#include "kernels/base/status.h"

/* What gunzip makes of a file: a new block. */
uint8_t *compressed_gunzip(const char *path, size_t *bytes);

/* Compresses data as one gzip member with zlib's level and strategy: a new block. */
uint8_t *compressed_gzip(const uint8_t *data, size_t data_bytes, int level, int strategy, size_t *bytes);

/* Scans a file by its kind, expands all blocks and compares with what they should be: STATUS_OK only when all
 * data are right; the test fails when wrong data pass for good. gzip files promise `data_bytes`. */
Status compressed_check(const char *path, BlockKind kind, const uint8_t *data, size_t data_bytes,
                        Error *error);

/* Writes the file with each of its bits flipped in turn (every `step`-th) and checks it: what is not an error
 * that names the file and a byte must give the right data. Returns how many flips did. */
int64_t compressed_flip_bits(const char *path, BlockKind kind, const uint8_t *file, size_t file_bytes,
                             const uint8_t *data, size_t data_bytes, size_t step);

/* Writes every beginning of the file and checks that each is an error. */
void compressed_truncate(const char *path, BlockKind kind, const uint8_t *file, size_t file_bytes,
                         const uint8_t *data, size_t data_bytes);

#endif
