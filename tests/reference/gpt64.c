/* The reference model in float64: its parameters by name and by place. See the header; the loss is in
 * gpt64_loss.c. */
#include "tests/reference/gpt64.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/reference/gpt64_parts.h"

/* ---------------------------------------------------------------- parameters */

/* Appends a tensor of zeros. Where memory is missing, value or grad stays NULL; gpt64_create looks for it. */
static Gpt64Tensor *add_tensor(Gpt64 *model, int64_t rows, int64_t cols, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static Gpt64Tensor *add_tensor(Gpt64 *model, int64_t rows, int64_t cols, const char *format, ...) {
  Gpt64Tensor *tensor = &model->tensors[model->count++];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(tensor->name, sizeof tensor->name, format, arguments);
  va_end(arguments);
  tensor->rows = rows;
  tensor->cols = cols;
  tensor->value = calloc((size_t)(rows * cols), sizeof(double));
  tensor->grad = calloc((size_t)(rows * cols), sizeof(double));
  return tensor;
}

static RefLinear linear_of(const Gpt64Tensor *weight, const Gpt64Tensor *bias, bool inputs_first) {
  return (RefLinear){.weight = {weight->value, weight->rows, weight->cols, weight->cols},
                     .dweight = {weight->grad, weight->rows, weight->cols, weight->cols},
                     .bias = bias != NULL ? bias->value : NULL,
                     .dbias = bias != NULL ? bias->grad : NULL,
                     .inputs_first = inputs_first};
}

/* GPT-2's Conv1D: weight (inputs, outputs) and bias. */
static RefLinear add_conv1d(Gpt64 *model, const char *prefix, const char *name, int64_t inputs,
                            int64_t outputs) {
  const Gpt64Tensor *weight = add_tensor(model, inputs, outputs, "%s%s.weight", prefix, name);
  const Gpt64Tensor *bias = add_tensor(model, outputs, 1, "%s%s.bias", prefix, name);
  return linear_of(weight, bias, true);
}

/* Llama's linear layer: weight (outputs, inputs). */
static RefLinear add_linear(Gpt64 *model, const char *prefix, const char *name, int64_t inputs,
                            int64_t outputs) {
  return linear_of(add_tensor(model, outputs, inputs, "%s%s.weight", prefix, name), NULL, false);
}

static RefNorm add_norm(Gpt64 *model, const char *prefix, const char *name) {
  const Gpt64Config *config = &model->config;
  RefNorm norm = {.eps = config->norm_eps, .centred = config->gpt2};
  const Gpt64Tensor *weight = add_tensor(model, config->hidden, 1, "%s%s.weight", prefix, name);
  norm.weight = weight->value;
  norm.dweight = weight->grad;
  if (!config->gpt2) return norm;
  const Gpt64Tensor *bias = add_tensor(model, config->hidden, 1, "%s%s.bias", prefix, name);
  norm.bias = bias->value;
  norm.dbias = bias->grad;
  return norm;
}

static void add_gpt2_layer(Gpt64 *model, int64_t index, LayerParts *layer) {
  const int64_t c = model->config.hidden;
  const int64_t f = model->config.intermediate;
  char prefix[48];
  (void)snprintf(prefix, sizeof prefix, "transformer.h.%lld.", (long long)index);
  layer->attention_norm = add_norm(model, prefix, "ln_1");
  layer->attention_in = (Fan){.linear = {add_conv1d(model, prefix, "attn.c_attn", c, 3 * c)}, .count = 1};
  layer->attention_out = add_conv1d(model, prefix, "attn.c_proj", c, c);
  layer->mlp_norm = add_norm(model, prefix, "ln_2");
  layer->mlp_in = (Fan){.linear = {add_conv1d(model, prefix, "mlp.c_fc", c, f)}, .count = 1};
  layer->mlp_out = add_conv1d(model, prefix, "mlp.c_proj", f, c);
}

static void add_llama_layer(Gpt64 *model, int64_t index, LayerParts *layer) {
  const int64_t c = model->config.hidden;
  const int64_t f = model->config.intermediate;
  const int64_t kv = c / model->config.heads * model->config.kv_heads;
  char prefix[48];
  (void)snprintf(prefix, sizeof prefix, "model.layers.%lld.", (long long)index);
  layer->attention_norm = add_norm(model, prefix, "input_layernorm");
  layer->attention_in.linear[0] = add_linear(model, prefix, "self_attn.q_proj", c, c);
  layer->attention_in.linear[1] = add_linear(model, prefix, "self_attn.k_proj", c, kv);
  layer->attention_in.linear[2] = add_linear(model, prefix, "self_attn.v_proj", c, kv);
  layer->attention_in.count = 3;
  layer->attention_out = add_linear(model, prefix, "self_attn.o_proj", c, c);
  layer->mlp_norm = add_norm(model, prefix, "post_attention_layernorm");
  layer->mlp_in.linear[0] = add_linear(model, prefix, "mlp.gate_proj", c, f);
  layer->mlp_in.linear[1] = add_linear(model, prefix, "mlp.up_proj", c, f);
  layer->mlp_in.count = 2;
  layer->mlp_out = add_linear(model, prefix, "mlp.down_proj", f, c);
}

static void add_parameters(Gpt64 *model) {
  const Gpt64Config *config = &model->config;
  Gpt64Parts *parts = model->parts;
  parts->embedding = add_tensor(model, config->vocab, config->hidden, "%s",
                                config->gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight");
  if (config->gpt2) {
    parts->positions = add_tensor(model, config->max_positions, config->hidden, "transformer.wpe.weight");
  }
  for (int64_t l = 0; l < config->layers; l++) {
    if (config->gpt2) {
      add_gpt2_layer(model, l, &parts->layers[l]);
    } else {
      add_llama_layer(model, l, &parts->layers[l]);
    }
  }
  parts->final_norm = add_norm(model, "", config->gpt2 ? "transformer.ln_f" : "model.norm");
  parts->head = config->tied ? linear_of(parts->embedding, NULL, false)
                             : add_linear(model, "", "lm_head", config->hidden, config->vocab);
}

static bool is_sound(const Gpt64Config *c) {
  if (c->vocab < 1 || c->hidden < 1 || c->layers < 0 || c->heads < 1 || c->kv_heads < 1) return false;
  if (c->intermediate < 1 || c->window < 0) return false;
  if (c->hidden % c->heads != 0 || c->heads % c->kv_heads != 0) return false;
  if (c->gpt2) return c->kv_heads == c->heads && c->max_positions >= 1;
  return c->hidden / c->heads % 2 == 0 && c->rope_theta > 0;
}

Gpt64 *gpt64_create(const Gpt64Config *config) {
  if (!is_sound(config)) return NULL;
  Gpt64 *model = calloc(1, sizeof *model);
  if (model == NULL) return NULL;
  model->config = *config;
  /* A layer has 12 tensors in GPT-2 and 9 in Llama; at most 5 more belong to no layer. */
  model->tensors = calloc((size_t)(12 * config->layers + 5), sizeof *model->tensors);
  model->parts = calloc(1, sizeof *model->parts);
  if (model->tensors == NULL || model->parts == NULL) goto failed;
  model->parts->layers = calloc((size_t)(config->layers + 1), sizeof *model->parts->layers);
  if (model->parts->layers == NULL) goto failed;
  add_parameters(model);
  for (int64_t i = 0; i < model->count; i++) {
    if (model->tensors[i].value == NULL || model->tensors[i].grad == NULL) goto failed;
  }
  return model;
failed:
  gpt64_free(model);
  return NULL;
}

void gpt64_free(Gpt64 *model) {
  if (model == NULL) return;
  for (int64_t i = 0; i < model->count && model->tensors != NULL; i++) {
    free(model->tensors[i].value);
    free(model->tensors[i].grad);
  }
  if (model->parts != NULL) free(model->parts->layers);
  free(model->parts);
  free(model->tensors);
  free(model);
}

Gpt64Tensor *gpt64_find(const Gpt64 *model, const char *name) {
  for (int64_t i = 0; i < model->count; i++) {
    if (strcmp(model->tensors[i].name, name) == 0) return &model->tensors[i];
  }
  return NULL;
}

void gpt64_zero_gradients(Gpt64 *model) {
  for (int64_t i = 0; i < model->count; i++) {
    const Gpt64Tensor *tensor = &model->tensors[i];
    memset(tensor->grad, 0, (size_t)(tensor->rows * tensor->cols) * sizeof(double));
  }
}

/* The place of element (i, j) of a tensor in a buffer that may hold it transposed. */
static int64_t place_of(const Gpt64Tensor *tensor, int64_t i, int64_t j, bool transposed) {
  return transposed ? j * tensor->rows + i : i * tensor->cols + j;
}

void gpt64_set_value(Gpt64Tensor *tensor, const float *from, bool transposed) {
  for (int64_t i = 0; i < tensor->rows; i++) {
    for (int64_t j = 0; j < tensor->cols; j++) {
      tensor->value[i * tensor->cols + j] = (double)from[place_of(tensor, i, j, transposed)];
    }
  }
}

void gpt64_get_gradient(const Gpt64Tensor *tensor, double *to, bool transposed) {
  for (int64_t i = 0; i < tensor->rows; i++) {
    for (int64_t j = 0; j < tensor->cols; j++) {
      to[place_of(tensor, i, j, transposed)] = tensor->grad[i * tensor->cols + j];
    }
  }
}

void gpt64_document_starts(int64_t length, const int32_t *tokens, int32_t end_of_document,
                           int64_t *first_key) {
  int64_t start = 0;
  for (int64_t t = 0; t < length; t++) {
    first_key[t] = start;
    if (tokens[t] == end_of_document) start = t + 1;
  }
}
