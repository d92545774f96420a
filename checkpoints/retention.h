/* Which checkpoints of a run stay and which go. */
#ifndef RINGGPT_CHECKPOINTS_RETENTION_H
#define RINGGPT_CHECKPOINTS_RETENTION_H

#include <stdint.h>

#include "checkpoints/checkpoint.h"

/* Hands a line to the log, if it takes any. */
void warn(const CheckpointLog *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Removes the oldest checkpoints of `directory`, so that `keep` whole ones of step `step` or earlier stay;
 * that of `step` itself has just been verified. What cannot be read or removed is a warning. */
void retention_apply(const char *directory, int64_t keep, int64_t step, const CheckpointLog *log);

#endif
