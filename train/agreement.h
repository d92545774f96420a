/* That all ranks were given the same. Ranks that are processes read their configuration and data on their own
 * hosts: what differs there would train on without a word and give wrong weights. */
#ifndef RINGGPT_TRAIN_AGREEMENT_H
#define RINGGPT_TRAIN_AGREEMENT_H

#include "kernels/base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/device.h"
#include "train/config.h"

/* Compares this rank's program and configuration, every option of it, with those of rank 0. Collective.
 * STATUS_CONFIG on a rank with others: the message names the first option that differs, and both values. */
Status agreement_config(Comm *world, const Config *config, Error *error);

/* Compares how this rank's device lays out what travels in the ring (AttentionOps.name) with that of rank 0.
 * Collective. STATUS_CONFIG on a rank with another: the message names both and what to do. */
Status agreement_device(Comm *world, const Device *device, Error *error);

/* Compares the shards that `pattern` names here with those that rank 0 finds (dataset_crc32). Collective.
 * STATUS_DATA on a rank with others, naming the pattern and both numbers of tokens; also as dataset_open.
 *
 * A rank that fails in one of the two must abort `world`, so that the others do not wait for it. */
Status agreement_data(Comm *world, const Config *config, const char *pattern, Error *error);

#endif
