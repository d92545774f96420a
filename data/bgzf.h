/* BGZF: gzip files that can be read from any place. A file is a sequence of whole gzip members of at most
 * 64 KiB, so that `gunzip` reads it as usual (the SAM specification, section 4.1).
 *
 * A member:
 *    0  1f 8b 08 04 00 00 00 00 00 ff   gzip header with an extra field
 *   10  06 00                           length of the extra field
 *   12  42 43 02 00                     its subfield "BC" of two bytes
 *   16  u16   BSIZE: bytes of the whole member, minus 1
 *   18        raw deflate data
 *       u32   CRC-32 of the data
 *       u32   ISIZE: bytes of the data
 *
 * The last member is empty and always the same 28 bytes; a file without it is truncated. The first member
 * that we write holds the file's header alone, stored and not compressed, so that it can be changed in place
 * when the number of tokens is known. */
#ifndef RINGGPT_DATA_BGZF_H
#define RINGGPT_DATA_BGZF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/block_index.h"
#include "kernels/base/file.h"
#include "kernels/base/status.h"

#define BGZF_HEADER_BYTES 18
#define BGZF_TRAILER_BYTES 8
#define BGZF_MEMBER_MAX 65536

/* Data per member that we write: even data that deflate cannot shrink then fits BGZF_MEMBER_MAX. */
#define BGZF_DATA_MAX 65280

typedef struct BgzfWriter BgzfWriter;

/* Creates a file whose first member holds `header` (header_bytes, 1 to BGZF_DATA_MAX). STATUS_IO. The caller
 * ends it with bgzf_finish or bgzf_abandon. */
Status bgzf_create(const char *path, const void *header, size_t header_bytes, BgzfWriter **out, Error *error);

/* Appends data. Compression runs on the threads of OpenMP. STATUS_IO; the file can then only be abandoned. */
Status bgzf_write(BgzfWriter *writer, const void *data, size_t bytes, Error *error);

/* Writes what is left and the end-of-file member, replaces the header by one of the same length, syncs the
 * file, and writes its index beside it. Releases the writer, also on failure: the file is then removed.
 * STATUS_IO. */
Status bgzf_finish(BgzfWriter *writer, const void *header, Error *error);

/* Gives up a file: removes it and releases the writer. NULL is allowed. */
void bgzf_abandon(BgzfWriter *writer);

/* Whether a file that starts with these bytes is BGZF. */
bool bgzf_recognise(const uint8_t *start, size_t bytes);

/* Builds the index of a file by walking from member to member, without expanding them. STATUS_DATA when the
 * chain of members is broken, truncated or followed by something else. */
Status bgzf_scan(const File *file, BlockIndex *index, Error *error);

/* Expands one block of the index into data (block_index_bytes) and checks header, length and CRC-32.
 * STATUS_DATA. */
Status bgzf_expand(const File *file, const BlockIndex *index, int64_t block, uint8_t *data, Error *error);

#endif
