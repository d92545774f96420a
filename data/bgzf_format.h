/* The constant parts of BGZF, drawn in data/bgzf.h; for its reader and its writer. */
#ifndef RINGGPT_DATA_BGZF_FORMAT_H
#define RINGGPT_DATA_BGZF_FORMAT_H

#include "data/bgzf.h"

/* Where a member's header holds its size minus 1. */
#define BGZF_SIZE_OFFSET 16

/* The header of every member, with a size of 0. */
static const uint8_t BGZF_HEADER[BGZF_HEADER_BYTES] = {0x1f, 0x8b, 8, 4,   0,   0, 0, 0, 0,
                                                       0xff, 6,    0, 'B', 'C', 2, 0, 0, 0};

/* The end-of-file member. */
#define BGZF_END_BYTES 28
static const uint8_t BGZF_END[BGZF_END_BYTES] = {0x1f, 0x8b, 8,    4, 0, 0, 0, 0, 0, 0xff, 6, 0, 'B', 'C',
                                                 2,    0,    0x1b, 0, 3, 0, 0, 0, 0, 0,    0, 0, 0,   0};

#endif
