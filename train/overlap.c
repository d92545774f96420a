/* Whether the traffic of a ring can hide behind its attention: see the header. */
#include "train/overlap.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/comm/layout.h"
#include "train/progress.h"
#include "train/schedule.h"

/* What measuring takes: attention for so long in each pass, in blocks that take at most a part of it, so that
 * they are counted well; a few messages of some MB, fewer where the link is slow. */
#define PASS_SECONDS 0.02
#define BLOCK_SECONDS (PASS_SECONDS / 4.0)
#define LEAST_TOKENS 64
#define MOST_TOKENS 4096
#define LINK_SECONDS 0.03
#define LINK_BYTES ((size_t)2 << 20)
#define MOST_MESSAGES 5

int64_t overlap_tokens(RingPassKind pass, size_t element, int64_t group, double flops, double bandwidth) {
  const AttentionDims head = {.heads = 1, .kv_heads = 1, .head_dim = 1};
  const double work = ring_speed_block_work(&head, 1, pass); /* for a query head, an element and c = 1 */
  const double key_bytes = 2.0 * (double)element;            /* for a key head, likewise */
  const double bytes = pass == RING_BACKWARD ? key_bytes + 2.0 * sizeof(float) : key_bytes;
  return (int64_t)ceil(bytes / work * flops / ((double)group * bandwidth));
}

/* ---------------------------------------------------------------- the line */

/* A text that is being written. */
typedef struct Line {
  char *text;
  size_t bytes;
} Line;

static void append(Line *line, const char *text) {
  const size_t used = strlen(line->text);
  (void)snprintf(line->text + used, line->bytes - used, "%s", text);
}

static void append_count(Line *line, int64_t count) {
  char text[32];
  progress_count(count, text, sizeof text);
  append(line, text);
}

/* Three digits that count, never with an exponent. */
static void append_giga(Line *line, double value) {
  char text[64];
  const double giga = 1e-9 * value;
  const int behind = giga > 0.0 ? 2 - (int)floor(log10(giga)) : 0;
  (void)snprintf(text, sizeof text, "%.*f", behind > 0 ? behind : 0, giga);
  append(line, text);
}

/* The tokens that are needed, and from which speeds that follows. */
static void append_need(Line *line, int64_t group, const OverlapSpeeds *speeds, const int64_t need[2],
                        bool training) {
  append(line, "overlap: a rank needs ");
  append_count(line, need[RING_FORWARD]);
  append(line, " tokens of a sequence forward");
  if (training) {
    append(line, " and ");
    append_count(line, need[RING_BACKWARD]);
    append(line, " backward");
  }
  append(line, " (F ");
  append_giga(line, speeds->flops[RING_FORWARD]);
  if (training) {
    append(line, " and ");
    append_giga(line, speeds->flops[RING_BACKWARD]);
  }
  append(line, " GFLOP/s, B ");
  append_giga(line, speeds->bandwidth);
  append(line, " GB/s, ");
  append_count(line, group);
  append(line,
         group == 1 ? " query head a key head); this run has " : " query heads a key head); this run has ");
}

/* What a rank has of a sequence, and what that hides. */
static void append_stage(Line *line, int64_t length, int ring, const int64_t need[2], bool training) {
  const int64_t tokens = layout_zigzag(length, ring).local_length;
  const bool forward = tokens >= need[RING_FORWARD];
  append_count(line, tokens);
  if (!training) {
    append(line, forward ? ": hidden" : ": not hidden");
    return;
  }
  const bool backward = tokens >= need[RING_BACKWARD];
  if (forward == backward) {
    append(line, forward ? ": both hidden" : ": neither hidden");
  } else {
    append(line, forward ? ": forward hidden, backward not" : ": backward hidden, forward not");
  }
}

/* Room for one more stage, and for saying that there are others. */
static bool has_room(Line *line) {
  if (strlen(line->text) + 160 <= line->bytes) return true;
  append(line, "; and so on");
  return false;
}

static void append_schedule(Line *line, const Config *config, int ring, const int64_t need[2]) {
  for (int64_t step = 0; step < config->train.steps && has_room(line);) {
    const SequenceStage stage = schedule_stage(config, step);
    if (step > 0) {
      append(line, "; after step ");
      append_count(line, step);
      append(line, " ");
    }
    append_stage(line, stage.sequence_length, ring, need, true);
    step = stage.end_step;
  }
}

