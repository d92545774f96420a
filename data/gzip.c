/* Reading from the middle of an ordinary gzip file. */
#include "data/gzip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* zlib: expect a gzip header and trailer, and check them. */
#define GZIP_BITS (16 + MAX_WBITS)

/* Distance of access points: at least GZIP_SPACING, and no more than about GZIP_POINTS of them, whose windows
 * then take at most 32 MiB of memory. Small enough that reading one sample expands little too much. */
#define GZIP_SPACING ((int64_t)1 << 20)
#define GZIP_POINTS 1024

#define GZIP_INPUT_BYTES 65536

/* An inflating reader of a file: the stream, its input, and where the file goes on. */
typedef struct GzipInput {
  const File *file;
  int64_t file_bytes;
  int64_t next; /* first byte of the file that is not in `input` yet */
  z_stream stream;
  uint8_t input[GZIP_INPUT_BYTES];
} GzipInput;

/* The scan of a whole file. */
typedef struct GzipScan {
  GzipInput in;
  BlockIndex *index;
  int64_t promised; /* bytes of data that the file should hold */
  int64_t spacing;  /* of the access points */
  int64_t produced; /* bytes of data so far */
  BlockPoint point; /* the block under way; its window is in `window` */
  bool at_member;   /* between members: no data of the next one yet */
  uint8_t window[BLOCK_WINDOW_MAX];
  uint8_t output[GZIP_INPUT_BYTES];
} GzipScan;

static Status input_open(GzipInput *in, const File *file, int64_t offset, int window_bits, Error *error) {
  in->file = file;
  in->next = offset;
  in->stream = (z_stream){0};
  TRY(file_size(file, &in->file_bytes, error));
  if (inflateInit2(&in->stream, window_bits) != Z_OK) {
    return fail(error, STATUS_SYSTEM, "%s: no memory left to expand it", file->path);
  }
  return STATUS_OK;
}

/* The byte of the file that the stream takes next. */
static int64_t input_offset(const GzipInput *in) {
  return in->next - (int64_t)in->stream.avail_in;
}

/* Reads the next piece of the file when the last one is used up; at the file's end nothing is added. */
static Status input_fill(GzipInput *in, Error *error) {
  if (in->stream.avail_in > 0) return STATUS_OK;
  const int64_t left = in->file_bytes - in->next;
  const size_t bytes = left < GZIP_INPUT_BYTES ? (size_t)left : GZIP_INPUT_BYTES;
  TRY(file_read_exact_at(in->file, in->next, in->input, bytes, error));
  in->next += (int64_t)bytes;
  in->stream.next_in = in->input;
  in->stream.avail_in = (uInt)bytes;
  return STATUS_OK;
}

/* One step of expanding, with the errors of the data told apart. Returns STATUS_OK with *ended set at the end
 * of a member. */
static Status input_step(GzipInput *in, int flush, bool *ended, Error *error) {
  TRY(input_fill(in, error));
  const bool dry = in->stream.avail_in == 0;
  const uInt room = in->stream.avail_out;
  const int result = inflate(&in->stream, flush);
  *ended = result == Z_STREAM_END;
  if (result == Z_DATA_ERROR || result == Z_NEED_DICT) {
    return fail(error, STATUS_DATA, "%s: damaged at byte %lld (%s): fetch or prepare it again",
                in->file->path, (long long)input_offset(in),
                in->stream.msg != NULL ? in->stream.msg : "it needs a dictionary");
  }
  if (result == Z_MEM_ERROR) return fail(error, STATUS_SYSTEM, "%s: no memory left", in->file->path);
  if (dry && !*ended && in->stream.avail_out == room) {
    return fail(error, STATUS_DATA, "%s: is truncated: it ends at byte %lld in the middle of its data",
                in->file->path, (long long)in->file_bytes);
  }
  return STATUS_OK;
}

