/* The JSON header of a safetensors file, from text to checked entries: the part of the reader that meets data
 * of unknown origin. */
#ifndef RINGGPT_CHECKPOINTS_SAFETENSORS_HEADER_H
#define RINGGPT_CHECKPOINTS_SAFETENSORS_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "checkpoints/safetensors.h"
#include "kernels/base/status.h"

#define SAFETENSORS_MAX_HEADER ((int64_t)16 << 20)
#define SAFETENSORS_MAX_TENSORS 100000
#define SAFETENSORS_MAX_NAME 255

/* Parses `text` (size), the header of the file at `path` whose data occupy the bytes [data_begin, data_end).
 * On success *entries is a new array (*count) in order of name, whose names lie in `text`, which is
 * overwritten and must live as long. STATUS_DATA with the reason; STATUS_SYSTEM without memory. */
Status safetensors_parse_header(const char *path, char *text, size_t size, int64_t data_begin,
                                int64_t data_end, SafetensorsEntry **entries, int64_t *count, Error *error);

#endif
