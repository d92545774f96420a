/* The attention blocks in plain C: the version that every other is compared with, and the one for CPUs
 * without a faster version. */
#ifndef RINGGPT_CPU_ATTENTION_REFERENCE_H
#define RINGGPT_CPU_ATTENTION_REFERENCE_H

#include "kernels/ops.h"

/* Elements are floats, or bf16. All buffers want the alignment of a float only. */
extern const AttentionOps attention_reference;
extern const AttentionOps attention_reference_bf16;

#endif
