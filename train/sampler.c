/* From logits to a token.
 *
 * The candidates that top-k and top-p leave are taken from a heap, the most likely first, so that the whole
 * vocabulary is never sorted: V + n log V for n candidates. */
#include "train/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "kernels/base/memory.h"
#include "kernels/base/philox.h"

typedef struct Candidate {
  double weight; /* proportional to the probability: 1 for the most likely token */
  int32_t token;
} Candidate;

struct Sampler {
  SamplerOptions options;
  int64_t vocab;
  Candidate *candidates; /* (vocab) */
};

Status sampler_create(int64_t vocab, const SamplerOptions *options, Sampler **out, Error *error) {
  void *memory = NULL;
  *out = NULL;
  Sampler *sampler = calloc(1, sizeof *sampler);
  if (sampler == NULL) return fail(error, STATUS_SYSTEM, "no memory left for a sampler");
  const Status status = memory_alloc((size_t)vocab, sizeof(Candidate), "candidates", &memory, error);
  *sampler = (Sampler){.options = *options, .vocab = vocab, .candidates = memory};
  if (status != STATUS_OK) {
    sampler_destroy(sampler);
    return status;
  }
  *out = sampler;
  return STATUS_OK;
}

void sampler_destroy(Sampler *sampler) {
  if (sampler == NULL) return;
  free(sampler->candidates);
  free(sampler);
}

/* The most likely token, and of equal ones the first. */
static Status find_largest(const Sampler *sampler, const float *logits, int32_t *token, Error *error) {
  float largest = -INFINITY;
  *token = -1;
  for (int64_t i = 0; i < sampler->vocab; i++) {
    if (isnan(logits[i]) || logits[i] == INFINITY) {
      return fail(error, STATUS_DATA,
                  "the model's logit of token %lld is %s: its weights are damaged, or too large for float32",
                  (long long)i, isnan(logits[i]) ? "not a number" : "infinite");
    }
    if (logits[i] > largest) {
      largest = logits[i];
      *token = (int32_t)i;
    }
  }
  if (*token >= 0) return STATUS_OK;
  return fail(error, STATUS_DATA, "the model's logits are all -infinity: its weights are damaged");
}

/* ---------------------------------------------------------------- candidates */

static bool comes_first(const Candidate *a, const Candidate *b) {
  return a->weight != b->weight ? a->weight > b->weight : a->token < b->token;
}

/* Lets the entry at `at` sink to its place in the heap. */
static void sift_down(Candidate *heap, int64_t size, int64_t at) {
  const Candidate moved = heap[at];
  for (int64_t child = 2 * at + 1; child < size; child = 2 * at + 1) {
    if (child + 1 < size && comes_first(&heap[child + 1], &heap[child])) child++;
    if (!comes_first(&heap[child], &moved)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = moved;
}

/* Takes the first of the `size` candidates off the heap and puts it into the entry that becomes free, the
 * last one. */
static Candidate take_first(Candidate *heap, int64_t size) {
  const Candidate first = heap[0];
  heap[0] = heap[size - 1];
  heap[size - 1] = first;
  sift_down(heap, size - 1, 0);
  return first;
}

/* Fills in the candidates with the tokens that can come; returns their number and the sum of their weights.
 */
static int64_t fill(Sampler *sampler, const float *logits, float largest, double *sum) {
  int64_t count = 0;
  *sum = 0.0;
  for (int64_t i = 0; i < sampler->vocab; i++) {
    const double weight = exp(((double)logits[i] - (double)largest) / sampler->options.temperature);
    if (weight == 0.0) continue;
    sampler->candidates[count++] = (Candidate){.weight = weight, .token = (int32_t)i};
    *sum += weight;
  }
  return count;
}

/* Cuts the `count` candidates by top-k and top-p; those that stay are the last *kept ones of the array, and
 * the most likely the very last. *sum: of all weights; it becomes that of those that stay. */
static void cut(const Sampler *sampler, int64_t count, int64_t *kept, double *sum) {
  const SamplerOptions *options = &sampler->options;
  Candidate *heap = sampler->candidates;
  const bool by_number = options->top_k > 0 && options->top_k < count;
  const int64_t most = by_number ? options->top_k : count;
  int64_t left = count;
  for (int64_t i = count / 2 - 1; i >= 0; i--) sift_down(heap, count, i);
  if (by_number) {
    *sum = 0.0;
    for (int64_t i = 0; i < most; i++) *sum += take_first(heap, left--).weight;
  }
  *kept = most;
  if (options->top_p == 1.0) return;
  const double enough = options->top_p * *sum;
  double reached = 0.0;
  for (*kept = 0; *kept < most && (*kept == 0 || reached < enough); (*kept)++) {
    reached += by_number ? heap[count - 1 - *kept].weight : take_first(heap, left--).weight;
  }
  *sum = reached;
}

/* ---------------------------------------------------------------- the draw */

/* A number of 53 random bits in [0, 1). */
static double draw_uniform(uint64_t seed, uint64_t number) {
  uint32_t words[4];
  philox_draw(seed, PHILOX_SAMPLING, 0, number, words);
  const uint64_t bits = (uint64_t)words[0] << 21 | words[1] >> 11;
  return (double)bits * 0x1p-53;
}

Status sampler_draw(Sampler *sampler, const float *logits, uint64_t number, int32_t *token, Error *error) {
  const SamplerOptions *options = &sampler->options;
  double sum = 0.0;
  TRY(find_largest(sampler, logits, token, error));
  if (options->temperature == 0.0) return STATUS_OK;
  const int32_t most_likely = *token;
  const int64_t count = fill(sampler, logits, logits[most_likely], &sum);
  int64_t kept = count;
  if (options->top_k > 0 || options->top_p < 1.0) {
    cut(sampler, count, &kept, &sum);
    /* Where all stay they come in their own order, so that a cut that cuts nothing changes no draw. */
    if (kept == count) (void)fill(sampler, logits, logits[most_likely], &sum);
  }
  const double target = draw_uniform(options->seed, number) * sum;
  /* From the end, where a cut has put those that stay, the most likely one last. Rounding must not let the
     walk end without one. */
  double reached = 0.0;
  for (int64_t i = count - 1; i >= count - kept; i--) {
    *token = sampler->candidates[i].token;
    reached += sampler->candidates[i].weight;
    if (reached > target) break;
  }
  return STATUS_OK;
}
