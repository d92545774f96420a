/* The JSON header of a safetensors file. It has so narrow a form that it is read directly, without a tree of
 * values in between: whatever does not belong there is refused at its first byte, and a header cannot ask for
 * more memory than its entries take. Only strings with escapes or beyond ASCII are left to the JSON library.
 */
#include "checkpoints/safetensors_header.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The most pairs that the metadata may have. */
#define MAX_METADATA 1024

/* The fields of a tensor's description, as bits. */
enum { FIELD_DTYPE = 1, FIELD_SHAPE = 2, FIELD_OFFSETS = 4, FIELD_ALL = 7 };

typedef struct Parser {
  const char *path;
  char *text;
  size_t size;
  size_t at; /* the next byte */
  int64_t data_begin;
  int64_t data_end;
  SafetensorsEntry *entries; /* (capacity) */
  int64_t count;
  int64_t capacity;
  Error *error;
} Parser;

typedef struct Dtype {
  const char *name;
  int64_t bytes;
} Dtype;

static const Dtype DTYPES[] = {
    {"F32", 4},  {"BF16", 2}, {"F16", 2},     {"F64", 8},     {"I64", 8},     {"I32", 4},
    {"I16", 2},  {"I8", 1},   {"U64", 8},     {"U32", 4},     {"U16", 2},     {"U8", 1},
    {"BOOL", 1}, {"C64", 8},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
};

static const Dtype *find_dtype(const char *name) {
  for (size_t i = 0; i < sizeof DTYPES / sizeof DTYPES[0]; i++) {
    if (strcmp(DTYPES[i].name, name) == 0) return &DTYPES[i];
  }
  return NULL;
}

static Status damaged(const Parser *parser, const char *what) {
  return fail(parser->error, STATUS_DATA, "%s: safetensors header, byte %zu: %s", parser->path,
              parser->at + sizeof(uint64_t), what);
}

static Status damaged_entry(const Parser *parser, const char *name, const char *what) {
  return fail(parser->error, STATUS_DATA, "%s: safetensors header, tensor %s: %s", parser->path, name, what);
}

static bool at_byte(const Parser *parser, char byte) {
  return parser->at < parser->size && parser->text[parser->at] == byte;
}

static void skip_spaces(Parser *parser) {
  while (at_byte(parser, ' ') || at_byte(parser, '\t') || at_byte(parser, '\n') || at_byte(parser, '\r')) {
    parser->at++;
  }
}

static Status expect(Parser *parser, char byte, const char *what) {
  skip_spaces(parser);
  if (!at_byte(parser, byte)) return damaged(parser, what);
  parser->at++;
  return STATUS_OK;
}

/* Moves behind the string that begins here. */
static Status skip_string(Parser *parser) {
  for (parser->at++; parser->at < parser->size; parser->at++) {
    const char byte = parser->text[parser->at];
    if (byte == '\\') {
      parser->at++;
    } else if (byte == '"') {
      parser->at++;
      return STATUS_OK;
    }
  }
  parser->at = parser->size;
  return damaged(parser, "a string does not end");
}

/* Moves behind the comma or the `end` that comes next; *more tells which it was. */
static Status read_separator(Parser *parser, char end, bool *more) {
  skip_spaces(parser);
  *more = at_byte(parser, ',');
  if (!*more && !at_byte(parser, end)) {
    return damaged(parser, end == ']' ? "a comma or ] should be here" : "a comma or } should be here");
  }
  parser->at++;
  return STATUS_OK;
}

/* Whether text[begin, end) is printable ASCII without escapes, so that it stands for itself. */
static bool is_plain(const Parser *parser, size_t begin, size_t end) {
  for (size_t i = begin; i < end; i++) {
    const char byte = parser->text[i];
    if (byte < ' ' || byte > '~' || byte == '\\') return false;
  }
  return true;
}

