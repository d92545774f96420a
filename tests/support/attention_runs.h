/* Attention in blocks at work: a sequence is cut into runs, each run of queries meets every run of keys,
 * forward and backward, as the ranks of a ring do it. */
#ifndef RINGGPT_SUPPORT_ATTENTION_RUNS_H
#define RINGGPT_SUPPORT_ATTENTION_RUNS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/device.h"

/* In which order the key runs come to a run of queries. */
typedef enum KeyOrder {
  ORDER_ASCENDING,  /* from the first key */
  ORDER_DESCENDING, /* from the last key: unseen runs, the diagonal run, then the older ones */
  ORDER_RING,       /* the queries' own run, then the ones before it, around */
  ORDER_ZIGZAG      /* as on a ring of zigzag ranks: rank r of R brings runs r and 2R-1-r; needs 2R runs */
} KeyOrder;

/* A sequence, how it is cut into runs, and what each token may see. Zero means the plain case. */
typedef struct AttentionCase {
  const char *name;
  int64_t length;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t run; /* length of the runs (the last may be shorter); 0: one run */
  KeyOrder order;
  int64_t key_run;     /* length of the runs of keys where it is another */
  int64_t window;      /* a token sees at most this many keys */
  int64_t document;    /* documents of about this many tokens */
  int64_t blind_start; /* tokens [blind_start, blind_end) see nothing */
  int64_t blind_end;
  int64_t origin;  /* global position of the first token */
  int64_t holes;   /* elements between rows of q, k, v, out and their gradients */
  double q_factor; /* scores grow with it; 0 stands for 1 */
} AttentionCase;

/* The inputs of a case on the host, numbers that the element type has; their rows are `holes` elements longer
 * than their heads. */
typedef struct AttentionInputs {
  AttentionDims dims;
  int64_t q_stride;
  int64_t k_stride;
  ElementType elements;
  int64_t *first_key; /* (T), counted from the first token */
  float *q;           /* (T, H, D) of row stride q_stride */
  float *k;           /* (T, KV, D) of row stride k_stride */
  float *v;           /* as k */
  float *dout;        /* as q */
} AttentionInputs;

/* What an implementation gives, on the host; gradients without holes. */
typedef struct AttentionOutputs {
  float *out; /* (T, H, D) */
  float *lse; /* (H, T) */
  float *dq;  /* (T, H, D) */
  float *dk;  /* (T, KV, D) */
  float *dv;  /* (T, KV, D) */
} AttentionOutputs;

/* Zeroed host memory of `bytes`, aligned to MEMORY_ALIGNMENT; the caller frees it. Ends the process without
 * it. */
void *attention_memory(size_t bytes);

/* Random inputs of unit variance and the first keys of a case. Release with attention_inputs_free. */
AttentionInputs attention_inputs(const AttentionCase *c, ElementType elements);
void attention_inputs_free(AttentionInputs *in);

/* Device memory of the bytes at `host`, or of as many NaN; ends the running test without it. Release with
 * device_free. */
void *attention_to_device(Device *device, size_t bytes, const void *host);
void *attention_dirty(Device *device, size_t bytes);

/* Device memory of `count` elements of the device's type: those of x (count). */
elem *attention_elements(Device *device, int64_t count, const float *x);

/* Runs forward and backward with the device's attention, of the elements of `in`. State and packed keys start
 * as NaN, so that reading what was never written shows. Fails the running test when an operation failed or
 * something between the rows of a gradient was overwritten. Release with attention_outputs_free. */
AttentionOutputs attention_attend(Device *device, const AttentionCase *c, const AttentionInputs *in);
void attention_outputs_free(AttentionOutputs *o);

#endif
