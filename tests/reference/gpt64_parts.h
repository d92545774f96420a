/* The parameters of the reference model by their place in the equations: shared by its two sources. */
#ifndef RINGGPT_REFERENCE_GPT64_PARTS_H
#define RINGGPT_REFERENCE_GPT64_PARTS_H

#include "tests/reference/equations64.h"
#include "tests/reference/gpt64.h"

/* Linear layers that read the same input; their outputs lie side by side in the columns of one matrix. */
typedef struct Fan {
  RefLinear linear[3];
  int count;
} Fan;

typedef struct LayerParts {
  RefNorm attention_norm;
  Fan attention_in; /* GPT-2: c_attn; Llama: q, k, v. Together (H + 2 KV) D outputs. */
  RefLinear attention_out;
  RefNorm mlp_norm;
  Fan mlp_in; /* GPT-2: c_fc, F outputs; Llama: gate, up, 2 F outputs. */
  RefLinear mlp_out;
} LayerParts;

struct Gpt64Parts {
  const Gpt64Tensor *embedding;
  const Gpt64Tensor *positions; /* NULL for Llama */
  LayerParts *layers;           /* (L) */
  RefNorm final_norm;
  RefLinear head;
};

#endif