static void append_contexts(Line *line, const Config *config, int ring, const int64_t need[2]) {
  const IntegerList *contexts = &config->eval.contexts;
  for (int64_t i = 0; i < contexts->count && has_room(line); i++) {
    append(line, i == 0 ? "at context " : "; at context ");
    append_count(line, contexts->values[i]);
    append(line, " ");
    append_stage(line, contexts->values[i], ring, need, false);
  }
}

void overlap_describe(const Config *config, size_t element, const OverlapSpeeds *speeds, bool training,
                      char *text, size_t bytes) {
  const ModelConfig *model = &config->model;
  const int64_t group = model->num_attention_heads / model->num_key_value_heads;
  const int ring = (int)config->parallelism.ring;
  Line line = {.text = text, .bytes = bytes};
  int64_t need[2] = {0};
  text[0] = '\0';
  for (int pass = RING_FORWARD; pass <= (training ? RING_BACKWARD : RING_FORWARD); pass++) {
    need[pass] = overlap_tokens((RingPassKind)pass, element, group, speeds->flops[pass], speeds->bandwidth);
  }
  append_need(&line, group, speeds, need, training);
  if (training) {
    append_schedule(&line, config, ring, need);
  } else {
    append_contexts(&line, config, ring, need);
  }
}

/* ---------------------------------------------------------------- the measurement */

/* Tokens of a block that takes BLOCK_SECONDS at most: a power of two. */
static int64_t tokens_for(const AttentionDims *dims, double flops) {
  int64_t tokens = LEAST_TOKENS;
  while (tokens < MOST_TOKENS &&
         ring_speed_block_work(dims, 2 * tokens, RING_FORWARD) <= flops * BLOCK_SECONDS) {
    tokens *= 2;
  }
  return tokens;
}

/* Blocks grow as long as they take too little time to tell: a GPU shows its speed in large ones only. All
 * ranks have the same speeds and so the same blocks. */
static Status measure_flops(const Rank *rank, const AttentionDims *dims, bool training, double flops[2],
                            Error *error) {
  int64_t tokens = LEAST_TOKENS;
  int64_t wanted = tokens;
  do {
    tokens = wanted;
    TRY(ring_speed_block(rank, dims, tokens, RING_FORWARD, 0.0, &flops[RING_FORWARD], error));
    wanted = tokens_for(dims, flops[RING_FORWARD]);
  } while (wanted > tokens);
  TRY(ring_speed_block(rank, dims, tokens, RING_FORWARD, PASS_SECONDS, &flops[RING_FORWARD], error));
  if (!training) return STATUS_OK;
  return ring_speed_block(rank, dims, tokens, RING_BACKWARD, PASS_SECONDS, &flops[RING_BACKWARD], error);
}

/* As many messages as the first one lets expect in the time. */
static Status measure_bandwidth(Rank *rank, double *bandwidth, Error *error) {
  double seconds = 0.0;
  TRY(ring_speed_message(rank, LINK_BYTES, 1, &seconds, error));
  int count = 1;
  while (count < MOST_MESSAGES && (count + 1) * seconds <= LINK_SECONDS) count++;
  if (count > 1) TRY(ring_speed_message(rank, LINK_BYTES, count, &seconds, error));
  *bandwidth = (double)LINK_BYTES / seconds;
  return STATUS_OK;
}

Status overlap_forecast(const Config *config, Rank *rank, bool training, char *text, size_t bytes,
                        Error *error) {
  const ModelConfig *model = &config->model;
  const int64_t head_dim = model->hidden_size / model->num_attention_heads;
  const AttentionDims dims = {.heads = model->num_attention_heads,
                              .kv_heads = model->num_key_value_heads,
                              .head_dim = head_dim,
                              .scale = (float)(1.0 / sqrt((double)head_dim))};
  OverlapSpeeds speeds = {0};
  if (rank->ring->size == 1) {
    (void)snprintf(text, bytes, "overlap: no ring: no keys and values travel");
    return STATUS_OK;
  }
  TRY(measure_flops(rank, &dims, training, speeds.flops, error));
  TRY(measure_bandwidth(rank, &speeds.bandwidth, error));
  overlap_describe(config, rank->device->ops.elem_size, &speeds, training, text, bytes);
  return STATUS_OK;
}
