/* The value of one option. */
#include "train/option_value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/names.h"

#define REAL_BYTES 40
#define ALLOWED_BYTES 256
#define GENEROUS 16777216.0 /* 2^24: maxima beyond it only keep products from wrapping */

_Static_assert(sizeof(PositionKind) == sizeof(int) && sizeof(SchedulerKind) == sizeof(int),
               "a choice is stored as an int");

/* ---------------------------------------------------------------- in words */

void option_value_print_real(double value, char *text, size_t bytes) {
  char shortest[REAL_BYTES];
  if (value == trunc(value) && fabs(value) < 1e15) {
    (void)snprintf(text, bytes, "%.0f", value);
    return;
  }
  int digits = 1;
  do (void)snprintf(shortest, sizeof shortest, "%.*g", digits, value);
  while (strtod(shortest, NULL) != value && ++digits <= 17);
  /* YAML 1.1 takes "1e-05" for a text and "1.0e-05" for a number. */
  const size_t mantissa = strcspn(shortest, "e");
  const bool pointless = shortest[mantissa] != '\0' && !strchr(shortest, '.');
  (void)snprintf(text, bytes, "%.*s%s%s", (int)mantissa, shortest, pointless ? ".0" : "",
                 shortest + mantissa);
}

/* A range in words; a maximum that nobody meets is left out. */
static void print_range(const Option *option, char *text, size_t bytes) {
  char low[REAL_BYTES], high[REAL_BYTES];
  option_value_print_real(option->minimum, low, sizeof low);
  option_value_print_real(option->maximum, high, sizeof high);
  const char *from = option->above ? "above" : "at least";
  if (option->maximum > GENEROUS)
    (void)snprintf(text, bytes, "%s %s", from, low);
  else if (option->above || option->below)
    (void)snprintf(text, bytes, "%s %s and %s %s", from, low, option->below ? "below" : "at most", high);
  else
    (void)snprintf(text, bytes, "%s to %s", low, high);
}

/* Joins the names of a choice: "a", "a or b", "a, b or c". */
static void print_choices(const Option *option, char *text, size_t bytes) {
  size_t used = 0;
  *text = '\0';
  for (size_t i = 0; option->choices[i] && used < bytes; i++) {
    const char *separator = i == 0 ? "" : option->choices[i + 1] ? ", " : " or ";
    used += (size_t)snprintf(text + used, bytes - used, "%s%s", separator, option->choices[i]);
  }
}

void option_value_allowed(const Option *option, char *text, size_t bytes) {
  char range[ALLOWED_BYTES];
  print_range(option, range, sizeof range);
  switch (option->type) {
  case OPTION_INTEGER:
    (void)snprintf(text, bytes, "a whole number, %s", range);
    break;
  case OPTION_REAL:
    (void)snprintf(text, bytes, "a number, %s", range);
    break;
  case OPTION_BOOLEAN:
    (void)snprintf(text, bytes, "true or false");
    break;
  case OPTION_CHOICE:
    print_choices(option, text, bytes);
    break;
  case OPTION_TEXT:
    (void)snprintf(text, bytes, "a text of less than %d bytes", CONFIG_TEXT_BYTES);
    break;
  case OPTION_INTEGERS:
    (void)snprintf(text, bytes, "a list of up to %d whole numbers, each %s", CONFIG_LIST_LENGTH, range);
    break;
  case OPTION_SCHEDULE:
    (void)snprintf(text, bytes, "a mapping of up to %d first steps to lengths", CONFIG_LIST_LENGTH);
    break;
  }
}

/* ---------------------------------------------------------------- from YAML */

static void *place_of(const Option *option, Config *config) {
  return (char *)config + option->offset;
}

static Status bad_value(const Option *option, const YamlDocument *document, int64_t line, const char *value,
                        Error *error) {
  char name[OPTION_NAME_BYTES], allowed[ALLOWED_BYTES];
  option_name(option, name, sizeof name);
  option_value_allowed(option, allowed, sizeof allowed);
  return yaml_reader_fail(document, line, error, "'%s' is %.100s; it must be %s", name, value, allowed);
}

static Status check_range(const Option *option, const YamlDocument *document, const YamlNode *node,
                          double value, Error *error) {
  const bool low = option->above ? !(value > option->minimum) : !(value >= option->minimum);
  const bool high = option->below ? !(value < option->maximum) : !(value <= option->maximum);
  if (!low && !high) return STATUS_OK;
  char name[OPTION_NAME_BYTES], limit[REAL_BYTES];
  option_name(option, name, sizeof name);
  const char *than = low ? (option->above ? "above" : "at least") : (option->below ? "below" : "at most");
  option_value_print_real(low ? option->minimum : option->maximum, limit, sizeof limit);
  return yaml_reader_fail(document, node->line, error, "'%s' is %.60s; it must be %s %s", name, node->text,
                          than, limit);
}