/* Goes from the end of a member to the next one; *done at the end of the file. */
static Status next_member(GzipInput *in, bool *done, Error *error) {
  TRY(input_fill(in, error));
  *done = in->stream.avail_in == 0;
  if (!*done && (in->stream.next_in[0] != 0x1f || inflateReset(&in->stream) != Z_OK)) {
    return fail(error, STATUS_DATA, "%s: what follows the gzip data at byte %lld is not gzip: cut it off",
                in->file->path, (long long)input_offset(in));
  }
  return STATUS_OK;
}

static Status expand_head(GzipInput *in, size_t bytes, Error *error) {
  for (bool done = false; in->stream.avail_out > 0 && !done;) {
    bool ended = false;
    TRY(input_step(in, Z_NO_FLUSH, &ended, error));
    if (ended) TRY(next_member(in, &done, error));
  }
  if (in->stream.avail_out > 0) {
    return fail(error, STATUS_DATA, "%s: expands to %zu bytes, less than the %zu of a token shard's header",
                in->file->path, bytes - in->stream.avail_out, bytes);
  }
  return STATUS_OK;
}

Status gzip_head(const File *file, uint8_t *data, size_t bytes, Error *error) {
  Status status = STATUS_OK;
  GzipInput *in = malloc(sizeof *in);
  if (in == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left to expand it", file->path);
  TRY_GOTO(input_open(in, file, 0, GZIP_BITS, error), free_input);
  in->stream.next_out = data;
  in->stream.avail_out = (uInt)bytes;
  status = expand_head(in, bytes, error);
  (void)inflateEnd(&in->stream);
free_input:
  free(in);
  return status;
}

/* Enters the block under way, if it holds data, in the index. */
static Status finish_block(GzipScan *scan, Error *error) {
  if (scan->produced == scan->point.data_offset) return STATUS_OK;
  return block_index_add(scan->index, &scan->point, scan->window, error);
}

/* Ends the block under way and begins the next one here, at the boundary of two deflate blocks. */
static Status begin_block(GzipScan *scan, Error *error) {
  uInt window_bytes = 0;
  TRY(finish_block(scan, error));
  if (inflateGetDictionary(&scan->in.stream, scan->window, &window_bytes) != Z_OK) {
    return fail(error, STATUS_INTERNAL, "%s: zlib gives no window", scan->in.file->path);
  }
  scan->point = (BlockPoint){.offset = input_offset(&scan->in),
                             .data_offset = scan->produced,
                             .crc = (uint32_t)crc32(0, NULL, 0),
                             .bits = (uint32_t)scan->in.stream.data_type & 7U,
                             .window_bytes = window_bytes};
  return STATUS_OK;
}

/* Checks what is known of the size so far: before a lying file can cost time or memory. */
static Status check_size(const GzipScan *scan, Error *error) {
  const File *file = scan->in.file;
  if (scan->produced > scan->promised) {
    return fail(error, STATUS_DATA,
                "%s: expands to more than the %lld bytes that its header promises (at byte %lld of the file)",
                file->path, (long long)scan->promised, (long long)input_offset(&scan->in));
  }
  if (scan->produced - scan->point.data_offset > BLOCK_DATA_MAX) {
    return fail(
        error, STATUS_DATA,
        "%s: is compressed in one piece of more than %lld bytes from byte %lld on, which cannot be read "
        "from the middle: compress it again with gzip, or expand it",
        file->path, (long long)BLOCK_DATA_MAX, (long long)scan->point.offset);
  }
  return STATUS_OK;
}

/* Expands up to the next boundary of deflate blocks or until the output is full. */
static Status scan_step(GzipScan *scan, bool *done, Error *error) {
  z_stream *stream = &scan->in.stream;
  bool ended = false;
  stream->next_out = scan->output;
  stream->avail_out = sizeof scan->output;
  TRY(input_step(&scan->in, Z_BLOCK, &ended, error));
  const size_t bytes = sizeof scan->output - stream->avail_out;
  scan->point.crc = (uint32_t)crc32_z(scan->point.crc, scan->output, bytes);
  scan->produced += (int64_t)bytes;
  TRY(check_size(scan, error));
  if (ended) {
    scan->at_member = true;
    return next_member(&scan->in, done, error);
  }
  /* data_type: 128 at a boundary, 64 in the last block of a member, below them the bits that are not used. */
  const bool boundary = (stream->data_type & 128) != 0 && (stream->data_type & 64) == 0;
  if (boundary && (scan->at_member || scan->produced - scan->point.data_offset >= scan->spacing)) {
    scan->at_member = false;
    return begin_block(scan, error);
  }
  return STATUS_OK;
}

static Status scan_file(GzipScan *scan, Error *error) {
  for (bool done = false; !done;) TRY(scan_step(scan, &done, error));
  TRY(finish_block(scan, error));
  if (scan->produced != scan->promised) {
    return fail(error, STATUS_DATA, "%s: expands to %lld bytes, but its header promises %lld",
                scan->in.file->path, (long long)scan->produced, (long long)scan->promised);
  }
  scan->index->file_bytes = scan->in.file_bytes;
  scan->index->data_bytes = scan->produced;
  return STATUS_OK;
}

Status gzip_scan(const File *file, int64_t data_bytes, BlockIndex *index, Error *error) {
  *index = (BlockIndex){0};
  Status status = STATUS_OK;
  GzipScan *scan = calloc(1, sizeof *scan);
  if (scan == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left to expand it", file->path);
  scan->index = index;
  scan->promised = data_bytes;
  scan->spacing = data_bytes / GZIP_POINTS > GZIP_SPACING ? data_bytes / GZIP_POINTS : GZIP_SPACING;
  scan->at_member = true;
  TRY_GOTO(input_open(&scan->in, file, 0, GZIP_BITS, error), free_scan);
  status = scan_file(scan, error);
  (void)inflateEnd(&scan->in.stream);
  if (status != STATUS_OK) block_index_free(index);
free_scan:
  free(scan);
  return status;
}

/* Puts the decoder where the block begins: the bits of the byte before it, and the data it refers to. */
static bool restore_state(GzipInput *in, const BlockIndex *index, const BlockPoint *point, uint8_t before) {
  const int bits = (int)point->bits;
  if (bits > 0 && inflatePrime(&in->stream, bits, before >> (8 - bits)) != Z_OK) return false;
  if (point->window_bytes == 0) return true;
  return inflateSetDictionary(&in->stream, index->windows + point->window_offset, point->window_bytes) ==
         Z_OK;
}

static Status expand_block(GzipInput *in, const BlockIndex *index, const BlockPoint *point, uint8_t *data,
                           size_t bytes, Error *error) {
  uint8_t before = 0;
  if (point->bits > 0) TRY(file_read_exact_at(in->file, point->offset - 1, &before, 1, error));
  if (!restore_state(in, index, point, before)) {
    return fail(error, STATUS_INTERNAL, "%s: zlib does not take an access point", in->file->path);
  }
  in->stream.next_out = data;
  in->stream.avail_out = (uInt)bytes;
  for (bool ended = false; in->stream.avail_out > 0 && !ended;) {
    TRY(input_step(in, Z_NO_FLUSH, &ended, error));
  }
  if (in->stream.avail_out > 0 || crc32_z(0, data, bytes) != point->crc) {
    return fail(
        error, STATUS_DATA,
        "%s: the data from byte %lld on fail their checksum: the file is damaged, fetch or prepare it "
        "again",
        in->file->path, (long long)point->offset);
  }
  return STATUS_OK;
}

Status gzip_expand(const File *file, const BlockIndex *index, int64_t block, uint8_t *data, Error *error) {
  const BlockPoint *point = &index->points[block];
  Status status = STATUS_OK;
  GzipInput *in = malloc(sizeof *in);
  if (in == NULL) return fail(error, STATUS_SYSTEM, "%s: no memory left to expand it", file->path);
  TRY_GOTO(input_open(in, file, point->offset, -MAX_WBITS, error), free_input);
  status = expand_block(in, index, point, data, (size_t)block_index_bytes(index, block), error);
  (void)inflateEnd(&in->stream);
free_input:
  free(in);
  return status;
}
