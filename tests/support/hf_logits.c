/* A model from a directory of Hugging Face's kind, put to work on some tokens. */
#include "tests/support/hf_logits.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoints/checkpoint.h"
#include "kernels/base/memory.h"
#include "kernels/comm/comm.h"
#include "kernels/cpu/cpu_device.h"
#include "model/decoder.h"
#include "model/model.h"
#include "train/hf_model.h"

enum { CHUNK = 11, LOSS_CHUNK = 7 };

static Status copy_logits(void *context, int64_t first, int64_t count, const float *logits, Error *error) {
  const HfLogits *out = context;
  (void)error;
  memcpy(out->logits + first * out->vocab, logits, (size_t)(count * out->vocab) * sizeof(float));
  return STATUS_OK;
}

static Status decode(Model *model, int64_t count, const int32_t *tokens, HfLogits *out, Error *error) {
  const DecoderOptions options = {.most_tokens = count, .chunk = CHUNK};
  Decoder *decoder = NULL;
  void *memory = NULL;
  TRY(memory_alloc((size_t)(count * out->vocab), sizeof(float), "logits", &memory, error));
  out->logits = memory;
  TRY(decoder_create(model, &options, &decoder, error));
  const Status status = decoder_append_visit(decoder, count, tokens, copy_logits, out, error);
  decoder_destroy(decoder);
  return status;
}

/* Over all tokens, as transformers has it, whose scaled positions may depend on how many there are; the last
 * one has no target. */
static Status evaluate(Model *model, int64_t count, const int32_t *tokens, HfLogits *out, Error *error) {
  void *memory[2] = {NULL};
  TRY(memory_alloc((size_t)count, sizeof(int32_t), "targets", &memory[0], error));
  int32_t *targets = memory[0];
  memcpy(targets, tokens + 1, (size_t)(count - 1) * sizeof *targets);
  targets[count - 1] = IGNORED_TARGET;
  const ModelBatch batch = {.sequences = 1, .sequence_length = count, .tokens = tokens, .targets = targets};
  Status status = STATUS_OK;
  TRY_GOTO(memory_alloc((size_t)count, sizeof(float), "losses", &memory[1], error), done);
  const float *nll = memory[1];
  TRY_GOTO(model_evaluate(model, &batch, memory[1], error), done);
  out->loss = 0.0;
  for (int64_t i = 0; i < count; i++) out->loss += (double)nll[i] / (double)(count - 1);
done:
  free(memory[1]);
  free(targets);
  return status;
}

static Status run(const char *directory, Device *device, Comm *comm, int64_t count, const int32_t *tokens,
                  HfLogits *out, Error *error) {
  ModelOptions options = {.loss_chunk = LOSS_CHUNK};
  Model *model = NULL;
  Status status = STATUS_OK;
  TRY(hf_model_read(directory, &options.config, error));
  out->vocab = options.config.vocab_size;
  TRY(model_create(device, comm, &options, &model, error));
  TRY_GOTO(checkpoint_load_weights(directory, model_table(model), model_weights(model), comm, error), done);
  TRY_GOTO(decode(model, count, tokens, out, error), done);
  TRY_GOTO(evaluate(model, count, tokens, out, error), done);
done:
  model_destroy(model);
  return status;
}

Status hf_logits_run(const char *directory, int64_t count, const int32_t *tokens, HfLogits *out,
                     Error *error) {
  Comm *comm = NULL;
  Device *device = NULL;
  Status status = STATUS_OK;
  *out = (HfLogits){0};
  TRY(comm_local_create(1, &comm, error));
  TRY_GOTO(cpu_device_create(1, ELEMENT_F32, &device, error), done);
  TRY_GOTO(run(directory, device, comm, count, tokens, out, error), done);
done:
  device_destroy(device);
  comm_destroy(comm);
  if (status != STATUS_OK) {
    free(out->logits);
    out->logits = NULL;
  }
  return status;
}
