/* Reading from the middle of an ordinary gzip file, of one member or several: one scan expands the whole
 * file, checks every checksum and length, and notes access points from which expanding can start again later.
 * The principle is that of Mark Adler's zran example in zlib: at the boundary of two deflate blocks, the
 * place in bits and the last 32 KiB of data are all that the decoder needs. */
#ifndef RINGGPT_DATA_GZIP_H
#define RINGGPT_DATA_GZIP_H

#include <stddef.h>
#include <stdint.h>

#include "data/block_index.h"
#include "kernels/base/file.h"
#include "kernels/base/status.h"

/* Expands the first `bytes` of the data. STATUS_DATA when the file is damaged or holds less. */
Status gzip_head(const File *file, uint8_t *data, size_t bytes, Error *error);

/* Builds the index of a file that promises `data_bytes` of data. STATUS_DATA as soon as it expands to more,
 * and when it holds less, fails a check, is truncated, is followed by something that is not gzip, or holds a
 * stretch of more than BLOCK_DATA_MAX without an access point. */
Status gzip_scan(const File *file, int64_t data_bytes, BlockIndex *index, Error *error);

/* Expands one block of the index into data (block_index_bytes) and checks its CRC-32. STATUS_DATA. */
Status gzip_expand(const File *file, const BlockIndex *index, int64_t block, uint8_t *data, Error *error);

#endif
