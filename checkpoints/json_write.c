/* JSON objects put together member by member. */
#include "checkpoints/json_write.h"

JsonWriter json_write_begin(void) {
  json_t *object = json_object();
  return (JsonWriter){.object = object, .failed = object == NULL};
}

void json_write_value(JsonWriter *writer, const char *key, json_t *value) {
  if (json_object_set_new(writer->object, key, value) != 0) writer->failed = true;
}

void json_write_integer(JsonWriter *writer, const char *key, int64_t value) {
  json_write_value(writer, key, json_integer(value));
}

void json_write_real(JsonWriter *writer, const char *key, double value) {
  json_write_value(writer, key, json_real(value));
}

void json_write_string(JsonWriter *writer, const char *key, const char *value) {
  json_write_value(writer, key, json_string(value));
}

void json_write_bool(JsonWriter *writer, const char *key, bool value) {
  json_write_value(writer, key, json_boolean(value));
}

void json_write_null(JsonWriter *writer, const char *key) {
  json_write_value(writer, key, json_null());
}

void json_write_object(JsonWriter *writer, const char *key, JsonWriter *inner) {
  writer->failed = writer->failed || inner->failed;
  json_write_value(writer, key, inner->object);
  inner->object = NULL;
}