/* Decodes the string in quotes at text[begin, end) in its place: an escape is never shorter than what it
 * stands for. The length of the text in *length. */
static Status decode_string(const Parser *parser, size_t begin, size_t end, size_t *length) {
  json_error_t ignored;
  json_t *string = json_loadb(parser->text + begin, end - begin, JSON_DECODE_ANY, &ignored);
  if (string == NULL) return damaged(parser, "the string in front is not valid JSON or UTF-8");
  *length = json_string_length(string);
  memcpy(parser->text + begin + 1, json_string_value(string), *length);
  json_decref(string);
  return STATUS_OK;
}

/* Reads the string that begins here; *out then lies in the text, with a zero in place of its final quote. */
static Status read_string(Parser *parser, const char **out) {
  skip_spaces(parser);
  if (!at_byte(parser, '"')) return damaged(parser, "a string in quotes should be here");
  const size_t begin = parser->at;
  TRY(skip_string(parser));
  size_t length = parser->at - begin - 2;
  if (!is_plain(parser, begin + 1, parser->at - 1)) {
    TRY(decode_string(parser, begin, parser->at, &length));
  }
  parser->text[begin + 1 + length] = '\0';
  *out = parser->text + begin + 1;
  return STATUS_OK;
}

/* The same for a string that names something. */
static Status read_name(Parser *parser, const char **out) {
  TRY(read_string(parser, out));
  if (strlen(*out) <= SAFETENSORS_MAX_NAME) return STATUS_OK;
  return damaged(parser, "the name in front is longer than 255 bytes");
}

/* ---------------------------------------------------------------- one tensor */

/* A whole number of 0 or more, below 2^63. */
static Status read_natural(Parser *parser, int64_t *value) {
  skip_spaces(parser);
  const size_t begin = parser->at;
  *value = 0;
  for (; parser->at < parser->size; parser->at++) {
    const int digit = parser->text[parser->at] - '0';
    if (digit < 0 || digit > 9) break;
    if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, digit, value)) {
      return damaged(parser, "a number is too large for 64 bits");
    }
  }
  const size_t digits = parser->at - begin;
  if (digits == 0 || (digits > 1 && parser->text[begin] == '0')) {
    return damaged(parser, "a whole number of 0 or more should be here");
  }
  return STATUS_OK;
}

/* An array of at most `most` numbers to values (most). */
static Status read_naturals(Parser *parser, int most, int64_t *values, int *count) {
  *count = 0;
  TRY(expect(parser, '[', "an array should be here"));
  skip_spaces(parser);
  if (at_byte(parser, ']')) {
    parser->at++;
    return STATUS_OK;
  }
  for (bool more = true; more;) {
    if (*count == most) return damaged(parser, "the array is too long");
    TRY(read_natural(parser, &values[*count]));
    (*count)++;
    TRY(read_separator(parser, ']', &more));
  }
  return STATUS_OK;
}

/* What the fields of one description say. */
typedef struct Description {
  int fields; /* those seen so far */
  const Dtype *dtype;
  int rank;
  int64_t shape[SAFETENSORS_MAX_RANK];
  int offset_count;
  int64_t offsets[2]; /* first byte of the data, and the one behind the last */
} Description;

static Status read_dtype(Parser *parser, Description *description) {
  const char *name = NULL;
  TRY(read_string(parser, &name));
  description->dtype = find_dtype(name);
  return description->dtype != NULL ? STATUS_OK : damaged(parser, "the dtype in front is unknown");
}

