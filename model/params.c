/* The parameters of a model: names, shapes, places in one flat array, initial values. */
#include "model/params.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/memory.h"
#include "kernels/base/philox.h"

/* The table under construction. */
typedef struct Builder {
  TensorTable *table;
  double std;          /* of ordinary weights */
  double residual_std; /* of the projections that add to the residual stream: std / sqrt(2 L), as in GPT-2 */
  int group;
} Builder;

static TensorEntry *append(Builder *builder, int64_t rows, int64_t columns, int rank, const char *format,
                           va_list arguments) {
  TensorTable *table = builder->table;
  TensorEntry *entry = &table->entries[table->size++];
  *entry = (TensorEntry){.rank = rank,
                         .shape = {rows, columns},
                         .offset = table->total,
                         .count = rows * columns,
                         .group = builder->group};
  (void)vsnprintf(entry->name, sizeof entry->name, format, arguments);
  table->total += entry->count;
  return entry;
}

/* A weight (rows, columns) of normal numbers; returns its offset. */
static int64_t matrix(Builder *builder, int64_t rows, int64_t columns, double std, bool transposed,
                      const char *format, ...) __attribute__((format(printf, 6, 7)));

static int64_t matrix(Builder *builder, int64_t rows, int64_t columns, double std, bool transposed,
                      const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  TensorEntry *entry = append(builder, rows, columns, 2, format, arguments);
  va_end(arguments);
  entry->transposed = transposed;
  entry->init_std = std;
  entry->decay = true;
  return entry->offset;
}

