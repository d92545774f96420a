/* JSON objects put together member by member, with one check at the end that all of it was there. */
#ifndef RINGGPT_CHECKPOINTS_JSON_WRITE_H
#define RINGGPT_CHECKPOINTS_JSON_WRITE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* An object under construction. `failed`: some member could not be made for want of memory. */
typedef struct JsonWriter {
  json_t *object;
  bool failed;
} JsonWriter;

/* A writer of a new object. The caller passes it on by json_write_object or releases it by json_decref. */
JsonWriter json_write_begin(void);

/* Each sets one member; json_write_value takes the reference to `value`, which may be NULL for want of
 * memory. */
void json_write_value(JsonWriter *writer, const char *key, json_t *value);
void json_write_integer(JsonWriter *writer, const char *key, int64_t value);
void json_write_real(JsonWriter *writer, const char *key, double value);
void json_write_string(JsonWriter *writer, const char *key, const char *value);
void json_write_bool(JsonWriter *writer, const char *key, bool value);
void json_write_null(JsonWriter *writer, const char *key);

/* Sets a member to the object of `inner`, whose failure becomes that of `writer`. */
void json_write_object(JsonWriter *writer, const char *key, JsonWriter *inner);

#endif
