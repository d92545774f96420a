/* The table of options, and what goes through all of it. */
#include "train/options.h"

#include <stdlib.h>
#include <string.h>

#include "train/option_value.h"

#define MOST_TOKENS 1099511627776.0 /* 2^40: lengths, steps */
#define MOST_POSITIONS 2147483647.0 /* what other programs read from a config.json */
#define MOST_IDS 2147483647.0       /* token ids are int32_t */
#define MOST_SEQUENCES 1073741824.0 /* 2^30 */
#define MOST_RANKS 65536.0
#define MOST_EXACT 9007199254740992.0 /* 2^53: whole numbers that every reader of JSON keeps */
#define MOST_REAL 1e30

static const char *const device_names[] = {
    [DEVICE_KIND_AUTO] = "auto", [DEVICE_KIND_CPU] = "cpu", [DEVICE_KIND_CUDA] = "cuda", NULL};
static const char *const position_names[] = {[POSITION_ROPE] = "rope", [POSITION_LEARNED] = "learned", NULL};
static const char *const norm_names[] = {[NORM_RMSNORM] = "rmsnorm", [NORM_LAYERNORM] = "layernorm", NULL};
static const char *const activation_names[] = {
    [ACTIVATION_SWIGLU] = "swiglu", [ACTIVATION_GELU] = "gelu", NULL};
static const char *const transport_names[] = {[TRANSPORT_AUTO] = "auto",
                                              [TRANSPORT_LOCAL] = "local",
                                              [TRANSPORT_NCCL] = "nccl",
#if RINGGPT_MPI
                                              [TRANSPORT_MPI] = "mpi",
#endif
                                              NULL};
static const char *const generate_names[] = {[GENERATE_NONE] = "none", [GENERATE_MQAR] = "mqar", NULL};
static const char *const precision_names[] = {[PRECISION_FP32] = "fp32", [PRECISION_BF16] = "bf16", NULL};
static const char *const scheduler_names[] = {[SCHEDULER_COSINE] = "cosine",
                                              [SCHEDULER_LINEAR] = "linear",
                                              [SCHEDULER_CONSTANT] = "constant",
                                              [SCHEDULER_WSD] = "wsd",
                                              NULL};

static const char *const eval_mode_names[] = {
    [EVAL_FULL] = "full", [EVAL_STRIDED] = "strided", [EVAL_LLAMA_CPP] = "llama.cpp", NULL};

static const AbsentChoice absent_transports[] = {
#if !RINGGPT_MPI
    {"mpi", "this build has no MPI transport"},
#endif
    {0}};

/* An entry: named after its place in Config, which gives section, key and offset. */
#define PLACE(section_, key_) .section = #section_, .key = #key_, .offset = offsetof(Config, section_.key_)
#define INTEGER(initial_, minimum_, maximum_)                                                                \
  .type = OPTION_INTEGER, .initial = (initial_), .minimum = (minimum_), .maximum = (maximum_)
#define REAL(initial_, minimum_, maximum_)                                                                   \
  .type = OPTION_REAL, .initial = (initial_), .minimum = (minimum_), .maximum = (maximum_)
#define BOOLEAN(initial_) .type = OPTION_BOOLEAN, .initial = (initial_)
#define TEXT(initial_) .type = OPTION_TEXT, .initial = (initial_)
#define CHOICE(initial_, choices_) .type = OPTION_CHOICE, .initial = (initial_), .choices = (choices_)
#define LIST(type_, minimum_, maximum_)                                                                      \
  .type = (type_), .initial = "", .minimum = (minimum_), .maximum = (maximum_)