static Status read_field(Parser *parser, Description *description) {
  const char *key = NULL;
  int field = 0;
  Status status = STATUS_OK;
  TRY(read_string(parser, &key));
  TRY(expect(parser, ':', "a colon should be here"));
  if (strcmp(key, "dtype") == 0) {
    field = FIELD_DTYPE;
    status = read_dtype(parser, description);
  } else if (strcmp(key, "shape") == 0) {
    field = FIELD_SHAPE;
    status = read_naturals(parser, SAFETENSORS_MAX_RANK, description->shape, &description->rank);
  } else if (strcmp(key, "data_offsets") == 0) {
    field = FIELD_OFFSETS;
    status = read_naturals(parser, 2, description->offsets, &description->offset_count);
  } else {
    return damaged(parser, "a tensor has dtype, shape and data_offsets alone");
  }
  if (status == STATUS_OK && (description->fields & field) != 0) {
    return damaged(parser, "the field in front comes twice");
  }
  description->fields |= field;
  return status;
}

/* Checks what the fields say together. */
static Status place_tensor(const Parser *parser, const Description *description, SafetensorsEntry *entry) {
  const int64_t begin = description->offsets[0];
  const int64_t end = description->offsets[1];
  int64_t bytes = 0;
  entry->dtype = description->dtype->name;
  entry->rank = description->rank;
  entry->count = 1;
  for (int i = 0; i < entry->rank; i++) {
    entry->shape[i] = description->shape[i];
    if (__builtin_mul_overflow(entry->count, entry->shape[i], &entry->count)) {
      return damaged_entry(parser, entry->name, "its shape is too large for 64 bits");
    }
  }
  if (begin > end || end > parser->data_end - parser->data_begin) {
    return damaged_entry(parser, entry->name, "its data_offsets lie outside of the file");
  }
  if (__builtin_mul_overflow(entry->count, description->dtype->bytes, &bytes) || bytes != end - begin) {
    return damaged_entry(parser, entry->name, "its shape and its data_offsets do not have one size");
  }
  entry->begin = parser->data_begin + begin;
  entry->end = parser->data_begin + end;
  return STATUS_OK;
}

/* The object that begins here, which describes the tensor entry->name. */
static Status read_tensor(Parser *parser, SafetensorsEntry *entry) {
  Description description = {0};
  parser->at++;
  for (bool more = true; more;) {
    TRY(read_field(parser, &description));
    TRY(read_separator(parser, '}', &more));
  }
  if (description.fields != FIELD_ALL || description.offset_count != 2) {
    return damaged_entry(parser, entry->name, "it lacks dtype, shape or two data_offsets");
  }
  return place_tensor(parser, &description, entry);
}

/* ---------------------------------------------------------------- all tensors */

static Status append_entry(Parser *parser, const SafetensorsEntry *entry) {
  if (parser->count == SAFETENSORS_MAX_TENSORS) return damaged(parser, "more than 100000 tensors");
  if (parser->count == parser->capacity) {
    const int64_t capacity = parser->capacity == 0 ? 64 : 2 * parser->capacity;
    SafetensorsEntry *grown = realloc(parser->entries, (size_t)capacity * sizeof *grown);
    if (grown == NULL) return fail(parser->error, STATUS_SYSTEM, "%s: no memory left", parser->path);
    parser->entries = grown;
    parser->capacity = capacity;
  }
  parser->entries[parser->count++] = *entry;
  return STATUS_OK;
}

static bool is_among(const char *name, const char *const *names, int count) {
  for (int i = 0; i < count; i++) {
    if (strcmp(name, names[i]) == 0) return true;
  }
  return false;
}

/* The object that begins here, which maps strings to strings; nobody needs them here. */
static Status read_metadata(Parser *parser) {
  const char *keys[MAX_METADATA];
  const char *value = NULL;
  int count = 0;
  bool more = true;
  parser->at++;
  skip_spaces(parser);
  if (at_byte(parser, '}')) {
    parser->at++;
    return STATUS_OK;
  }
  for (; more; count++) {
    if (count == MAX_METADATA) return damaged(parser, "more than 1024 metadata");
    TRY(read_name(parser, &keys[count]));
    if (is_among(keys[count], keys, count)) return damaged(parser, "the metadata in front come twice");
    TRY(expect(parser, ':', "a colon should be here"));
    TRY(read_string(parser, &value));
    TRY(read_separator(parser, '}', &more));
  }
  return STATUS_OK;
}

