/* Questions about something hidden in a long text. */
#include "train/task_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "kernels/base/philox.h"

/* The texts of a task; '#' stands for the number. */
typedef struct Wording {
  const char *introduction;
  const char *sentence;
  const char *question; /* the answer follows behind a space */
  const char *filler;   /* repeated; NULL: the shards' text */
  uint32_t least;       /* numbers are least ... least + count - 1 */
  uint32_t count;
} Wording;

static const Wording wordings[] = {
    [TASK_TEXT_NEEDLE] = {.introduction = "",
                          .sentence = "\nThe number painted on the door of the lighthouse is #.\n",
                          .question = "\nThe number painted on the door of the lighthouse is",
                          .least = 1000000,
                          .count = 9000000},
    [TASK_TEXT_PASSKEY] =
        {.introduction = "There is an important info hidden inside a lot of irrelevant text. Find it and "
                         "memorize it. I will quiz you about the important information there.\n",
         .sentence = " The pass key is #. Remember it. # is the pass key.",
         .question = "\nWhat is the pass key? The pass key is",
         .filler = " The grass is green. The sky is blue. The sun is yellow. Here we go. There "
                   "and back again.",
         .least = 10000,
         .count = 90000},
};

/* Streams of PHILOX_TASK. */
enum { STREAM_NUMBER, STREAM_START };

struct TaskText {
  const Wording *wording;
  Tokenizer *tokenizer;
  Dataset *dataset; /* NULL where the filler is repeated */
  TokenList filler; /* one repetition */
  uint64_t seed;
};

/* The tokens of a sample but for filler. */
typedef struct Parts {
  TokenList introduction, sentence, question; /* question with the answer */
  int64_t answers;                            /* the last tokens of it */
} Parts;

static void free_parts(Parts *parts) {
  free(parts->introduction.tokens);
  free(parts->sentence.tokens);
  free(parts->question.tokens);
  *parts = (Parts){0};
}

/* ---------------------------------------------------------------- life */

/* The shards must speak the model's language. */
static Status check_description(const TaskText *text, const char *pattern, Error *error) {
  Description description;
  bool found = false;
  TRY(dataset_describe(pattern, &description, &found, error));
  if (!found || (description.vocab_size == text->tokenizer->vocab_size &&
                 description.end_of_document == text->tokenizer->end_of_document))
    return STATUS_OK;
  return fail(
      error, STATUS_CONFIG,
      "%s: was prepared with the tokenizer %s, of %lld tokens, but the model's has %lld: name shards of "
      "the model's own in data.val",
      pattern, description.tokenizer, (long long)description.vocab_size,
      (long long)text->tokenizer->vocab_size);
}

static Status encode(TaskText *text, const char *words, TokenList *list, Error *error) {
  size_t used = 0;
  return tokenizer_encode(text->tokenizer, words, strlen(words), true, &used, list, error);
}

static Status open_all(TaskText *text, const TaskTextOptions *options, Error *error) {
  TRY(tokenizer_open(options->tokenizer, &text->tokenizer, error));
  if (text->tokenizer->vocab_size > options->vocab_size)
    return fail(error, STATUS_CONFIG, "the model knows %lld tokens, but the tokenizer %s has %lld",
                (long long)options->vocab_size, options->tokenizer, (long long)text->tokenizer->vocab_size);
  if (text->wording->filler != NULL) return encode(text, text->wording->filler, &text->filler, error);
  TRY(check_description(text, options->pattern, error));
  return dataset_open(options->pattern, options->vocab_size, &text->dataset, error);
}

Status task_text_open(const TaskTextOptions *options, TaskText **out, Error *error) {
  void *memory = NULL;
  *out = NULL;
  TRY(memory_alloc(1, sizeof(TaskText), "a task", &memory, error));
  TaskText *text = memory;
  text->wording = &wordings[options->kind];
  text->seed = options->seed;
  const Status status = open_all(text, options, error);
  if (status != STATUS_OK) {
    task_text_close(text);
    return status;
  }
  *out = text;
  return STATUS_OK;
}

void task_text_close(TaskText *text) {
  if (text == NULL) return;
  free(text->filler.tokens);
  dataset_close(text->dataset);
  tokenizer_close(text->tokenizer);
  free(text);
}

/* ---------------------------------------------------------------- the parts of a sample */

/* Appends the tokens of words with the number in the places of '#'. */
static Status encode_with(TaskText *text, const char *words, uint32_t number, TokenList *list, Error *error) {
  char *line = NULL;
  size_t bytes = 0;
  FILE *stream = open_memstream(&line, &bytes);
  if (stream == NULL) return fail(error, STATUS_SYSTEM, "no memory left for a question");
  for (const char *at = words; *at != '\0'; at++) {
    if (*at == '#') {
      (void)fprintf(stream, "%u", (unsigned)number);
    } else {
      (void)fputc(*at, stream);
    }
  }
  const bool written = fclose(stream) == 0;
  const Status status =
      written ? encode(text, line, list, error) : fail(error, STATUS_SYSTEM, "no memory left for a question");
  free(line);
  return status;
}

