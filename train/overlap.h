/* Whether the traffic of a ring can hide behind its attention: the forecast that a run prints at its start.
 *
 * At a hop a rank computes its c queries against c keys, of which the zigzag layout shows half, while as many
 * keys and values travel. Forward that is 2 c^2 D H floating-point operations against 2 c D KV elements,
 * backward 5 c^2 D H against these and as many floats of gradient. So a hop hides when a rank has
 *
 *     forward   c >= e F / (g B)              e bytes an element: 4 F / (g B) in fp32, 2 F / (g B) in bf16
 *     backward  c >= (2 e + 8) / 5 F / (g B)                    3.2 F / (g B)          2.4 F / (g B)
 *
 * tokens of a sequence, with F the FLOP/s of a rank in that pass, B the bytes/s of the link each way and
 * g = H / KV query heads to a key head (H. Liu et al., "Ring attention", 2023, section 3, has the same for
 * whole blocks). Document masks and windows leave less to compute: they need more. */
#ifndef RINGGPT_TRAIN_OVERLAP_H
#define RINGGPT_TRAIN_OVERLAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "train/config.h"
#include "train/grid.h"
#include "train/ring_speed.h"

/* Room for every forecast. */
#define OVERLAP_TEXT_BYTES 1000

/* What a forecast is made from. */
typedef struct OverlapSpeeds {
  double flops[2];  /* F of each RingPassKind; backward only where gradients are computed */
  double bandwidth; /* B */
} OverlapSpeeds;

/* Tokens of a sequence that a rank needs for a hop to hide: the smallest whole number that meets the bound
 * above. `element` is the size of an element in bytes, `group` is g. */
int64_t overlap_tokens(RingPassKind pass, size_t element, int64_t group, double flops, double bandwidth);

/* Writes the forecast as one line: what is needed, and whether the run has it, by stage of its length
 * schedule; without `training` for forward passes at the contexts of its evaluation. */
void overlap_describe(const Config *config, size_t element, const OverlapSpeeds *speeds, bool training,
                      char *text, size_t bytes);

/* Measures F and B, in about 0.1 s, and writes the forecast, or that there is no ring. Collective over the
 * world. Fails as ring_speed_block and ring_speed_message. */
Status overlap_forecast(const Config *config, Rank *rank, bool training, char *text, size_t bytes,
                        Error *error);

#endif
