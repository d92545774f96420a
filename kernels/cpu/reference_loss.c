/* Reference operations: cross-entropy and its gradient over rows of logits. */
#include <math.h>

#include "kernels/cpu/poll.h"
#include "kernels/cpu/reference.h"
#include "kernels/device.h"

/* The loss of one row of at least one logit, (max - target logit) + log sum exp(logit - max): two terms that
 * are both accurate where the loss is small. Stores the maximum and the sum for the gradient. */
static double row_loss(int64_t vocab, const float *logits, int64_t target, double *maximum, double *sum) {
  float largest = logits[0];
  for (int64_t j = 1; j < vocab; j++) largest = fmaxf(largest, logits[j]);
  double total = exp((double)logits[0] - (double)largest);
  for (int64_t j = 1; j < vocab; j++) total += exp((double)logits[j] - (double)largest);
  *maximum = (double)largest;
  *sum = total;
  return ((double)largest - (double)logits[target]) + log(total);
}

static void row_gradient(int64_t vocab, float *logits, int64_t target, double maximum, double sum) {
  for (int64_t j = 0; j < vocab; j++) {
    const double probability = exp((double)logits[j] - maximum) / sum;
    logits[j] = (float)(probability - (j == target ? 1.0 : 0.0));
  }
}

void reference_cross_entropy(Device *device, int64_t n, int64_t vocab, elem *logits, const int32_t *targets,
                             bool gradient, float *nll) {
  float *rows = logits; /* (n, vocab) */
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, vocab);
    float *row = rows + i * vocab;
    if (targets[i] == IGNORED_TARGET) {
      nll[i] = 0.0F;
      for (int64_t j = 0; gradient && j < vocab; j++) row[j] = 0.0F;
      continue;
    }
    double maximum = 0;
    double sum = 0;
    nll[i] = (float)row_loss(vocab, row, targets[i], &maximum, &sum);
    if (gradient) row_gradient(vocab, row, targets[i], maximum, sum);
  }
}
