/* The index of the blocks of a compressed file, and its cache beside the file. */
#include "data/block_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "data/little_endian.h"

/* The cache, PATH.index:
 *    0  "RGINDEX" and a zero byte
 *    8  u32   version
 *   12  u32   kind: 1 BGZF, 2 gzip
 *   16  u64   bytes of the compressed file
 *   24  u32   CRC-32 of its first and its last INDEX_END_BYTES
 *   28  u32   0
 *   32  u64   bytes of the expanded data
 *   40  u64   blocks N
 *   48  u64   bytes of the windows W
 *   56  N x { u64 offset, u64 data offset, u32 CRC-32, u32 bits, u32 bytes of window, u32 0 }
 *       W bytes: the windows
 *       u32   CRC-32 of all that is before it
 */
#define INDEX_MAGIC "RGINDEX"
#define INDEX_VERSION 1U
#define INDEX_HEADER_BYTES 56
#define INDEX_POINT_BYTES 32
#define INDEX_END_BYTES 4096
#define INDEX_FILE_MAX ((size_t)1 << 30)

static Status grow(void **block, int64_t bytes, Error *error) {
  void *larger = realloc(*block, (size_t)bytes);
  if (larger == NULL) {
    return fail(error, STATUS_SYSTEM, "no memory left for the index of a shard (%lld bytes)",
                (long long)bytes);
  }
  *block = larger;
  return STATUS_OK;
}

Status block_index_add(BlockIndex *index, const BlockPoint *point, const uint8_t *window, Error *error) {
  if (index->count == index->capacity) {
    const int64_t capacity = index->capacity == 0 ? 64 : 2 * index->capacity;
    void *points = index->points;
    TRY(grow(&points, capacity * (int64_t)sizeof *index->points, error));
    index->points = points;
    index->capacity = capacity;
  }
  if (point->window_bytes > 0) {
    void *windows = index->windows;
    TRY(grow(&windows, index->window_bytes + point->window_bytes, error));
    index->windows = windows;
    memcpy(index->windows + index->window_bytes, window, point->window_bytes);
  }
  index->points[index->count] = *point;
  index->points[index->count].window_offset = index->window_bytes;
  index->window_bytes += point->window_bytes;
  index->count++;
  return STATUS_OK;
}

int64_t block_index_bytes(const BlockIndex *index, int64_t block) {
  const int64_t end = block + 1 < index->count ? index->points[block + 1].data_offset : index->data_bytes;
  return end - index->points[block].data_offset;
}