/* A vector of one starting value; returns its offset. */
static int64_t vector(Builder *builder, int64_t length, double value, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int64_t vector(Builder *builder, int64_t length, double value, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  TensorEntry *entry = append(builder, length, 1, 1, format, arguments);
  va_end(arguments);
  entry->init_value = value;
  return entry->offset;
}

/* GPT2LMHeadModel's names; its Conv1D weights are (inputs, outputs) in a checkpoint. */
static void build_gpt2_layer(Builder *b, const ModelConfig *config, int layer, LayerParams *at) {
  const int64_t c = config->hidden_size;
  const int64_t f = config->intermediate_size;
  at->norm1 = vector(b, c, 1.0, "transformer.h.%d.ln_1.weight", layer);
  at->norm1_bias = vector(b, c, 0.0, "transformer.h.%d.ln_1.bias", layer);
  at->qkv = matrix(b, 3 * c, c, b->std, true, "transformer.h.%d.attn.c_attn.weight", layer);
  at->qkv_bias = vector(b, 3 * c, 0.0, "transformer.h.%d.attn.c_attn.bias", layer);
  at->out = matrix(b, c, c, b->residual_std, true, "transformer.h.%d.attn.c_proj.weight", layer);
  at->out_bias = vector(b, c, 0.0, "transformer.h.%d.attn.c_proj.bias", layer);
  at->norm2 = vector(b, c, 1.0, "transformer.h.%d.ln_2.weight", layer);
  at->norm2_bias = vector(b, c, 0.0, "transformer.h.%d.ln_2.bias", layer);
  at->up = matrix(b, f, c, b->std, true, "transformer.h.%d.mlp.c_fc.weight", layer);
  at->up_bias = vector(b, f, 0.0, "transformer.h.%d.mlp.c_fc.bias", layer);
  at->down = matrix(b, c, f, b->residual_std, true, "transformer.h.%d.mlp.c_proj.weight", layer);
  at->down_bias = vector(b, c, 0.0, "transformer.h.%d.mlp.c_proj.bias", layer);
}

/* LlamaForCausalLM's names. */
static void build_llama_layer(Builder *b, const ModelConfig *config, int layer, LayerParams *at) {
  const int64_t c = config->hidden_size;
  const int64_t f = config->intermediate_size;
  const int64_t kv = config->num_key_value_heads * (c / config->num_attention_heads);
  at->norm1 = vector(b, c, 1.0, "model.layers.%d.input_layernorm.weight", layer);
  at->qkv = matrix(b, c, c, b->std, false, "model.layers.%d.self_attn.q_proj.weight", layer);
  (void)matrix(b, kv, c, b->std, false, "model.layers.%d.self_attn.k_proj.weight", layer);
  (void)matrix(b, kv, c, b->std, false, "model.layers.%d.self_attn.v_proj.weight", layer);
  at->out = matrix(b, c, c, b->residual_std, false, "model.layers.%d.self_attn.o_proj.weight", layer);
  at->norm2 = vector(b, c, 1.0, "model.layers.%d.post_attention_layernorm.weight", layer);
  at->up = matrix(b, f, c, b->std, false, "model.layers.%d.mlp.gate_proj.weight", layer);
  (void)matrix(b, f, c, b->std, false, "model.layers.%d.mlp.up_proj.weight", layer);
  at->down = matrix(b, c, f, b->residual_std, false, "model.layers.%d.mlp.down_proj.weight", layer);
}

static void build_gpt2(Builder *b, const ModelConfig *config, ParamPlaces *places) {
  const int64_t c = config->hidden_size;
  places->tokens = matrix(b, config->vocab_size, c, b->std, false, "transformer.wte.weight");
  places->positions = matrix(b, config->max_position_embeddings, c, b->std, false, "transformer.wpe.weight");
  for (int layer = 0; layer < config->num_hidden_layers; layer++) {
    b->group = layer + 1;
    build_gpt2_layer(b, config, layer, &places->layers[layer]);
  }
  b->group += 1;
  places->final_norm = vector(b, c, 1.0, "transformer.ln_f.weight");
  places->final_norm_bias = vector(b, c, 0.0, "transformer.ln_f.bias");
  places->head = places->tokens;
}

static void build_llama(Builder *b, const ModelConfig *config, ParamPlaces *places) {
  const int64_t c = config->hidden_size;
  places->tokens = matrix(b, config->vocab_size, c, b->std, false, "model.embed_tokens.weight");
  for (int layer = 0; layer < config->num_hidden_layers; layer++) {
    b->group = layer + 1;
    build_llama_layer(b, config, layer, &places->layers[layer]);
  }
  b->group += 1;
  places->final_norm = vector(b, c, 1.0, "model.norm.weight");
  places->head = places->tokens;
  if (!config->tie_word_embeddings) {
    places->head = matrix(b, config->vocab_size, c, b->std, false, "lm_head.weight");
  }
}

Status params_build(const ModelConfig *config, TensorTable *table, ParamPlaces *places, Error *error) {
  enum { PER_LAYER = 12, OUTSIDE_LAYERS = 5 };
  const LayerParams no_layer = {PARAM_ABSENT, PARAM_ABSENT, PARAM_ABSENT, PARAM_ABSENT,
                                PARAM_ABSENT, PARAM_ABSENT, PARAM_ABSENT, PARAM_ABSENT,
                                PARAM_ABSENT, PARAM_ABSENT, PARAM_ABSENT, PARAM_ABSENT};
  const size_t layers = (size_t)config->num_hidden_layers;
  Status status = STATUS_OK;
  void *entries = NULL;
  void *layer_params = NULL;
  ParamPlaces at = {PARAM_ABSENT, PARAM_ABSENT, PARAM_ABSENT, PARAM_ABSENT, PARAM_ABSENT, NULL};
  TRY_GOTO(memory_alloc(PER_LAYER * layers + OUTSIDE_LAYERS, sizeof(TensorEntry), "table of parameters",
                        &entries, error),
           failed);
  TRY_GOTO(memory_alloc(layers, sizeof(LayerParams), "table of parameters", &layer_params, error), failed);
  at.layers = layer_params;
  for (size_t layer = 0; layer < layers; layer++) at.layers[layer] = no_layer;
  *table = (TensorTable){.entries = entries};
  const double std = config->initializer_range;
  Builder builder = {
      .table = table, .std = std, .residual_std = std / sqrt(2.0 * (double)config->num_hidden_layers)};
  if (config->position == POSITION_LEARNED) {
    build_gpt2(&builder, config, &at);
  } else {
    build_llama(&builder, config, &at);
  }
  if (places != NULL) {
    *places = at;
  } else {
    free(layer_params);
  }
  return STATUS_OK;
failed:
  free(layer_params);
  free(entries);
  return status;
}

void params_free(TensorTable *table, ParamPlaces *places) {
  free(table->entries);
  *table = (TensorTable){0};
  if (places != NULL) {
    free(places->layers);
    places->layers = NULL;
  }
}

static void init_normal(const TensorEntry *entry, uint32_t tensor, uint64_t seed, float *weights) {
  for (int64_t i = 0; i < entry->count; i += 4) {
    uint32_t words[4];
    double normal[4];
    philox_draw(seed, PHILOX_WEIGHTS, tensor, (uint64_t)(i / 4), words);
    philox_normal_pair(words[0], words[1], normal);
    philox_normal_pair(words[2], words[3], normal + 2);
    for (int64_t j = 0; j < 4 && i + j < entry->count; j++) {
      weights[i + j] = (float)(normal[j] * entry->init_std);
    }
  }
}

void params_init(const TensorTable *table, uint64_t seed, float *weights) {
  for (int64_t t = 0; t < table->size; t++) {
    const TensorEntry *entry = &table->entries[t];
    float *start = weights + entry->offset;
    if (entry->init_std > 0.0) {
      init_normal(entry, (uint32_t)t, seed, start);
    } else {
      for (int64_t i = 0; i < entry->count; i++) start[i] = (float)entry->init_value;
    }
  }
}