/* The question with its answer, as the tokenizer writes them together; the answer is what differs from the
 * question alone, so that a space that is a token of its own belongs to the question. */
static Status encode_question(TaskText *text, uint32_t number, Parts *parts, Error *error) {
  TokenList alone = {0};
  char words[256];
  int64_t same = 0;
  Status status = STATUS_OK;
  (void)snprintf(words, sizeof words, "%s ", text->wording->question);
  TRY_GOTO(encode(text, words, &alone, error), done);
  (void)snprintf(words, sizeof words, "%s #", text->wording->question);
  TRY_GOTO(encode_with(text, words, number, &parts->question, error), done);
  while (same < alone.count && alone.tokens[same] == parts->question.tokens[same]) same++;
  parts->answers = parts->question.count - same;
done:
  free(alone.tokens);
  return status;
}

static Status make_parts(TaskText *text, int64_t sample, Parts *parts, Error *error) {
  const Wording *wording = text->wording;
  uint32_t words[4];
  philox_draw(text->seed, PHILOX_TASK, STREAM_NUMBER, (uint64_t)sample, words);
  const uint32_t number = wording->least + words[0] % wording->count;
  TRY(encode(text, wording->introduction, &parts->introduction, error));
  TRY(encode_with(text, wording->sentence, number, &parts->sentence, error));
  return encode_question(text, number, parts, error);
}

/* ---------------------------------------------------------------- a sample */

/* Fills `count` tokens of filler. */
static Status fill(TaskText *text, const TaskTextPlace *place, int64_t count, int32_t *tokens, Error *error) {
  if (text->dataset == NULL) {
    for (int64_t i = 0; i < count; i++) tokens[i] = text->filler.tokens[i % text->filler.count];
    return STATUS_OK;
  }
  const int64_t available = dataset_tokens(text->dataset);
  if (available < count)
    return fail(
        error, STATUS_DATA,
        "data.val holds %lld tokens, too few for the %lld in which a context of %lld hides the needle: "
        "give more text or a shorter context",
        (long long)available, (long long)count, (long long)place->context);
  uint32_t words[4];
  philox_draw(text->seed, PHILOX_TASK, STREAM_START, (uint64_t)place->sample, words);
  const uint64_t drawn = (uint64_t)words[1] << 32 | words[0];
  return dataset_read(text->dataset, (int64_t)(drawn % (uint64_t)(available - count + 1)), count, tokens,
                      error);
}

static int32_t *append(int32_t *tokens, const TokenList *list) {
  if (list->count > 0) memcpy(tokens, list->tokens, (size_t)list->count * sizeof *tokens);
  return tokens + list->count;
}

/* Tokens of filler before the sentence: repeated filler is not cut within a repetition. */
static int64_t tokens_before(const TaskText *text, int64_t filler, double depth) {
  const int64_t before = (int64_t)(depth * (double)filler);
  return text->dataset != NULL ? before : before / text->filler.count * text->filler.count;
}

static Status assemble(TaskText *text, const TaskTextPlace *place, const Parts *parts, int32_t *tokens,
                       Error *error) {
  const int64_t fixed = parts->introduction.count + parts->sentence.count + parts->question.count;
  const int64_t filler = place->context + 1 - fixed;
  if (filler < 0)
    return fail(
        error, STATUS_CONFIG,
        "a context of %lld tokens is too short for what is hidden and the question for it: %lld at least",
        (long long)place->context, (long long)(fixed - 1));
  const int64_t before = tokens_before(text, filler, place->depth);
  int32_t *behind = append(tokens, &parts->introduction);
  TRY(fill(text, place, filler, behind, error));
  /* All filler lies there in one piece; what follows the sentence moves on. */
  memmove(behind + before + parts->sentence.count, behind + before,
          (size_t)(filler - before) * sizeof *tokens);
  (void)append(behind + before, &parts->sentence);
  (void)append(behind + filler + parts->sentence.count, &parts->question);
  return STATUS_OK;
}

Status task_text_sample(TaskText *text, const TaskTextPlace *place, int32_t *tokens, int64_t *answers,
                        Error *error) {
  Parts parts = {0};
  Status status = make_parts(text, place->sample, &parts, error);
  if (status == STATUS_OK) status = assemble(text, place, &parts, tokens, error);
  *answers = parts.answers;
  free_parts(&parts);
  return status;
}