int64_t block_index_find(const BlockIndex *index, int64_t data_offset) {
  int64_t low = 0;
  int64_t high = index->count;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (index->points[middle].data_offset <= data_offset) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

void block_index_free(BlockIndex *index) {
  free(index->points);
  free(index->windows);
  *index = (BlockIndex){0};
}

/* The checksum of both ends of the compressed file: these hold the number of tokens and the last checksums.
 */
static Status checksum_ends(const File *file, int64_t file_bytes, uint32_t *out, Error *error) {
  uint8_t end[INDEX_END_BYTES];
  const size_t bytes = file_bytes < INDEX_END_BYTES ? (size_t)file_bytes : INDEX_END_BYTES;
  TRY(file_read_exact_at(file, 0, end, bytes, error));
  uLong crc = crc32(0, end, (uInt)bytes);
  TRY(file_read_exact_at(file, file_bytes - (int64_t)bytes, end, bytes, error));
  crc = crc32(crc, end, (uInt)bytes);
  *out = (uint32_t)crc;
  return STATUS_OK;
}

static Status index_path(const File *file, char **out, Error *error) {
  if (asprintf(out, "%s" BLOCK_INDEX_SUFFIX, file->path) < 0) {
    *out = NULL;
    return fail(error, STATUS_SYSTEM, "%s: no memory left for the name of its index", file->path);
  }
  return STATUS_OK;
}

/* Whether the header of a cache of `bytes` bytes is that of `file`, and the sizes in it add up. */
static bool header_fits(const uint8_t *data, size_t bytes, const File *file, BlockKind kind) {
  Error ignored = {0};
  int64_t file_bytes = 0;
  uint32_t ends = 0;
  if (bytes < INDEX_HEADER_BYTES + sizeof(uint32_t)) return false;
  if (memcmp(data, INDEX_MAGIC, sizeof INDEX_MAGIC) != 0 || load_u32(data + 8) != INDEX_VERSION) return false;
  if (load_u32(data + 12) != (uint32_t)kind) return false;
  if (file_size(file, &file_bytes, &ignored) != STATUS_OK || load_u64(data + 16) != (uint64_t)file_bytes) {
    return false;
  }
  if (checksum_ends(file, file_bytes, &ends, &ignored) != STATUS_OK || load_u32(data + 24) != ends) {
    return false;
  }
  if (load_u32(data + bytes - 4) != crc32_z(0, data, bytes - 4)) return false;
  const uint64_t count = load_u64(data + 40);
  const uint64_t window_bytes = load_u64(data + 48);
  return count <= bytes / INDEX_POINT_BYTES && window_bytes <= bytes &&
         bytes == INDEX_HEADER_BYTES + count * INDEX_POINT_BYTES + window_bytes + sizeof(uint32_t);
}

/* Whether every block lies inside the file and is neither empty nor larger than a reader allows. */
static bool points_fit(const BlockIndex *index) {
  if (index->count == 0 ? index->data_bytes != 0 : index->points[0].data_offset != 0) return false;
  for (int64_t block = 0; block < index->count; block++) {
    const BlockPoint *point = &index->points[block];
    const int64_t bytes = block_index_bytes(index, block);
    const bool ascends = block == 0 || point->offset > point[-1].offset;
    if (bytes < 1 || bytes > BLOCK_DATA_MAX || point->bits > 7 || !ascends || point->offset < 0 ||
        point->offset >= index->file_bytes || (point->bits > 0 && point->offset == 0)) {
      return false;
    }
  }
  return true;
}

static bool parse_index(const uint8_t *data, BlockIndex *index) {
  Error ignored = {0};
  const int64_t count = (int64_t)load_u64(data + 40);
  const int64_t window_bytes = (int64_t)load_u64(data + 48);
  const uint8_t *windows = data + INDEX_HEADER_BYTES + count * INDEX_POINT_BYTES;
  index->file_bytes = (int64_t)load_u64(data + 16);
  index->data_bytes = (int64_t)load_u64(data + 32);
  if (index->data_bytes < 0) return false;
  for (int64_t block = 0; block < count; block++) {
    const uint8_t *from = data + INDEX_HEADER_BYTES + block * INDEX_POINT_BYTES;
    const BlockPoint point = {.offset = (int64_t)load_u64(from),
                              .data_offset = (int64_t)load_u64(from + 8),
                              .crc = load_u32(from + 16),
                              .bits = load_u32(from + 20),
                              .window_bytes = load_u32(from + 24)};
    if (point.window_bytes > BLOCK_WINDOW_MAX || point.window_bytes > window_bytes - index->window_bytes) {
      return false;
    }
    if (point.data_offset < 0 || point.data_offset > index->data_bytes) return false;
    if (block_index_add(index, &point, windows + index->window_bytes, &ignored) != STATUS_OK) return false;
  }
  return index->window_bytes == window_bytes && points_fit(index);
}

bool block_index_load(const File *file, BlockKind kind, BlockIndex *index) {
  Error ignored = {0};
  char *path = NULL;
  char *text = NULL;
  size_t bytes = 0;
  bool loaded = false;
  *index = (BlockIndex){0};
  if (index_path(file, &path, &ignored) == STATUS_OK &&
      file_read_whole(path, INDEX_FILE_MAX, &text, &bytes, &ignored) == STATUS_OK) {
    const uint8_t *data = (const uint8_t *)text;
    loaded = header_fits(data, bytes, file, kind) && parse_index(data, index);
  }
  if (!loaded) block_index_free(index);
  free(text);
  free(path);
  return loaded;
}

static void store_index(const BlockIndex *index, BlockKind kind, uint32_t ends, uint8_t *data, size_t bytes) {
  memset(data, 0, bytes);
  memcpy(data, INDEX_MAGIC, sizeof INDEX_MAGIC);
  store_u32(data + 8, INDEX_VERSION);
  store_u32(data + 12, (uint32_t)kind);
  store_u64(data + 16, (uint64_t)index->file_bytes);
  store_u32(data + 24, ends);
  store_u64(data + 32, (uint64_t)index->data_bytes);
  store_u64(data + 40, (uint64_t)index->count);
  store_u64(data + 48, (uint64_t)index->window_bytes);
  uint8_t *to = data + INDEX_HEADER_BYTES;
  for (int64_t block = 0; block < index->count; block++, to += INDEX_POINT_BYTES) {
    const BlockPoint *point = &index->points[block];
    store_u64(to, (uint64_t)point->offset);
    store_u64(to + 8, (uint64_t)point->data_offset);
    store_u32(to + 16, point->crc);
    store_u32(to + 20, point->bits);
    store_u32(to + 24, point->window_bytes);
  }
  if (index->window_bytes > 0) memcpy(to, index->windows, (size_t)index->window_bytes);
  store_u32(data + bytes - 4, (uint32_t)crc32_z(0, data, bytes - 4));
}

Status block_index_save(const File *file, BlockKind kind, const BlockIndex *index, Error *error) {
  Status status = STATUS_OK;
  char *path = NULL;
  uint8_t *data = NULL;
  uint32_t ends = 0;
  const size_t bytes = INDEX_HEADER_BYTES + (size_t)index->count * INDEX_POINT_BYTES +
                       (size_t)index->window_bytes + sizeof(uint32_t);
  TRY_GOTO(checksum_ends(file, index->file_bytes, &ends, error), free_path);
  TRY_GOTO(index_path(file, &path, error), free_path);
  data = malloc(bytes);
  if (data == NULL) {
    status = fail(error, STATUS_SYSTEM, "%s: no memory left for an index of %zu bytes", path, bytes);
    goto free_path;
  }
  store_index(index, kind, ends, data, bytes);
  status = file_replace(path, data, bytes, error);
  free(data);
free_path:
  free(path);
  return status;
}
