/* YAML into a tree of nodes, from the events of libyaml's parser. */
#include "train/yaml_reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "kernels/base/file.h"
#include "kernels/base/memory.h"

/* A mapping or sequence that is still open. */
typedef struct OpenNode {
  int64_t node;
  int64_t last;  /* its last child so far, -1: none */
  int64_t count; /* its children so far */
} OpenNode;

typedef struct Builder {
  YamlDocument *document;
  OpenNode open[YAML_MAX_DEPTH];
  int depth;
  int64_t documents;
} Builder;

Status yaml_reader_fail(const YamlDocument *document, int64_t line, Error *error, const char *format, ...) {
  char text[sizeof error->text];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (!document->has_lines) return fail(error, STATUS_CONFIG, "%s: %s", document->source, text);
  return fail(error, STATUS_CONFIG, "%s:%lld: %s", document->source, (long long)line, text);
}

/* Refuses a scalar with a control character: every value fits on one line of a message. */
static Status check_scalar(const YamlDocument *document, const yaml_event_t *event, int64_t line,
                           Error *error) {
  const yaml_char_t *value = event->data.scalar.value;
  for (size_t i = 0; i < event->data.scalar.length; i++)
    if (value[i] < 0x20 || value[i] == 0x7f)
      return yaml_reader_fail(
          document, line, error,
          "a value contains the control character 0x%02x; write it on one line, without such "
          "characters",
          (unsigned)value[i]);
  return STATUS_OK;
}

/* Refuses a key that is no scalar or that the mapping has already. */
static Status check_key(const YamlDocument *document, const OpenNode *mapping, const YamlNode *key,
                        Error *error) {
  if (key->kind != YAML_KIND_SCALAR)
    return yaml_reader_fail(document, key->line, error,
                            "a key is a mapping or a sequence; it must be a name");
  int64_t other = document->nodes[mapping->node].child;
  while (other >= 0) {
    const YamlNode *node = &document->nodes[other];
    if (strcmp(node->text, key->text) == 0)
      return yaml_reader_fail(document, key->line, error,
                              "duplicate key '%.60s', first given in line %lld; keep one", key->text,
                              (long long)node->line);
    other = document->nodes[node->next].next;
  }
  return STATUS_OK;
}

/* Adds a finished node to the tree; it takes over node->text. */
static Status add_node(Builder *builder, YamlNode node, Error *error) {
  YamlDocument *document = builder->document;
  OpenNode *parent = builder->depth > 0 ? &builder->open[builder->depth - 1] : NULL;
  Status status = STATUS_OK;
  if (document->count == YAML_MAX_NODES)
    TRY_GOTO(yaml_reader_fail(document, node.line, error, "more than %d values; a configuration has fewer",
                              YAML_MAX_NODES),
             refused);
  const bool is_key =
      parent && document->nodes[parent->node].kind == YAML_KIND_MAPPING && parent->count % 2 == 0;
  if (is_key) TRY_GOTO(check_key(document, parent, &node, error), refused);
  if (node.kind != YAML_KIND_SCALAR && builder->depth == YAML_MAX_DEPTH)
    TRY_GOTO(yaml_reader_fail(document, node.line, error, "nested deeper than %d levels", YAML_MAX_DEPTH),
             refused);

  const int64_t index = document->count++;
  document->nodes[index] = node;
  if (parent) {
    if (parent->last >= 0)
      document->nodes[parent->last].next = index;
    else
      document->nodes[parent->node].child = index;
    parent->last = index;
    parent->count++;
  }
  if (node.kind != YAML_KIND_SCALAR) builder->open[builder->depth++] = (OpenNode){.node = index, .last = -1};
  return STATUS_OK;

refused:
  free(node.text);
  return status;
}

/* Adds the node that an event begins. */
static Status add_event(Builder *builder, const yaml_event_t *event, Error *error) {
  const YamlDocument *document = builder->document;
  YamlNode node = {.line = (int64_t)event->start_mark.line + 1, .child = -1, .next = -1};
  const yaml_char_t *anchor = NULL, *tag = NULL;
  if (event->type == YAML_SCALAR_EVENT) {
    node.kind = YAML_KIND_SCALAR;
    node.plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    anchor = event->data.scalar.anchor;
    tag = event->data.scalar.tag;
  } else if (event->type == YAML_SEQUENCE_START_EVENT) {
    node.kind = YAML_KIND_SEQUENCE;
    anchor = event->data.sequence_start.anchor;
    tag = event->data.sequence_start.tag;
  } else {
    node.kind = YAML_KIND_MAPPING;
    anchor = event->data.mapping_start.anchor;
    tag = event->data.mapping_start.tag;
  }
  if (anchor)
    return yaml_reader_fail(document, node.line, error,
                            "an anchor (&%.60s) is not allowed; put a text that begins with & in quotes",
                            (const char *)anchor);
  if (tag)
    return yaml_reader_fail(document, node.line, error,
                            "a tag (%.60s) is not allowed; put a text that begins with ! in quotes",
                            (const char *)tag);
  if (node.kind == YAML_KIND_SCALAR) {
    TRY(check_scalar(document, event, node.line, error));
    node.text = strdup((const char *)event->data.scalar.value);
    if (!node.text) return fail(error, STATUS_SYSTEM, "%s: no memory for its values", document->source);
  }
  return add_node(builder, node, error);
}

