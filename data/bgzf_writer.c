/* BGZF: writing. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "data/bgzf.h"
#include "data/bgzf_format.h"
#include "data/little_endian.h"
#include "kernels/base/memory.h"

/* Members compressed at once, each by one thread. */
#define WRITER_BATCH 32

/* Deflate's level: where the gain ends. 106 MB of C headers as tokens of bytes (212 MB) became 35.1 MB in 1.5
 * s of processor time at level 1, 27.6 MB in 2.5 s at 5, 26.5 MB in 4.1 s at 6, 26.2 MB in 13.5 s at 9. */
#define WRITER_LEVEL 5

typedef struct Member {
  uint8_t data[BGZF_DATA_MAX];
  size_t data_bytes;
  uint8_t packed[BGZF_MEMBER_MAX];
  size_t packed_bytes; /* 0: deflate failed */
  uint32_t crc;
} Member;

struct BgzfWriter {
  File file;
  size_t header_bytes;
  int filled;       /* members of the batch that are full; the next one is being filled */
  Member *members;  /* (WRITER_BATCH) */
  BlockIndex index; /* file_bytes and data_bytes: what was written so far */
};

static void release_writer(BgzfWriter *writer) {
  file_close(&writer->file);
  block_index_free(&writer->index);
  free(writer->members);
  free(writer);
}

/* Compresses one member's data at `level`; 0 stores it. */
static void pack_member(Member *member, int level) {
  const size_t room = BGZF_MEMBER_MAX - BGZF_HEADER_BYTES - BGZF_TRAILER_BYTES;
  z_stream stream = {.next_in = member->data,
                     .avail_in = (uInt)member->data_bytes,
                     .next_out = member->packed + BGZF_HEADER_BYTES,
                     .avail_out = (uInt)room};
  member->packed_bytes = 0;
  if (deflateInit2(&stream, level, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK) return;
  const int result = deflate(&stream, Z_FINISH);
  const size_t bytes = BGZF_HEADER_BYTES + (room - stream.avail_out) + BGZF_TRAILER_BYTES;
  (void)deflateEnd(&stream);
  if (result != Z_STREAM_END) return;
  member->crc = (uint32_t)crc32_z(0, member->data, member->data_bytes);
  member->packed_bytes = bytes;
  memcpy(member->packed, BGZF_HEADER, BGZF_HEADER_BYTES);
  store_u16(member->packed + BGZF_SIZE_OFFSET, (uint16_t)(bytes - 1));
  store_u32(member->packed + bytes - 8, member->crc);
  store_u32(member->packed + bytes - 4, (uint32_t)member->data_bytes);
}

/* Writes a packed member behind the others and enters it in the index. */
static Status append_member(BgzfWriter *writer, const Member *member, Error *error) {
  BlockIndex *index = &writer->index;
  const BlockPoint point = {
      .offset = index->file_bytes, .data_offset = index->data_bytes, .crc = member->crc};
  if (member->packed_bytes == 0) {
    return fail(error, STATUS_SYSTEM, "%s: a block could not be compressed: no memory left",
                writer->file.path);
  }
  TRY(file_write_all(&writer->file, member->packed, member->packed_bytes, error));
  TRY(block_index_add(index, &point, NULL, error));
  index->file_bytes += (int64_t)member->packed_bytes;
  index->data_bytes += (int64_t)member->data_bytes;
  return STATUS_OK;
}

/* Compresses and writes the first `count` members of the batch, which is then empty. */
static Status write_batch(BgzfWriter *writer, int count, Error *error) {
#pragma omp parallel for schedule(dynamic)
  for (int i = 0; i < count; i++) pack_member(&writer->members[i], WRITER_LEVEL);
  for (int i = 0; i < count; i++) {
    TRY(append_member(writer, &writer->members[i], error));
    writer->members[i].data_bytes = 0;
  }
  writer->filled = 0;
  return STATUS_OK;
}

/* Packs the file's header into the batch's first member, which is empty at that moment. */
static const Member *pack_header(BgzfWriter *writer, const void *header) {
  Member *member = &writer->members[0];
  memcpy(member->data, header, writer->header_bytes);
  member->data_bytes = writer->header_bytes;
  pack_member(member, 0);
  return member;
}

Status bgzf_create(const char *path, const void *header, size_t header_bytes, BgzfWriter **out,
                   Error *error) {
  *out = NULL;
  Status status = STATUS_OK;
  void *members = NULL;
  BgzfWriter *writer = calloc(1, sizeof *writer);
  if (writer == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left to write it", path);
  writer->file = FILE_CLOSED;
  writer->header_bytes = header_bytes;
  TRY_GOTO(memory_alloc(WRITER_BATCH, sizeof(Member), "buffers of a shard", &members, error), release);
  writer->members = members;
  TRY_GOTO(file_create(path, &writer->file, error), release);
  TRY_GOTO(append_member(writer, pack_header(writer, header), error), abandon);
  writer->members[0].data_bytes = 0;
  *out = writer;
  return STATUS_OK;
abandon:
  (void)unlink(path);
release:
  release_writer(writer);
  return status;
}

Status bgzf_write(BgzfWriter *writer, const void *data, size_t bytes, Error *error) {
  const uint8_t *next = data;
  while (bytes > 0) {
    Member *member = &writer->members[writer->filled];
    const size_t room = BGZF_DATA_MAX - member->data_bytes;
    const size_t part = bytes < room ? bytes : room;
    memcpy(member->data + member->data_bytes, next, part);
    member->data_bytes += part;
    next += part;
    bytes -= part;
    if (member->data_bytes == BGZF_DATA_MAX) writer->filled++;
    if (writer->filled == WRITER_BATCH) TRY(write_batch(writer, WRITER_BATCH, error));
  }
  return STATUS_OK;
}

/* Writes what is in the batch, the end of the file, and the final header over the first one. */
static Status complete_file(BgzfWriter *writer, const void *header, Error *error) {
  const bool partial = writer->members[writer->filled].data_bytes > 0;
  TRY(write_batch(writer, writer->filled + (partial ? 1 : 0), error));
  TRY(file_write_all(&writer->file, BGZF_END, BGZF_END_BYTES, error));
  writer->index.file_bytes += BGZF_END_BYTES;
  const Member *first = pack_header(writer, header);
  TRY(file_write_all_at(&writer->file, 0, first->packed, first->packed_bytes, error));
  writer->index.points[0].crc = first->crc;
  return STATUS_OK;
}

/* Writes the index beside the finished file. */
static Status save_index(const char *path, const BlockIndex *index, Error *error) {
  File file = FILE_CLOSED;
  TRY(file_open_read(path, &file, error));
  const Status status = block_index_save(&file, BLOCK_BGZF, index, error);
  file_close(&file);
  return status;
}

Status bgzf_finish(BgzfWriter *writer, const void *header, Error *error) {
  Status status = STATUS_OK;
  char *path = strdup(writer->file.path);
  if (path == NULL) {
    status = fail(error, STATUS_SYSTEM, "%s: no memory left for a file name", writer->file.path);
    bgzf_abandon(writer);
    return status;
  }
  TRY_GOTO(complete_file(writer, header, error), remove);
  TRY_GOTO(file_sync_close(&writer->file, error), remove);
  TRY_GOTO(save_index(path, &writer->index, error), remove);
  goto release;
remove:
  (void)unlink(path);
release:
  release_writer(writer);
  free(path);
  return status;
}

void bgzf_abandon(BgzfWriter *writer) {
  if (writer == NULL) return;
  (void)unlink(writer->file.path);
  release_writer(writer);
}
