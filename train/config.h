/* The configuration of a run: what the YAML file says, one struct for each of its sections. The options,
 * their types, ranges and defaults are one table in train/options.c. A Config owns no memory: copying it is
 * enough. */
#ifndef RINGGPT_TRAIN_CONFIG_H
#define RINGGPT_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "model/config.h"

#define CONFIG_TEXT_BYTES 512 /* a text, its terminating zero included */
#define CONFIG_LIST_LENGTH 64 /* entries of a list or of a schedule at most */

typedef enum DeviceKind { DEVICE_KIND_AUTO, DEVICE_KIND_CPU, DEVICE_KIND_CUDA } DeviceKind;
typedef enum TransportKind { TRANSPORT_AUTO, TRANSPORT_LOCAL, TRANSPORT_NCCL, TRANSPORT_MPI } TransportKind;
typedef enum GenerateKind { GENERATE_NONE, GENERATE_MQAR } GenerateKind;
typedef enum Precision { PRECISION_FP32, PRECISION_BF16 } Precision;
typedef enum SchedulerKind {
  SCHEDULER_COSINE,
  SCHEDULER_LINEAR,
  SCHEDULER_CONSTANT,
  SCHEDULER_WSD
} SchedulerKind;

/* Which tokens an evaluation scores, and with what before them (train/windows.h). */
typedef enum EvalMode { EVAL_FULL, EVAL_STRIDED, EVAL_LLAMA_CPP } EvalMode;

typedef struct IntegerList {
  int64_t count;
  int64_t values[CONFIG_LIST_LENGTH];
} IntegerList;

/* Lengths of the sequences by training step: stage i begins at step first_steps[i], ascending from 0. A count
 * of 0 means train.sequence_length throughout. */
typedef struct SequenceSchedule {
  int64_t count;
  int64_t first_steps[CONFIG_LIST_LENGTH];
  int64_t lengths[CONFIG_LIST_LENGTH];
} SequenceSchedule;

typedef struct RunConfig {
  char name[CONFIG_TEXT_BYTES]; /* the file's name without its ending where the file gives none */
  char dir[CONFIG_TEXT_BYTES];  /* runs/<name> where the file gives none */
  int64_t seed;
} RunConfig;

typedef struct DataConfig {
  char train[CONFIG_TEXT_BYTES]; /* a shard or a pattern of shards */
  char val[CONFIG_TEXT_BYTES];   /* likewise; empty: none */
  bool document_mask;            /* attention stays inside a document */
  int64_t end_of_document;       /* token id; -1: what the description beside the shards says, if any */
  bool shuffle;
  int64_t read_ahead;    /* micro-batches prepared ahead of the one in use */
  GenerateKind generate; /* what is trained on in place of shards */
  int64_t mqar_pairs;    /* of key and value in a sequence, at most a quarter of it */
  double mqar_queries;   /* share of the positions behind the pairs that ask for a key */
} DataConfig;

typedef struct ParallelismConfig {
  int64_t ring; /* R: ranks that share a sequence */
  int64_t data; /* rings side by side */
  TransportKind transport;
  double timeout;  /* seconds after which a process that waits for another gives up; 0: never */
  int64_t threads; /* compute threads of a rank; 0: train/threads.h chooses */
} ParallelismConfig;

/* Batch sizes count sequences of sequence_length. A stage with shorter sequences takes proportionally more of
 * them, so that the tokens of a step and of a micro-batch stay the same (train/schedule.h). */
typedef struct TrainConfig {
  int64_t sequence_length;   /* T */
  int64_t micro_batch_size;  /* sequences that one ring computes at once */
  int64_t global_batch_size; /* sequences of a step, over all rings and accumulated micro-batches */
  int64_t steps;
  Precision precision;
  bool recompute;     /* layers are computed again in backward instead of kept */
  int64_t loss_chunk; /* tokens whose logits exist at once */
  int64_t mlp_chunk;  /* tokens whose MLP exists at once; 0: all */
  double dropout;     /* p of model/dropout.h; 0: none */
  SequenceSchedule sequence_schedule;
} TrainConfig;

typedef struct OptimizerConfig {
  double learning_rate; /* the peak */
  double beta1;
  double beta2;
  double eps;
  double weight_decay;
  double clip_grad; /* largest norm of the gradient; 0: not clipped */
} OptimizerConfig;

typedef struct SchedulerConfig {
  SchedulerKind name;
  int64_t warmup_steps;
  double min_lr_ratio; /* final over peak learning rate */
  int64_t decay_steps; /* wsd: length of the final descent; else 0 */
} SchedulerConfig;

typedef struct CheckpointConfig {
  int64_t every;                  /* steps; 0: at the end only */
  int64_t keep;                   /* newest checkpoints that stay */
  char resume[CONFIG_TEXT_BYTES]; /* "auto", "never" or the path of a checkpoint */
} CheckpointConfig;

typedef struct EvalConfig {
  int64_t every; /* steps; 0: never while training */
  IntegerList contexts;
  int64_t tokens; /* per context at most, in whole windows, at least one; 0: all there are */
  EvalMode mode;
  int64_t stride; /* strided: tokens from one window to the next; 0: half a context */
} EvalConfig;

typedef struct LoggingConfig {
  int64_t every; /* steps from one line on the terminal to the next */
} LoggingConfig;

typedef struct Config {
  RunConfig run;
  DeviceKind device;
  ModelConfig model;
  DataConfig data;
  ParallelismConfig parallelism;
  TrainConfig train;
  OptimizerConfig optimizer;
  SchedulerConfig scheduler;
  CheckpointConfig checkpoint;
  EvalConfig eval;
  LoggingConfig logging;
} Config;

/* Reads a configuration: defaults, then the YAML file at `path`, then `count` overrides "section.key=value"
 * in their order; fills in the values that follow from others and checks all (config_check). The value of an
 * override is YAML; that of a text option is taken as it is unless it begins with a quotation mark.
 * Fails with STATUS_NO_INPUT when the file cannot be opened, STATUS_USAGE for an argument that is no
 * override, STATUS_CONFIG with "file:line: ..." or "override '...': ..." for everything else. */
Status config_load(const char *path, char *const overrides[], int64_t count, Config *out, Error *error);

/* Checks what options demand of each other; `source` (the file's name) opens every message. Every option is
 * inside its own range and filled in already. Fails with STATUS_CONFIG. */
Status config_check(const Config *config, const char *source, Error *error);

/* Checks that the ring x data grid has as many ranks as were started. Fails with STATUS_CONFIG. */
Status config_check_world(const Config *config, int64_t world, Error *error);

/* Ranks of the grid: ring x data. */
int64_t config_ranks(const Config *config);

/* Writes every option with its value as YAML that config_load reads back to the same configuration.
 * The caller frees *text. Fails with STATUS_SYSTEM without memory. */
Status config_dump(const Config *config, char **text, Error *error);

#endif