static Status take_event(Builder *builder, const yaml_event_t *event, Error *error) {
  const int64_t line = (int64_t)event->start_mark.line + 1;
  switch (event->type) {
  case YAML_SCALAR_EVENT:
  case YAML_SEQUENCE_START_EVENT:
  case YAML_MAPPING_START_EVENT:
    return add_event(builder, event, error);
  case YAML_SEQUENCE_END_EVENT:
  case YAML_MAPPING_END_EVENT:
    builder->depth--;
    return STATUS_OK;
  case YAML_ALIAS_EVENT:
    return yaml_reader_fail(builder->document, line, error,
                            "an alias (*%.60s) is not allowed; put a text that begins with * in quotes",
                            (const char *)event->data.alias.anchor);
  case YAML_DOCUMENT_START_EVENT:
    if (++builder->documents == 1) return STATUS_OK;
    return yaml_reader_fail(builder->document, line, error, "a second document begins; a file holds one");
  default:
    return STATUS_OK;
  }
}

/* Reports what libyaml refused. */
static Status parser_error(const yaml_parser_t *parser, const YamlDocument *document, Error *error) {
  const char *problem = parser->problem ? parser->problem : "cannot be parsed";
  if (parser->error == YAML_MEMORY_ERROR)
    return fail(error, STATUS_SYSTEM, "%s: no memory to parse it", document->source);
  if (parser->error == YAML_READER_ERROR)
    return fail(error, STATUS_CONFIG, "%s: byte %zu: %s (it must be UTF-8 text)", document->source,
                parser->problem_offset, problem);
  const char *context = parser->context ? parser->context : "";
  const bool mark = strstr(context, "alias") || strstr(context, "anchor") || strstr(context, "a tag");
  return yaml_reader_fail(document, (int64_t)parser->problem_mark.line + 1, error, "not valid YAML: %s%s%s%s",
                          context, *context ? ", " : "", problem,
                          mark ? "; put a text that begins with *, & or ! in quotes" : "");
}

Status yaml_reader_parse(const char *source, bool has_lines, const char *text, size_t length,
                         YamlDocument *out, Error *error) {
  *out = (YamlDocument){.has_lines = has_lines};
  (void)snprintf(out->source, sizeof out->source, "%s", source);
  if (length > YAML_MAX_BYTES)
    return fail(error, STATUS_CONFIG, "%s: more than %zu bytes; a configuration is smaller", source,
                YAML_MAX_BYTES);
  void *nodes = NULL;
  TRY(memory_alloc(YAML_MAX_NODES, sizeof *out->nodes, "the values of a configuration", &nodes, error));
  out->nodes = nodes;

  yaml_parser_t parser;
  if (!yaml_parser_initialize(&parser))
    return fail(error, STATUS_SYSTEM, "%s: no memory to parse it", source);
  /* Said beforehand, so that nothing is taken for UTF-16. */
  yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
  Builder builder = {.document = out};
  Status status = STATUS_OK;
  bool at_end = false;
  while (status == STATUS_OK && !at_end) {
    yaml_event_t event;
    if (!yaml_parser_parse(&parser, &event)) {
      status = parser_error(&parser, out, error);
      break;
    }
    at_end = event.type == YAML_STREAM_END_EVENT;
    status = take_event(&builder, &event, error);
    yaml_event_delete(&event);
  }
  yaml_parser_delete(&parser);
  return status;
}

Status yaml_reader_load(const char *path, YamlDocument *out, Error *error) {
  *out = (YamlDocument){0};
  char *text = NULL;
  size_t length = 0;
  TRY(file_read_whole(path, YAML_MAX_BYTES, &text, &length, error));
  const Status status = yaml_reader_parse(path, true, text, length, out, error);
  free(text);
  return status;
}

void yaml_reader_free(YamlDocument *document) {
  for (int64_t i = 0; i < document->count; i++) free(document->nodes[i].text);
  free(document->nodes);
  *document = (YamlDocument){0};
}
