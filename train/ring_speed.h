/* How fast the ranks of a ring compute attention, and how fast their links move bytes: measured on the grid
 * of the run, by all ranks at the same time. For the forecast at the start of a run (train/overlap.h) and for
 * the benchmark of the ring. */
#ifndef RINGGPT_TRAIN_RING_SPEED_H
#define RINGGPT_TRAIN_RING_SPEED_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/ops.h"
#include "train/grid.h"

/* A direction of attention. */
typedef enum RingPassKind { RING_FORWARD, RING_BACKWARD } RingPassKind;

/* Floating-point operations of one block of a hop: `tokens` queries against as many keys of another rank, of
 * which the zigzag layout shows half. Forward has two products, backward five. */
double ring_speed_block_work(const AttentionDims *dims, int64_t tokens, RingPassKind pass);

/* FLOP/s of a rank in blocks of `tokens` (even, >= 2) computed one behind the other for `seconds` at least,
 * with nothing under way, while every rank does the same: that of the fastest rank, the same on all.
 * Collective over the world. STATUS_SYSTEM without memory; or a failure of the device. */
Status ring_speed_block(const Rank *rank, const AttentionDims *dims, int64_t tokens, RingPassKind pass,
                        double seconds, double *flops, Error *error);

/* Seconds that a message of `bytes` takes from each rank of a ring to the next when nothing is computed:
 * median of `count` (>= 1) messages behind a first one, of the slowest rank, the same on all. What is sent
 * counts as COMM_CONTROL. Collective over the world; rings of more than one rank. Fails as ring_speed_block,
 * or as messages fail. */
Status ring_speed_message(Rank *rank, size_t bytes, int count, double *seconds, Error *error);

/* Uniform numbers in [-1, 1) to x (count), elements of the device's type; another `stream` gives others. */
Status ring_speed_fill(Device *device, uint32_t stream, int64_t count, elem *x, Error *error);

#endif
