/* Reads YAML into a tree of nodes, with limits on everything that a hostile or mistaken file could use: size,
 * depth, number of nodes; no anchors, aliases, tags or second document; no key twice in one mapping; no
 * control character in a value. Parsing is libyaml's. */
#ifndef RINGGPT_TRAIN_YAML_READER_H
#define RINGGPT_TRAIN_YAML_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

#define YAML_MAX_BYTES ((size_t)1 << 20)
#define YAML_MAX_DEPTH 32
#define YAML_MAX_NODES 4096

typedef enum YamlKind { YAML_KIND_SCALAR, YAML_KIND_SEQUENCE, YAML_KIND_MAPPING } YamlKind;

typedef struct YamlNode {
  YamlKind kind;
  bool plain;   /* a scalar without quotation marks */
  char *text;   /* of a scalar, valid UTF-8 without control characters; NULL for the other kinds */
  int64_t line; /* where it begins, from 1 */
  int64_t
      child;    /* first child's index, -1: none. The children of a mapping are key, value, key, value, ... */
  int64_t next; /* next sibling's index, -1: the last */
} YamlNode;

/* A tree. nodes[0] is its root; an empty text has no nodes at all. */
typedef struct YamlDocument {
  char source[512]; /* what error messages begin with */
  bool has_lines;   /* they go on with ":line" */
  YamlNode *nodes;  /* (count) */
  int64_t count;
} YamlDocument;

/* Parses `length` bytes of text. The caller calls yaml_reader_free, also after a failure.
 * Fails with STATUS_CONFIG, or STATUS_SYSTEM without memory. */
Status yaml_reader_parse(const char *source, bool has_lines, const char *text, size_t length,
                         YamlDocument *out, Error *error);

/* Reads and parses a file; messages name it and the line. Fails as yaml_parse and file_read_whole do. */
Status yaml_reader_load(const char *path, YamlDocument *out, Error *error);

/* Releases the nodes. A zeroed document is allowed. */
void yaml_reader_free(YamlDocument *document);

/* Records "source:line: <message>" and returns STATUS_CONFIG. */
Status yaml_reader_fail(const YamlDocument *document, int64_t line, Error *error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
