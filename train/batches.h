/* From the loader's batches to the model's. */
#ifndef RINGGPT_TRAIN_BATCHES_H
#define RINGGPT_TRAIN_BATCHES_H

#include "data/loader.h"
#include "kernels/base/status.h"
#include "model/model.h"
#include "train/config.h"

/* The sequences of key-value recall that the configuration describes. */
RecallOptions batches_recall(const Config *config);

/* The token that ends a document in the shards of `pattern`: data.end_of_document, or what the description
 * beside the shards says; -1: none is known, nor where `pattern` is empty: generated sequences have no
 * documents. STATUS_CONFIG when a document mask is asked for without one. */
Status batches_end_of_document(const Config *config, const char *pattern, int32_t *token, Error *error);

/* Checks that the shards of `pattern` hold at least one sequence of `length` tokens with its last target,
 * before anything is computed. Fails as dataset_open; STATUS_DATA when they are too short. */
Status batches_check_length(const Config *config, const char *pattern, int64_t length, Error *error);

/* How sequences of `length` tokens are cut over a ring, but for the owners of chunks, which come with a
 * batch. */
Layout batches_layout(const Config *config, int64_t length, int ring_size);

/* Describes `batch` to the model. *documents is written and belongs to *out. */
void batches_to_model(const Config *config, const Batch *batch, Documents *documents, ModelBatch *out);

#endif
