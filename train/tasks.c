/* Tasks that only a model which uses its context can do. */
#include "train/tasks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/recall.h"
#include "kernels/base/arena.h"
#include "kernels/base/memory.h"
#include "kernels/ops.h"
#include "train/batches.h"
#include "train/perplexity.h"
#include "train/progress.h"
#include "train/task_text.h"

/* One rank at work on one context. */
typedef struct Work {
  const Config *config;
  const Rank *rank;
  Model *model;
  EvalWatch *watch; /* NULL: none */
  const TaskOptions *options;
  int64_t context;
  Layout layout;
  int32_t *tokens;      /* (local length) */
  int32_t *targets;     /* (local length) */
  int32_t *predictions; /* (local length) */
  int32_t *sample;      /* (context + 1) of the text tasks: the whole of it */
} Work;

const char *task_name(TaskKind kind) {
  static const char *const names[TASK_KINDS] = {
      [TASK_NEEDLE] = "needle", [TASK_PASSKEY] = "passkey", [TASK_MQAR] = "mqar"};
  return names[kind];
}

double task_depth(int64_t row, int64_t depths) {
  return depths > 1 ? (double)row / (double)(depths - 1) : 0.5;
}

Status task_check(const Config *config, TaskKind kind, Error *error) {
  const RecallOptions recall = batches_recall(config);
  if (kind == TASK_NEEDLE && *config->data.val == '\0')
    return fail(error, STATUS_CONFIG,
                "--task needle hides the needle in text of data.val, which names no shards");
  if (kind != TASK_MQAR) return STATUS_OK;
  if (recall.pairs > recall_keys(recall.vocab_size))
    return fail(error, STATUS_CONFIG,
                "--task mqar: data.mqar_pairs (%" PRId64 ") must be at most the %" PRId64
                " keys of a vocabulary of %" PRId64,
                recall.pairs, recall_keys(recall.vocab_size), recall.vocab_size);
  for (int64_t i = 0; i < config->eval.contexts.count; i++)
    if (config->eval.contexts.values[i] < RECALL_LEAST_LENGTH)
      return fail(error, STATUS_CONFIG, "--task mqar needs a context of at least %d tokens, not %" PRId64,
                  RECALL_LEAST_LENGTH, config->eval.contexts.values[i]);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- any task */

static void add_score(TaskScore *score, bool right) {
  score->asked += 1;
  score->right += right ? 1 : 0;
}

size_t task_bytes(int64_t context, int ring_size) {
  const Layout layout = layout_zigzag(context, ring_size);
  const size_t rows = arena_times(3, (size_t)layout.local_length); /* tokens, targets, predictions */
  return arena_times(arena_plus(rows, (size_t)context + 1), sizeof(int32_t));
}

static void place_rows(Work *work, void *memory) {
  work->layout = layout_zigzag(work->context, work->rank->ring->size);
  work->tokens = memory;
  work->targets = work->tokens + work->layout.local_length;
  work->predictions = work->targets + work->layout.local_length;
  work->sample = work->predictions + work->layout.local_length;
}

/* The work of one ring in `samples` samples of a context. */
static double work_of(const Config *config, const Model *model, int64_t context, int64_t samples) {
  const Windows windows = {.mode = EVAL_FULL,
                           .context = context,
                           .stride = context,
                           .count = samples,
                           .tokens = samples * context + 1};
  return perplexity_work(model, &config->model, &windows, 1);
}

/* Pairs of a query of this rank and a key before it, of all layers and heads. */
static int64_t own_pairs(const Work *work) {
  const ModelConfig *model = &work->config->model;
  int64_t pairs = 0;
  for (Run run = {0}; layout_next_run(&work->layout, 0, work->rank->ring->rank, &run);) {
    const int64_t behind = run.start + run.length;
    const int64_t end = behind < work->context ? behind : work->context;
    if (run.start < end) pairs += (end * (end + 1) - run.start * (run.start + 1)) / 2;
  }
  return pairs * model->num_attention_heads * model->num_hidden_layers;
}

/* Predicts sample `number` of `count`. */
static Status predict(Work *work, int64_t number, int64_t count, Error *error) {
  const ModelBatch batch = {
      .sequences = 1, .sequence_length = work->context, .tokens = work->tokens, .targets = work->targets};
  if (work->watch != NULL) {
    char what[96];
    char context[32];
    progress_count(work->context, context, sizeof context);
    (void)snprintf(what, sizeof what, "context %s, sample %" PRId64 " of %" PRId64, context, number + 1,
                   count);
    eval_watch_window(work->watch, work_of(work->config, work->model, work->context, 1), own_pairs(work),
                      what);
  }
  TRY(model_predict(work->model, &batch, work->predictions, error));
  if (work->watch != NULL) eval_watch_window_end(work->watch);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- needle and passkey */

/* This rank's share of the sample, whose last `answers` tokens have to be predicted. */
static void cut_sample(Work *work, int64_t answers) {
  int64_t row = 0;
  for (Run run = {0}; layout_next_run(&work->layout, 0, work->rank->ring->rank, &run);) {
    for (int64_t position = run.start; position < run.start + run.length; position++, row++) {
      const bool inside = position < work->context;
      const bool asks = inside && position >= work->context - answers;
      work->tokens[row] = inside ? work->sample[position] : 0;
      work->targets[row] = asks ? work->sample[position + 1] : IGNORED_TARGET;
    }
  }
}

/* Sums over all ranks that grading needs, exact in double: wrong[item] tokens of an answer. */
typedef struct TextSums {
  int64_t items;
  double *wrong;    /* (items) sample s of depth d is item d samples + s; its tokens that are wrong */
  double *answered; /* (items) its tokens that were asked for */
} TextSums;

static Status run_item(Work *work, TaskText *text, int64_t item, TextSums *sums, Error *error) {
  const TaskOptions *options = work->options;
  const TaskTextPlace place = {.context = work->context,
                               .sample = item % options->samples,
                               .depth = task_depth(item / options->samples, options->depths)};
  int64_t answers = 0;
  TRY(task_text_sample(text, &place, work->sample, &answers, error));
  cut_sample(work, answers);
  TRY(predict(work, item, sums->items, error));
  for (int64_t i = 0; i < work->layout.local_length; i++) {
    if (work->targets[i] == IGNORED_TARGET) continue;
    sums->answered[item] += 1.0;
    sums->wrong[item] += work->predictions[i] != work->targets[i] ? 1.0 : 0.0;
  }
  return STATUS_OK;
}

static void grade(const Work *work, const TextSums *sums, TaskResult *result) {
  for (int64_t item = 0; item < sums->items; item++) {
    const bool right = sums->wrong[item] == 0.0;
    add_score(&result->rows[item / work->options->samples], right);
    add_score(&result->total, right);
    result->tokens.asked += (int64_t)sums->answered[item];
    result->tokens.right += (int64_t)(sums->answered[item] - sums->wrong[item]);
  }
}

static Status run_items(Work *work, TaskText *text, TextSums *sums, Error *error) {
  const Rank *rank = work->rank;
  for (int64_t item = rank->data_rank; item < sums->items; item += rank->data_size) {
    TRY(run_item(work, text, item, sums, error));
  }
  return STATUS_OK;
}

static Status run_text(Work *work, TaskResult *result, Error *error) {
  const Config *config = work->config;
  const TaskOptions *options = work->options;
  const TaskTextOptions text_options = {.kind = options->kind == TASK_NEEDLE ? TASK_TEXT_NEEDLE
                                                                             : TASK_TEXT_PASSKEY,
                                        .tokenizer = options->tokenizer,
                                        .pattern = config->data.val,
                                        .vocab_size = config->model.vocab_size,
                                        .seed = (uint64_t)config->run.seed};
  TextSums sums = {.items = options->depths * options->samples};
  Status status = STATUS_OK;
  TaskText *text = NULL;
  void *memory = NULL;
  TRY_GOTO(task_text_open(&text_options, &text, error), done);
  TRY_GOTO(memory_alloc(2 * (size_t)sums.items, sizeof(double), "answers of a task", &memory, error), done);
  sums.wrong = memory;
  sums.answered = sums.wrong + sums.items;
  TRY_GOTO(run_items(work, text, &sums, error), done);
  TRY_GOTO(comm_all_reduce(work->rank->world, COMM_F64, COMM_SUM, sums.wrong, 2 * sums.items, error), done);
  grade(work, &sums, result);
done:
  free(memory);
  task_text_close(text);
  return status;
}

/* ---------------------------------------------------------------- key-value recall */

/* Whether this rank holds both halves of a pair. */
static bool is_own(const Work *work, int64_t pair) {
  bool key = false;
  bool value = false;
  for (Run run = {0}; layout_next_run(&work->layout, 0, work->rank->ring->rank, &run);) {
    const int64_t end = run.start + run.length;
    key = key || (2 * pair >= run.start && 2 * pair < end);
    value = value || (2 * pair + 1 >= run.start && 2 * pair + 1 < end);
  }
  return key && value;
}

/* The row of a distance: the place of its highest bit. */
static int row_of(int64_t distance) {
  int row = 0;
  while (distance >> 1 > 0) {
    distance >>= 1;
    row++;
  }
  return row;
}

static void grade_recall(const Work *work, const RecallSequence *sequence, TaskResult *result) {
  int64_t i = 0;
  for (Run run = {0}; layout_next_run(&work->layout, 0, work->rank->ring->rank, &run);) {
    for (int64_t position = run.start; position < run.start + run.length; position++, i++) {
      if (work->targets[i] == IGNORED_TARGET) continue;
      const int64_t pair = recall_asked(sequence, position);
      const bool right = work->predictions[i] == work->targets[i];
      add_score(&result->rows[row_of(position - (2 * pair + 1))], right);
      add_score(is_own(work, pair) ? &result->own : &result->remote, right);
      add_score(&result->total, right);
    }
  }
}

static Status run_recall_sample(Work *work, int64_t number, TaskResult *result, Error *error) {
  const RecallOptions recall = batches_recall(work->config);
  const RecallSequence sequence = recall_sequence(&recall, RECALL_HELD_OUT + number, work->context);
  int64_t row = 0;
  for (Run run = {0}; layout_next_run(&work->layout, 0, work->rank->ring->rank, &run);) {
    recall_fill(&sequence, run.start, run.length, work->tokens + row, work->targets + row);
    row += run.length;
  }
  TRY(predict(work, number, work->options->samples, error));
  grade_recall(work, &sequence, result);
  return STATUS_OK;
}

static Status reduce_recall(const Work *work, TaskResult *result, Error *error) {
  enum { OWN = TASK_ROWS, REMOTE, TOTAL, SCORES };
  TaskScore scores[SCORES];
  int64_t numbers[2 * SCORES];
  for (int r = 0; r < TASK_ROWS; r++) scores[r] = result->rows[r];
  scores[OWN] = result->own;
  scores[REMOTE] = result->remote;
  scores[TOTAL] = result->total;
  for (int i = 0; i < SCORES; i++) {
    numbers[2 * i] = scores[i].asked;
    numbers[2 * i + 1] = scores[i].right;
  }
  TRY(comm_all_reduce(work->rank->world, COMM_I64, COMM_SUM, numbers, 2 * SCORES, error));
  for (int i = 0; i < SCORES; i++) scores[i] = (TaskScore){numbers[2 * i], numbers[2 * i + 1]};
  for (int r = 0; r < TASK_ROWS; r++) result->rows[r] = scores[r];
  result->own = scores[OWN];
  result->remote = scores[REMOTE];
  result->total = scores[TOTAL];
  result->tokens = result->total;
  return STATUS_OK;
}

static Status run_recall(Work *work, TaskResult *result, Error *error) {
  const Rank *rank = work->rank;
  for (int64_t s = rank->data_rank; s < work->options->samples; s += rank->data_size) {
    TRY(run_recall_sample(work, s, result, error));
  }
  return reduce_recall(work, result, error);
}

/* ---------------------------------------------------------------- the run */

Status task_run(const Config *config, const Rank *rank, Model *model, const TaskOptions *options,
                int64_t context, void *memory, EvalWatch *watch, TaskResult *result, Error *error) {
  Work work = {
      .config = config, .rank = rank, .model = model, .watch = watch, .options = options, .context = context};
  place_rows(&work, memory);
  *result = (TaskResult){.context = context};
  return options->kind == TASK_MQAR ? run_recall(&work, result, error) : run_text(&work, result, error);
}

double task_work(const Config *config, const Rank *rank, const Model *model, const TaskOptions *options,
                 int64_t context) {
  const int64_t samples = options->samples * (options->kind == TASK_MQAR ? 1 : options->depths);
  return work_of(config, model, context, (samples + rank->data_size - 1) / rank->data_size);
}
