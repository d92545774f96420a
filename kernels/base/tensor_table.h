/* A table of named tensors that lie one behind the other in a flat array of elements: the one description of
 * the parameters that the model, the optimizer, the gradient reduction and the checkpoints share. */
#ifndef RINGGPT_BASE_TENSOR_TABLE_H
#define RINGGPT_BASE_TENSOR_TABLE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct TensorEntry {
  char name[96];     /* the tensor's Hugging Face name, such as "model.layers.0.mlp.up_proj.weight" */
  int rank;          /* 1 or 2 */
  int64_t shape[2];  /* in memory, row-major; a weight is (outputs, inputs); a vector is {length, 1} */
  bool transposed;   /* a checkpoint holds it as (inputs, outputs), as GPT-2's Conv1D weights are */
  int64_t offset;    /* first element in the flat array */
  int64_t count;     /* elements: shape[0] x shape[1] */
  int group;         /* reduction group: 0 embeddings, 1 + l layer l, L + 1 final norm and head */
  double init_std;   /* standard deviation of the normal start; 0: all elements start at init_value */
  double init_value; /* 1 for the scale of a norm, else 0 */
  bool decay;        /* weight decay applies: matrices yes, vectors no */
} TensorEntry;

typedef struct TensorTable {
  TensorEntry *entries; /* (size), offsets ascending, without holes */
  int64_t size;
  int64_t total; /* elements of all tensors */
} TensorTable;

#endif