/* Whether valid UTF-8 holds characters below space, DEL, or one of U+0080 to U+009F: names are printed, and
 * these could command the terminal. */
static bool has_controls(const char *text) {
  for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
    if (*at < ' ' || *at == 0x7f || (*at == 0xc2 && at[1] < 0xa0)) return true;
  }
  return false;
}

static Status read_member(Parser *parser, bool *metadata_seen) {
  SafetensorsEntry entry = {0};
  TRY(read_name(parser, &entry.name));
  if (has_controls(entry.name)) return damaged(parser, "the tensor's name in front has control characters");
  TRY(expect(parser, ':', "a colon should be here"));
  skip_spaces(parser);
  if (!at_byte(parser, '{')) return damaged(parser, "an object should be here");
  if (strcmp(entry.name, "__metadata__") != 0) {
    TRY(read_tensor(parser, &entry));
    return append_entry(parser, &entry);
  }
  if (*metadata_seen) return damaged(parser, "__metadata__ comes twice");
  *metadata_seen = true;
  return read_metadata(parser);
}

static Status read_members(Parser *parser) {
  bool metadata_seen = false;
  if (!at_byte(parser, '{')) return damaged(parser, "it does not start with {");
  parser->at++;
  skip_spaces(parser);
  if (at_byte(parser, '}')) {
    parser->at++;
  } else {
    for (bool more = true; more;) {
      TRY(read_member(parser, &metadata_seen));
      TRY(read_separator(parser, '}', &more));
    }
  }
  skip_spaces(parser);
  if (parser->at != parser->size) return damaged(parser, "something follows the header's last }");
  return STATUS_OK;
}

static int by_place(const void *left, const void *right) {
  const SafetensorsEntry *a = left;
  const SafetensorsEntry *b = right;
  if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
  return (a->end > b->end) - (a->end < b->end);
}

static int by_name(const void *left, const void *right) {
  const SafetensorsEntry *a = left;
  const SafetensorsEntry *b = right;
  return strcmp(a->name, b->name);
}

/* Leaves the entries in order of name. */
static Status check_together(Parser *parser) {
  SafetensorsEntry *entries = parser->entries;
  const size_t count = (size_t)parser->count;
  int64_t end = parser->data_begin;
  if (count > 0) qsort(entries, count, sizeof *entries, by_place);
  for (size_t i = 0; i < count; i++) {
    if (entries[i].begin != end) {
      return damaged_entry(parser, entries[i].name,
                           entries[i].begin < end ? "its data overlap those of another tensor"
                                                  : "there is a hole in front of its data");
    }
    end = entries[i].end;
  }
  if (end != parser->data_end) {
    return fail(parser->error, STATUS_DATA,
                "%s: the tensors end at byte %lld, the file at %lld: it is truncated or has something behind",
                parser->path, (long long)end, (long long)parser->data_end);
  }
  if (count > 0) qsort(entries, count, sizeof *entries, by_name);
  for (size_t i = 1; i < count; i++) {
    if (strcmp(entries[i - 1].name, entries[i].name) == 0) {
      return damaged_entry(parser, entries[i].name, "it is described twice");
    }
  }
  return STATUS_OK;
}

Status safetensors_parse_header(const char *path, char *text, size_t size, int64_t data_begin,
                                int64_t data_end, SafetensorsEntry **entries, int64_t *count, Error *error) {
  Parser parser = {.path = path, .size = size, .data_begin = data_begin, .data_end = data_end};
  parser.text = text;
  parser.error = error;
  Status status = STATUS_OK;
  TRY_GOTO(read_members(&parser), release);
  TRY_GOTO(check_together(&parser), release);
  *entries = parser.entries;
  *count = parser.count;
  return STATUS_OK;
release:
  free(parser.entries);
  return status;
}