/* A whole number in decimal digits; one that does not fit becomes the nearest that does. */
static Status read_integer(const Option *option, const YamlDocument *document, int64_t index, int64_t *out,
                           Error *error) {
  const YamlNode *node = &document->nodes[index];
  if (node->kind != YAML_KIND_SCALAR)
    return bad_value(option, document, node->line, "a list or a mapping", error);
  const char *digits = node->text + (*node->text == '-' || *node->text == '+');
  if (!node->plain || !*digits || digits[strspn(digits, "0123456789")])
    return bad_value(option, document, node->line, node->text, error);
  *out = strtoll(node->text, NULL, 10);
  return check_range(option, document, node, (double)*out, error);
}

static Status read_real(const Option *option, const YamlDocument *document, const YamlNode *node, double *out,
                        Error *error) {
  char *end = node->text;
  const bool decimal = node->text[strspn(node->text, "+-.0123456789eE")] == '\0';
  if (node->plain && decimal) *out = strtod(node->text, &end);
  if (end == node->text || *end) return bad_value(option, document, node->line, node->text, error);
  return check_range(option, document, node, *out, error);
}

static Status read_boolean(const Option *option, const YamlDocument *document, const YamlNode *node,
                           bool *out, Error *error) {
  *out = strcmp(node->text, "true") == 0;
  if (node->plain && (*out || strcmp(node->text, "false") == 0)) return STATUS_OK;
  return bad_value(option, document, node->line, node->text, error);
}

static Status read_choice(const Option *option, const YamlDocument *document, const YamlNode *node, int *out,
                          Error *error) {
  char name[OPTION_NAME_BYTES], allowed[ALLOWED_BYTES];
  option_name(option, name, sizeof name);
  option_value_allowed(option, allowed, sizeof allowed);
  const char *nearest = NULL;
  int64_t least = INT64_MAX;
  for (int i = 0; option->choices[i]; i++) {
    const int64_t distance = names_distance(node->text, option->choices[i]);
    if (strcmp(node->text, option->choices[i]) == 0) {
      *out = i;
      return STATUS_OK;
    }
    if (distance >= least) continue;
    least = distance;
    nearest = option->choices[i];
  }
  for (const AbsentChoice *absent = option->absent; absent && absent->name; absent++)
    if (strcmp(node->text, absent->name) == 0)
      return yaml_reader_fail(document, node->line, error, "'%s' is %s, but %s; choose %s", name, node->text,
                              absent->reason, allowed);
  if (names_near(node->text, least) && *node->text)
    return yaml_reader_fail(document, node->line, error, "'%s' is %.60s; it must be %s; did you mean '%s'?",
                            name, node->text, allowed, nearest);
  return bad_value(option, document, node->line, node->text, error);
}

static Status read_integers(const Option *option, const YamlDocument *document, int64_t index,
                            IntegerList *out, Error *error) {
  const YamlNode *node = &document->nodes[index];
  *out = (IntegerList){0};
  if (node->kind != YAML_KIND_SEQUENCE)
    return bad_value(option, document, node->line, node->text ? node->text : "a mapping", error);
  for (int64_t at = node->child; at >= 0; at = document->nodes[at].next) {
    if (out->count == CONFIG_LIST_LENGTH)
      return bad_value(option, document, document->nodes[at].line, "longer", error);
    TRY(read_integer(option, document, at, &out->values[out->count], error));
    out->count++;
  }
  return STATUS_OK;
}

static Status read_schedule(const Option *option, const YamlDocument *document, int64_t index,
                            SequenceSchedule *out, Error *error) {
  const YamlNode *node = &document->nodes[index];
  *out = (SequenceSchedule){0};
  if (node->kind != YAML_KIND_MAPPING)
    return bad_value(option, document, node->line, node->text ? node->text : "a list", error);
  for (int64_t at = node->child; at >= 0; at = document->nodes[document->nodes[at].next].next) {
    if (out->count == CONFIG_LIST_LENGTH)
      return bad_value(option, document, document->nodes[at].line, "longer", error);
    TRY(read_integer(option, document, at, &out->first_steps[out->count], error));
    TRY(read_integer(option, document, document->nodes[at].next, &out->lengths[out->count], error));
    out->count++;
  }
  return STATUS_OK;
}

Status option_value_set_text(const Option *option, const YamlDocument *document, int64_t line,
                             const char *text, Config *config, Error *error) {
  const size_t length = strlen(text);
  char name[OPTION_NAME_BYTES];
  option_name(option, name, sizeof name);
  if (length >= CONFIG_TEXT_BYTES)
    return yaml_reader_fail(document, line, error, "'%s' has %zu bytes; it must have less than %d", name,
                            length, CONFIG_TEXT_BYTES);
  memset(place_of(option, config), 0, CONFIG_TEXT_BYTES);
  memcpy(place_of(option, config), text, length);
  return STATUS_OK;
}

