/* BGZF: reading. */
#define ZLIB_CONST

#include "data/bgzf.h"

#include <string.h>
#include <zlib.h>

#include "data/bgzf_format.h"
#include "data/little_endian.h"

bool bgzf_recognise(const uint8_t *start, size_t bytes) {
  /* Time, flags of the compressor and operating system (bytes 4 to 9) may have any value. */
  return bytes >= BGZF_HEADER_BYTES && memcmp(start, BGZF_HEADER, 4) == 0 &&
         memcmp(start + 10, BGZF_HEADER + 10, 6) == 0;
}

static int64_t member_bytes(const uint8_t *header) {
  return (int64_t)load_u16(header + BGZF_SIZE_OFFSET) + 1;
}

/* Reads the header of the member at `offset` and gives the size of the whole member. */
static Status read_member_header(const File *file, int64_t file_bytes, int64_t offset, int64_t *bytes,
                                 Error *error) {
  uint8_t header[BGZF_HEADER_BYTES];
  const int64_t left = file_bytes - offset;
  const size_t present = left < BGZF_HEADER_BYTES ? (size_t)left : BGZF_HEADER_BYTES;
  TRY(file_read_exact_at(file, offset, header, present, error));
  /* What is left may be less than a header: then it tells a cut header from bytes that never were one. */
  if (memcmp(header, BGZF_HEADER, present < 4 ? present : 4) != 0 ||
      (present == BGZF_HEADER_BYTES && !bgzf_recognise(header, present))) {
    return fail(
        error, STATUS_DATA,
        "%s: no BGZF member begins at byte %lld: the file is damaged, or something was appended to it",
        file->path, (long long)offset);
  }
  if (present < BGZF_HEADER_BYTES || member_bytes(header) > left) {
    return fail(error, STATUS_DATA,
                "%s: is truncated at byte %lld, inside the member that begins at byte %lld", file->path,
                (long long)file_bytes, (long long)offset);
  }
  *bytes = member_bytes(header);
  if (*bytes < BGZF_END_BYTES) {
    return fail(error, STATUS_DATA, "%s: the member at byte %lld gives a size of %lld bytes: damaged",
                file->path, (long long)offset, (long long)*bytes);
  }
  return STATUS_OK;
}

static Status check_end(const File *file, int64_t file_bytes, Error *error) {
  uint8_t end[BGZF_END_BYTES];
  if (file_bytes >= BGZF_END_BYTES) {
    TRY(file_read_exact_at(file, file_bytes - BGZF_END_BYTES, end, sizeof end, error));
    if (memcmp(end, BGZF_END, sizeof end) == 0) return STATUS_OK;
  }
  return fail(
      error, STATUS_DATA,
      "%s: has no end-of-file member before byte %lld: the file is truncated, fetch or prepare it again",
      file->path, (long long)file_bytes);
}

/* Enters the member at `offset` in the index, if it holds data. */
static Status add_member(const File *file, int64_t offset, int64_t bytes, BlockIndex *index, Error *error) {
  uint8_t end[BGZF_END_BYTES]; /* of the member; its trailer closes it */
  const uint8_t *trailer = end + BGZF_END_BYTES - BGZF_TRAILER_BYTES;
  TRY(file_read_exact_at(file, offset + bytes - BGZF_END_BYTES, end, sizeof end, error));
  const BlockPoint point = {.offset = offset, .data_offset = index->data_bytes, .crc = load_u32(trailer)};
  const int64_t data_bytes = load_u32(trailer + 4);
  /* Files that were joined have end-of-file members inside. Another member without data is a damaged one. */
  if (bytes == BGZF_END_BYTES && memcmp(end, BGZF_END, sizeof end) == 0) return STATUS_OK;
  if (data_bytes < 1 || data_bytes > BGZF_MEMBER_MAX) {
    return fail(error, STATUS_DATA,
                "%s: the member at byte %lld promises %lld bytes, which BGZF has not: damaged", file->path,
                (long long)offset, (long long)data_bytes);
  }
  TRY(block_index_add(index, &point, NULL, error));
  index->data_bytes += data_bytes;
  return STATUS_OK;
}

static Status walk_members(const File *file, BlockIndex *index, Error *error) {
  int64_t bytes = 0;
  for (int64_t offset = 0; offset < index->file_bytes; offset += bytes) {
    TRY(read_member_header(file, index->file_bytes, offset, &bytes, error));
    TRY(add_member(file, offset, bytes, index, error));
  }
  return STATUS_OK;
}

Status bgzf_scan(const File *file, BlockIndex *index, Error *error) {
  *index = (BlockIndex){0};
  Status status = STATUS_OK;
  TRY_GOTO(file_size(file, &index->file_bytes, error), free_index);
  TRY_GOTO(walk_members(file, index, error), free_index);
  TRY_GOTO(check_end(file, index->file_bytes, error), free_index);
  return STATUS_OK;
free_index:
  block_index_free(index);
  return status;
}

/* Expands `bytes` of raw deflate data that must give exactly `data_bytes`. */
static bool inflate_exactly(const uint8_t *packed, size_t bytes, uint8_t *data, int64_t data_bytes) {
  z_stream stream = {.next_in = packed, .avail_in = (uInt)bytes};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return false;
  stream.next_out = data;
  stream.avail_out = (uInt)data_bytes;
  const int result = inflate(&stream, Z_FINISH);
  const bool whole = result == Z_STREAM_END && stream.avail_in == 0 && stream.avail_out == 0;
  (void)inflateEnd(&stream);
  return whole;
}

Status bgzf_expand(const File *file, const BlockIndex *index, int64_t block, uint8_t *data, Error *error) {
  uint8_t member[BGZF_MEMBER_MAX];
  const BlockPoint *point = &index->points[block];
  const int64_t data_bytes = block_index_bytes(index, block);
  int64_t bytes = 0;
  TRY(read_member_header(file, index->file_bytes, point->offset, &bytes, error));
  TRY(file_read_exact_at(file, point->offset, member, (size_t)bytes, error));
  const uint8_t *trailer = member + bytes - BGZF_TRAILER_BYTES;
  const size_t packed = (size_t)bytes - BGZF_HEADER_BYTES - BGZF_TRAILER_BYTES;
  const bool whole = load_u32(trailer + 4) == (uint64_t)data_bytes && load_u32(trailer) == point->crc &&
                     inflate_exactly(member + BGZF_HEADER_BYTES, packed, data, data_bytes) &&
                     crc32_z(0, data, (size_t)data_bytes) == point->crc;
  if (!whole) {
    return fail(
        error, STATUS_DATA,
        "%s: the member at byte %lld fails its checksum: the file is damaged, fetch or prepare it again",
        file->path, (long long)point->offset);
  }
  return STATUS_OK;
}
