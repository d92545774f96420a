/* From the loader's batches to the model's. */
#include "train/batches.h"

#include "data/dataset.h"

RecallOptions batches_recall(const Config *config) {
  return (RecallOptions){.vocab_size = config->model.vocab_size,
                         .pairs = config->data.mqar_pairs,
                         .queries = config->data.mqar_queries,
                         .seed = (uint64_t)config->run.seed};
}

Status batches_end_of_document(const Config *config, const char *pattern, int32_t *token, Error *error) {
  *token = (int32_t)config->data.end_of_document;
  if (*token < 0 && *pattern != '\0') {
    Description description;
    bool found = false;
    TRY(dataset_describe(pattern, &description, &found, error));
    if (found) *token = description.end_of_document;
  }
  if (*token < 0 && config->data.document_mask) {
    return fail(error, STATUS_CONFIG,
                "data.document_mask needs the token that ends a document: set data.end_of_document");
  }
  return STATUS_OK;
}

Status batches_check_length(const Config *config, const char *pattern, int64_t length, Error *error) {
  Dataset *dataset = NULL;
  TRY(dataset_open(pattern, config->model.vocab_size, &dataset, error));
  const int64_t tokens = dataset_tokens(dataset);
  dataset_close(dataset);
  if (tokens > length) return STATUS_OK;
  return fail(
      error, STATUS_DATA,
      "%s: holds %lld tokens, too few for a sequence of %lld and the target of its last token: give more "
      "text or a shorter length",
      pattern, (long long)tokens, (long long)length);
}

Layout batches_layout(const Config *config, int64_t length, int ring_size) {
  return config->data.document_mask ? layout_packed(length, ring_size) : layout_zigzag(length, ring_size);
}

void batches_to_model(const Config *config, const Batch *batch, Documents *documents, ModelBatch *out) {
  *documents = batch_documents(batch);
  *out = (ModelBatch){.sequences = batch->sequences,
                      .sequence_length = batch->layout.sequence_length,
                      .layout = &batch->layout,
                      .first_draw = batch->first_draw,
                      .tokens = batch->tokens,
                      .targets = batch->targets,
                      .documents = config->data.document_mask ? documents : NULL};
}
