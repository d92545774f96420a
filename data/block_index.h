/* Where in a compressed file each block of data begins, so that a reader can start at any of them: one index
 * for BGZF members (data/bgzf.h) and for access points in gzip files made by others (data/gzip.h).
 *
 * An index is kept beside its file as PATH.index. That file is only a cache: it is used when it is whole and
 * belongs to the compressed file as it is now (size, and checksum of both its ends; times are not looked at,
 * since copying changes them), otherwise the index is built anew from the compressed file. */
#ifndef RINGGPT_DATA_BLOCK_INDEX_H
#define RINGGPT_DATA_BLOCK_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/file.h"
#include "kernels/base/status.h"

#define BLOCK_INDEX_SUFFIX ".index"

/* The most data that one block may expand to; a reader holds one expanded block. */
#define BLOCK_DATA_MAX ((int64_t)64 << 20)

/* Deflate looks back this far at most. */
#define BLOCK_WINDOW_MAX 32768

typedef enum BlockKind { BLOCK_BGZF = 1, BLOCK_GZIP = 2 } BlockKind;

/* One block: a stretch of the expanded data and the place in the file from which it can be expanded. */
typedef struct BlockPoint {
  int64_t offset; /* byte of the file: BGZF: the member's first; gzip: the first whole byte of the block */
  int64_t data_offset;   /* first byte in the expanded data */
  uint32_t crc;          /* CRC-32 of the block's data */
  uint32_t bits;         /* gzip: bits of the byte before `offset` that belong to the block, 0 to 7 */
  uint32_t window_bytes; /* gzip: data before the block that it refers to, 0 to BLOCK_WINDOW_MAX */
  int64_t window_offset; /* where these begin in `windows` */
} BlockPoint;

/* Start with `BlockIndex index = {0};`, end with block_index_free. */
typedef struct BlockIndex {
  int64_t file_bytes;   /* of the compressed file */
  int64_t data_bytes;   /* of all expanded data */
  int64_t window_bytes; /* of all windows */
  int64_t count;        /* blocks, none of them empty */
  int64_t capacity;     /* points allocated */
  BlockPoint *points;   /* (count), ascending */
  uint8_t *windows;     /* (window_bytes) */
} BlockIndex;

/* Appends a block and its window (point->window_bytes, may be NULL for none). STATUS_SYSTEM. */
Status block_index_add(BlockIndex *index, const BlockPoint *point, const uint8_t *window, Error *error);

/* The size of block `block` when expanded. */
int64_t block_index_bytes(const BlockIndex *index, int64_t block);

/* The block that holds the byte `data_offset` of the expanded data, 0 <= data_offset < data_bytes. */
int64_t block_index_find(const BlockIndex *index, int64_t data_offset);

/* Reads the index beside `file`. False when there is none, or it is damaged, or of another file: *index is
 * then empty and the caller builds it. */
bool block_index_load(const File *file, BlockKind kind, BlockIndex *index);

/* Writes the index beside `file`, durably. Several threads may do so for the same file at once: they write
 * the same bytes, and a reader that meets a half-written index finds its checksum wrong. STATUS_IO. */
Status block_index_save(const File *file, BlockKind kind, const BlockIndex *index, Error *error);

/* Releases what an index holds and empties it. */
void block_index_free(BlockIndex *index);

#endif