/* Nothing was given: that is an empty text, list or schedule, and no value for any other type. */
static Status set_empty(const Option *option, const YamlDocument *document, int64_t line, Config *config,
                        Error *error) {
  if (option->type == OPTION_TEXT) return option_value_set_text(option, document, line, "", config, error);
  if (option->type == OPTION_INTEGERS)
    *(IntegerList *)place_of(option, config) = (IntegerList){0};
  else if (option->type == OPTION_SCHEDULE)
    *(SequenceSchedule *)place_of(option, config) = (SequenceSchedule){0};
  else
    return bad_value(option, document, line, "empty", error);
  return STATUS_OK;
}

Status option_value_set(const Option *option, const YamlDocument *document, int64_t index, Config *config,
                        Error *error) {
  if (index >= document->count) return set_empty(option, document, 1, config, error);
  const YamlNode *node = &document->nodes[index];
  void *place = place_of(option, config);
  const bool scalar = node->kind == YAML_KIND_SCALAR;
  if (scalar && node->plain &&
      (!*node->text || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0))
    return set_empty(option, document, node->line, config, error);
  if (option->type == OPTION_INTEGERS) return read_integers(option, document, index, place, error);
  if (option->type == OPTION_SCHEDULE) return read_schedule(option, document, index, place, error);
  if (!scalar) return bad_value(option, document, node->line, "a list or a mapping", error);
  switch (option->type) {
  case OPTION_INTEGER:
    return read_integer(option, document, index, place, error);
  case OPTION_REAL:
    return read_real(option, document, node, place, error);
  case OPTION_BOOLEAN:
    return read_boolean(option, document, node, place, error);
  case OPTION_CHOICE:
    return read_choice(option, document, node, place, error);
  default:
    return option_value_set_text(option, document, node->line, node->text, config, error);
  }
}

/* ---------------------------------------------------------------- to YAML */

static int emit_scalar(yaml_emitter_t *emitter, const char *text, yaml_scalar_style_t style) {
  yaml_event_t event;
  const int plain = style == YAML_PLAIN_SCALAR_STYLE;
  /* libyaml copies the text, whatever its type says. */
  return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), plain,
                                      !plain, style) &&
         yaml_emitter_emit(emitter, &event);
}

static int emit_plain(yaml_emitter_t *emitter, const char *text) {
  return emit_scalar(emitter, text, YAML_PLAIN_SCALAR_STYLE);
}

static int emit_integer(yaml_emitter_t *emitter, int64_t value) {
  char text[REAL_BYTES];
  (void)snprintf(text, sizeof text, "%lld", (long long)value);
  return emit_plain(emitter, text);
}

static int emit_integers(yaml_emitter_t *emitter, const IntegerList *list) {
  yaml_event_t event;
  int good = yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_FLOW_SEQUENCE_STYLE) &&
             yaml_emitter_emit(emitter, &event);
  for (int64_t i = 0; good && i < list->count; i++) good = emit_integer(emitter, list->values[i]);
  return good && yaml_sequence_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event);
}

static int emit_schedule(yaml_emitter_t *emitter, const SequenceSchedule *schedule) {
  yaml_event_t event;
  int good = yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_FLOW_MAPPING_STYLE) &&
             yaml_emitter_emit(emitter, &event);
  for (int64_t i = 0; good && i < schedule->count; i++)
    good = emit_integer(emitter, schedule->first_steps[i]) && emit_integer(emitter, schedule->lengths[i]);
  return good && yaml_mapping_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event);
}

int option_value_emit(const Option *option, const Config *config, yaml_emitter_t *emitter) {
  const void *place = (const char *)config + option->offset;
  char text[REAL_BYTES];
  switch (option->type) {
  case OPTION_INTEGER:
    return emit_integer(emitter, *(const int64_t *)place);
  case OPTION_REAL:
    option_value_print_real(*(const double *)place, text, sizeof text);
    return emit_plain(emitter, text);
  case OPTION_BOOLEAN:
    return emit_plain(emitter, *(const bool *)place ? "true" : "false");
  case OPTION_CHOICE:
    return emit_plain(emitter, option->choices[*(const int *)place]);
  case OPTION_INTEGERS:
    return emit_integers(emitter, place);
  case OPTION_SCHEDULE:
    return emit_schedule(emitter, place);
  default:
    /* In quotation marks, so that no text is read back as something else. */
    return emit_scalar(emitter, place, YAML_DOUBLE_QUOTED_SCALAR_STYLE);
  }
}