/* clang-format off */
static const Option table[] = {
    {PLACE(run, name), TEXT(""),
     .help = "Name of the run; empty: the name of the file without its ending."},
    {PLACE(run, dir), TEXT(""),
     .help = "Directory for all that the run writes; empty: runs/<name>."},
    {PLACE(run, seed), INTEGER("1", 0, MOST_EXACT),
     .help = "Seed of the initial weights, of the order of the data and of dropout."},

    {.section = "", .key = "device", .offset = offsetof(Config, device), CHOICE("auto", device_names),
     .help = "What computes; auto: CUDA where every rank finds such a device, else the CPU."},

    {PLACE(model, vocab_size), INTEGER("257", 1, MOST_IDS),
     .help = "Token ids are below it; 257 is for bytes and an end of document."},
    {PLACE(model, hidden_size), INTEGER("256", 8, 1048576),
     .help = "Width C of the residual stream."},
    {PLACE(model, num_hidden_layers), INTEGER("4", 1, 65536),
     .help = "Layers."},
    {PLACE(model, num_attention_heads), INTEGER("4", 1, 65536),
     .help = "Query heads; hidden_size divided by them is the size of a head: a multiple of 8, at most 256."},
    {PLACE(model, num_key_value_heads), INTEGER("0", 0, 65536),
     .help = "Key and value heads, which divide the query heads; 0: as many as query heads."},
    {PLACE(model, intermediate_size), INTEGER("0", 0, 4194304),
     .help = "Width of the MLP; 0: 4 C for gelu, 8/3 C rounded up to a multiple of 64 for swiglu."},
    {PLACE(model, max_position_embeddings), INTEGER("0", 0, MOST_POSITIONS),
     .help = "Positions: a limit where they are learned, else only recorded, but for dynamic scaling, which begins "
             "beyond and needs it; 0: train.sequence_length, or what yarn and llama3 extend the original length to."},
    {PLACE(model, rope_theta), REAL("10000", 0, MOST_REAL), .above = true,
     .help = "Base of the rotary frequencies; longer contexts want a larger one."},
    {PLACE(model, rope_scaling.rope_type), CHOICE("default", rope_type_names),
     .help = "How rotary positions are scaled for contexts beyond those trained on, with Hugging Face's "
             "meaning; dynamic goes by the length of each sequence beyond max_position_embeddings."},
    {PLACE(model, rope_scaling.factor), REAL("0", 0, MOST_REAL),
     .help = "How many times longer the context becomes, 1 or more; for all types but default."},
    {PLACE(model, rope_scaling.original_max_position_embeddings), INTEGER("0", 0, MOST_POSITIONS),
     .help = "yarn and llama3: the length that the model was trained for before."},
    {PLACE(model, rope_scaling.beta_fast), REAL("0", 0, MOST_REAL),
     .help = "yarn: what turns more often than this over the original length stays as it is; 0: 32."},
    {PLACE(model, rope_scaling.beta_slow), REAL("0", 0, MOST_REAL),
     .help = "yarn: what turns less often than this is slowed down by the factor; 0: 1."},
    {PLACE(model, rope_scaling.attention_factor), REAL("0", 0, MOST_REAL),
     .help = "yarn: multiplies cosines and sines; 0: 0.1 ln(factor) + 1."},
    {PLACE(model, rope_scaling.truncate), BOOLEAN("true"),
     .help = "yarn: the limits are rounded outwards to whole pairs of elements."},
    {PLACE(model, rope_scaling.low_freq_factor), REAL("0", 0, MOST_REAL),
     .help = "llama3: what turns less often than this over the original length is slowed down by the factor."},
    {PLACE(model, rope_scaling.high_freq_factor), REAL("0", 0, MOST_REAL),
     .help = "llama3: what turns more often than this stays as it is."},
    {PLACE(model, norm_eps), REAL("1e-5", 0, 1), .above = true,
     .help = "Added to the variance in norms."},
    {PLACE(model, initializer_range), REAL("0.02", 0, 10), .above = true,
     .help = "Standard deviation of the initial weights."},
    {PLACE(model, position), CHOICE("rope", position_names),
     .help = "Rotary or learned positions: the Llama or the GPT-2 family."},
    {PLACE(model, norm), CHOICE("rmsnorm", norm_names),
     .help = "rmsnorm for Llama, layernorm for GPT-2."},
    {PLACE(model, activation), CHOICE("swiglu", activation_names),
     .help = "swiglu for Llama, gelu for GPT-2."},
    {PLACE(model, bias), BOOLEAN("false"),
     .help = "Biases in the linear layers: false for Llama, true for GPT-2."},
    {PLACE(model, tie_word_embeddings), BOOLEAN("false"),
     .help = "The output head is the embedding; always so for GPT-2."},
    {PLACE(model, sliding_window), INTEGER("0", 0, MOST_TOKENS),
     .help = "Keys a query sees at most, its own included; 0: all before it."},

    {PLACE(data, train), TEXT(""),
     .help = "Shards to train on: a file, DIR/train of a prepared set, or a pattern as DIR/train_*.bin.gz."},
    {PLACE(data, val), TEXT(""),
     .help = "Shards to evaluate on, likewise; empty: none."},
    {PLACE(data, document_mask), BOOLEAN("false"),
     .help = "Attention stays inside a document."},
    {PLACE(data, end_of_document), INTEGER("-1", -1, MOST_IDS - 1),
     .help = "Token that ends a document; -1: what the description beside the shards says, if any."},
    {PLACE(data, shuffle), BOOLEAN("true"),
     .help = "Visit the sequences in a pseudo-random order that differs from epoch to epoch."},
    {PLACE(data, read_ahead), INTEGER("2", 1, 1024),
     .help = "Micro-batches prepared in advance."},
    {PLACE(data, generate), CHOICE("none", generate_names),
     .help = "What to train on in place of shards: mqar makes sequences of key-value recall as it goes, pairs of a "
             "key and a value first and then questions for them, which alone have targets."},
    {PLACE(data, mqar_pairs), INTEGER("64", 1, MOST_IDS),
     .help = "mqar: pairs in a sequence; one that is shorter than eight tokens a pair has as many as fill a "
             "quarter of it."},
    {PLACE(data, mqar_queries), REAL("0.5", 0, 1), .above = true,
     .help = "mqar: share of the positions behind the pairs that ask for a key; the others are filler."},

    {PLACE(parallelism, ring), INTEGER("1", 1, MOST_RANKS),
     .help = "Ranks that share one sequence."},
    {PLACE(parallelism, data), INTEGER("1", 1, MOST_RANKS),
     .help = "Rings side by side, each with sequences of its own."},
    {PLACE(parallelism, transport), CHOICE("auto", transport_names), .absent = absent_transports,
     .help = "How ranks exchange data; local: ranks are threads of this process; mpi: processes that mpirun or "
             "srun started; nccl: either, and NCCL between CUDA devices; auto: as it was started, with NCCL "
             "between CUDA devices of several processes."},
    {PLACE(parallelism, timeout), REAL("600", 0, MOST_REAL),
     .help = "Over MPI: a process that neither computes nor answers for so many seconds is given up by those "
             "that wait for it, and the run ends; 0: never."},
    {PLACE(parallelism, threads), INTEGER("0", 0, 4096),
     .help = "Compute threads of each rank; 0: the cores shared out among the ranks."},

    {PLACE(train, sequence_length), INTEGER("1024", 1, MOST_TOKENS),
     .help = "Tokens of a sequence."},
    {PLACE(train, micro_batch_size), INTEGER("1", 1, MOST_SEQUENCES),
     .help = "Sequences that one ring computes at once."},
    {PLACE(train, global_batch_size), INTEGER("1", 1, MOST_SEQUENCES),
     .help = "Sequences of a step, over all rings and accumulated micro-batches."},
    {PLACE(train, steps), INTEGER("1000", 1, MOST_TOKENS),
     .help = "Steps of the whole run."},
    {PLACE(train, precision), CHOICE("fp32", precision_names),
     .help = "Numbers of weights and activations; gradients, masters and optimizer stay fp32. bf16 is no "
             "faster on a CPU without avx512_bf16."},
    {PLACE(train, recompute), BOOLEAN("false"),
     .help = "Compute layers again in backward instead of keeping them: less memory, more time."},
    {PLACE(train, loss_chunk), INTEGER("1024", 1, MOST_TOKENS),
     .help = "Tokens whose logits exist at once."},
    {PLACE(train, mlp_chunk), INTEGER("0", 0, MOST_TOKENS),
     .help = "Tokens whose MLP exists at once and is computed again in backward: less memory; 0: all."},
    {PLACE(train, dropout), REAL("0", 0, 1), .below = true,
     .help = "Probability with which an element of the embeddings and of what attention and MLP add to the "
             "residual stream is set to zero in training, never in evaluation. It belongs to the run, not to "
             "the model: it may change from one start to the next."},
    {PLACE(train, sequence_schedule), LIST(OPTION_SCHEDULE, 0, MOST_TOKENS),
     .help = "Sequence length from a step on, as {0: 1024, 200: 8192}: each divides sequence_length and takes "
             "proportionally more sequences, so that the tokens of a step stay the same; empty: "
             "sequence_length throughout."},

    {PLACE(optimizer, learning_rate), REAL("6e-4", 0, 1000), .above = true,
     .help = "Peak learning rate of AdamW."},
    {PLACE(optimizer, beta1), REAL("0.9", 0, 1), .below = true,
     .help = "Decay of the mean of the gradient."},
    {PLACE(optimizer, beta2), REAL("0.95", 0, 1), .below = true,
     .help = "Decay of the mean of its square."},
    {PLACE(optimizer, eps), REAL("1e-8", 0, 1), .above = true,
     .help = "Added to the root of the mean square."},
    {PLACE(optimizer, weight_decay), REAL("0.1", 0, 1000),
     .help = "Decay of matrices, times the learning rate."},
    {PLACE(optimizer, clip_grad), REAL("1", 0, MOST_REAL),
     .help = "Largest norm of the gradient, beyond which it is scaled down; 0: any."},

    {PLACE(scheduler, name), CHOICE("cosine", scheduler_names),
     .help = "Shape of the learning rate after the warm-up; wsd stays constant and falls at the end."},
    {PLACE(scheduler, warmup_steps), INTEGER("-1", -1, MOST_TOKENS),
     .help = "Steps of the linear warm-up; -1: a fiftieth of train.steps."},
    {PLACE(scheduler, min_lr_ratio), REAL("0.1", 0, 1),
     .help = "Last learning rate as a fraction of the peak."},
    {PLACE(scheduler, decay_steps), INTEGER("0", 0, MOST_TOKENS),
     .help = "wsd only: steps of the fall at the end; 0: a tenth of train.steps."},

    {PLACE(checkpoint, every), INTEGER("0", 0, MOST_TOKENS),
     .help = "Steps between checkpoints; 0: only at the end and when a signal stops the run."},
    {PLACE(checkpoint, keep), INTEGER("2", 2, 1000000),
     .help = "Newest checkpoints that stay on disk."},
    {PLACE(checkpoint, resume), TEXT("auto"),
     .help = "auto: go on from the newest whole checkpoint of the run, if any; never; or the path of one."},

    {PLACE(eval, every), INTEGER("0", 0, MOST_TOKENS),
     .help = "Steps between evaluations on data.val; 0: none while training."},
    {PLACE(eval, contexts), LIST(OPTION_INTEGERS, 1, MOST_TOKENS),
     .help = "Context lengths to evaluate at, as [1024, 8192]; empty: train.sequence_length."},
    {PLACE(eval, tokens), INTEGER("0", 0, MOST_TOKENS),
     .help = "Tokens per context at most, in whole windows, at least one; 0: all there are."},
    {PLACE(eval, mode), CHOICE("full", eval_mode_names),
     .help = "Which tokens are scored. full: all, in windows one behind the other, each with its full prefix in the "
             "window; strided: all, in windows that overlap, as Hugging Face does; llama.cpp: the second half of "
             "each window, as the perplexity tool of llama.cpp does."},
    {PLACE(eval, stride), INTEGER("0", 0, MOST_TOKENS),
     .help = "strided only: tokens from one window to the next, at most the context; 0: half the context."},

    {PLACE(logging, every), INTEGER("1", 1, MOST_TOKENS),
     .help = "Steps from one line on the terminal to the next."},
};
/* clang-format on */

