/* From the loader's batches to the model's: document starts are gathered over the ring. */
#ifndef RINGGPT_TRAIN_BATCHES_H
#define RINGGPT_TRAIN_BATCHES_H

#include "data/loader.h"
#include "kernels/base/status.h"
#include "kernels/comm/comm.h"
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

/* Describes `batch` to the model. With a document mask, *documents (released by documents_free) holds the
 * starts of all ranks and belongs to *out; without, it stays as it is. Collective over the ring. */
Status batches_to_model(const Config *config, Comm *ring, const Batch *batch, Documents *documents,
                        ModelBatch *out, Error *error);

#endif