#define TABLE_SIZE ((int64_t)(sizeof table / sizeof table[0]))

const Option *options_table(int64_t *count) {
  *count = TABLE_SIZE;
  return table;
}

const Option *option_find(const char *section, const char *key) {
  for (int64_t i = 0; i < TABLE_SIZE; i++)
    if (strcmp(table[i].section, section) == 0 && strcmp(table[i].key, key) == 0) return &table[i];
  return NULL;
}

void option_name(const Option *option, char *name, size_t bytes) {
  (void)snprintf(name, bytes, "%s%s%s", option->section, *option->section ? "." : "", option->key);
}

Status options_set_defaults(Config *config, Error *error) {
  for (int64_t i = 0; i < TABLE_SIZE; i++) {
    YamlDocument document;
    const char *initial = table[i].initial;
    Status status = yaml_reader_parse("default", false, initial, strlen(initial), &document, error);
    if (status == STATUS_OK) status = option_value_set(&table[i], &document, 0, config, error);
    yaml_reader_free(&document);
    TRY(status);
  }
  return STATUS_OK;
}

/* Prints a sentence in lines of at most 96 characters, indented. */
static void print_wrapped(FILE *stream, const char *text) {
  const size_t width = 96, indent = 8;
  size_t column = 0;
  while (*text) {
    const size_t word = strcspn(text, " ");
    if (column > 0 && column + 1 + word > width) {
      (void)fputc('\n', stream);
      column = 0;
    }
    (void)fprintf(stream, "%*s%.*s", column == 0 ? (int)indent : 1, "", (int)word, text);
    column += word + (column == 0 ? indent : 1);
    text += word + strspn(text + word, " ");
  }
  (void)fputc('\n', stream);
}

void options_print_help(FILE *stream) {
  const char *section = NULL;
  for (int64_t i = 0; i < TABLE_SIZE; i++) {
    const Option *option = &table[i];
    if (!section || strcmp(section, option->section) != 0) {
      section = option->section;
      (void)fprintf(stream, *section ? "\n%s:\n" : "\n", section);
    }
    char allowed[256];
    option_value_allowed(option, allowed, sizeof allowed);
    const char *initial = *option->initial ? option->initial : "empty";
    (void)fprintf(stream, "%s%s: %s  (%s)\n", *section ? "  " : "", option->key, initial, allowed);
    print_wrapped(stream, option->help);
  }
}
