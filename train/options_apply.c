/* Options from a document or an override into Config, and what is said of names that do not exist. */
#include <stdlib.h>
#include <string.h>

#include "train/names.h"
#include "train/option_value.h"
#include "train/options.h"

static bool is_section(const char *name) {
  int64_t count;
  const Option *table = options_table(&count);
  for (int64_t i = 0; i < count; i++)
    if (*table[i].section && strcmp(table[i].section, name) == 0) return true;
  return false;
}

/* ---------------------------------------------------------------- unknown names */

/* What is said of an unknown name: the nearest that exists, or where all are listed. */
static Status unknown(const YamlDocument *document, int64_t line, const char *what, const char *given,
                      const char *nearest, int64_t distance, Error *error) {
  if (names_near(given, distance))
    return yaml_reader_fail(document, line, error, "unknown %s '%.100s'; did you mean '%s'?", what, given,
                            nearest);
  return yaml_reader_fail(document, line, error, "unknown %s '%.100s'; 'ringgpt train --help' lists all",
                          what, given);
}

/* There is no option section.key. The same key in another section is near too. */
static Status unknown_key(const YamlDocument *document, int64_t line, const char *section, const char *key,
                          Error *error) {
  char given[2 * OPTION_NAME_BYTES], name[OPTION_NAME_BYTES], nearest[OPTION_NAME_BYTES] = "";
  (void)snprintf(given, sizeof given, "%.60s%s%.60s", section, *section ? "." : "", key);
  int64_t count;
  const Option *table = options_table(&count);
  int64_t least = INT64_MAX;
  for (int64_t i = 0; i < count; i++) {
    option_name(&table[i], name, sizeof name);
    const int64_t whole = names_distance(given, name);
    const int64_t elsewhere = names_distance(key, table[i].key) + 1;
    const int64_t distance = whole < elsewhere ? whole : elsewhere;
    if (distance >= least) continue;
    least = distance;
    memcpy(nearest, name, sizeof nearest);
  }
  return unknown(document, line, "key", given, nearest, least, error);
}

static Status unknown_section(const YamlDocument *document, int64_t line, const char *given, Error *error) {
  const char *nearest = "";
  int64_t count;
  const Option *table = options_table(&count);
  int64_t least = INT64_MAX;
  for (int64_t i = 0; i < count; i++) {
    const int64_t distance = names_distance(given, table[i].section);
    if (!*table[i].section || distance >= least) continue;
    least = distance;
    nearest = table[i].section;
  }
  return unknown(document, line, "section", given, nearest, least, error);
}

/* True where keys of a section begin with "group.": they stand in a mapping of their own. */
static bool is_group(const char *section, const char *group) {
  int64_t count;
  const Option *table = options_table(&count);
  const size_t length = strlen(group);
  for (int64_t i = 0; i < count; i++) {
    if (strcmp(table[i].section, section) != 0 || strncmp(table[i].key, group, length) != 0) continue;
    if (table[i].key[length] == '.') return true;
  }
  return false;
}

/* ---------------------------------------------------------------- a document */

/* Sets the options of one group of keys, which the key `group` has for its value. */
static Status apply_group(const YamlDocument *document, const char *section, const YamlNode *group,
                          Config *config, Error *error) {
  const YamlNode *value = &document->nodes[group->next];
  if (value->kind != YAML_KIND_MAPPING)
    return yaml_reader_fail(document, group->line, error,
                            "'%s.%s' is a mapping; indent its keys below it, or leave it out", section,
                            group->text);
  for (int64_t at = value->child; at >= 0; at = document->nodes[document->nodes[at].next].next) {
    const YamlNode *key = &document->nodes[at];
    char name[2 * OPTION_NAME_BYTES];
    (void)snprintf(name, sizeof name, "%s.%.60s", group->text, key->text);
    const Option *option = option_find(section, name);
    if (!option) return unknown_key(document, key->line, section, name, error);
    TRY(option_value_set(option, document, key->next, config, error));
  }
  return STATUS_OK;
}

/* Sets the options of one section, whose mapping is node `index`. */
static Status apply_section(const YamlDocument *document, const char *section, int64_t index, Config *config,
                            Error *error) {
  for (int64_t at = document->nodes[index].child; at >= 0;
       at = document->nodes[document->nodes[at].next].next) {
    const YamlNode *key = &document->nodes[at];
    if (is_group(section, key->text)) {
      TRY(apply_group(document, section, key, config, error));
      continue;
    }
    const Option *option = option_find(section, key->text);
    if (option && strchr(key->text, '.'))
      return yaml_reader_fail(document, key->line, error,
                              "'%s.%s' is one of a mapping; write the part before its dot as a key and the "
                              "other indented below it",
                              section, key->text);
    if (!option) return unknown_key(document, key->line, section, key->text, error);
    TRY(option_value_set(option, document, key->next, config, error));
  }
  return STATUS_OK;
}

/* Sets what one entry at the top level says: a section, or an option without one. */
static Status apply_entry(const YamlDocument *document, const YamlNode *key, Config *config, Error *error) {
  const YamlNode *value = &document->nodes[key->next];
  const Option *option = option_find("", key->text);
  if (option) return option_value_set(option, document, key->next, config, error);
  if (!is_section(key->text))
    return value->kind == YAML_KIND_MAPPING ? unknown_section(document, key->line, key->text, error)
                                            : unknown_key(document, key->line, "", key->text, error);
  if (value->kind != YAML_KIND_MAPPING)
    return yaml_reader_fail(document, key->line, error,
                            "'%s' is a section; indent its keys below it, or leave it out", key->text);
  return apply_section(document, key->text, key->next, config, error);
}

Status options_apply(const YamlDocument *document, Config *config, Error *error) {
  if (document->count == 0)
    return yaml_reader_fail(document, 1, error,
                            "holds nothing; a configuration has sections such as 'data:'");
  if (document->nodes[0].kind != YAML_KIND_MAPPING)
    return yaml_reader_fail(document, document->nodes[0].line, error,
                            "is not a mapping; a configuration has sections such as 'data:'");
  int64_t at = document->nodes[0].child;
  while (at >= 0) {
    const YamlNode *key = &document->nodes[at];
    TRY(apply_entry(document, key, config, error));
    at = document->nodes[key->next].next;
  }
  return STATUS_OK;
}

/* ---------------------------------------------------------------- an override */

/* Sets an option from the text behind the '=' of an override. */
static Status override_value(const Option *option, const char *source, const char *value, Config *config,
                             Error *error) {
  YamlDocument document = {0};
  Status status = STATUS_OK;
  if (option->type == OPTION_TEXT && *value != '"' && *value != '\'') {
    (void)snprintf(document.source, sizeof document.source, "%s", source);
    return option_value_set_text(option, &document, 0, value, config, error);
  }
  status = yaml_reader_parse(source, false, value, strlen(value), &document, error);
  if (status == STATUS_OK) status = option_value_set(option, &document, 0, config, error);
  yaml_reader_free(&document);
  return status;
}

Status options_override(const char *text, Config *config, Error *error) {
  YamlDocument place = {0};
  (void)snprintf(place.source, sizeof place.source, "override '%.200s'", text);
  const char *equals = strchr(text, '=');
  if (!equals || equals == text || equals - text >= 2 * OPTION_NAME_BYTES)
    return fail(error, STATUS_USAGE, "'%.200s' is not of the form section.key=value", text);
  char section[2 * OPTION_NAME_BYTES] = "", key[2 * OPTION_NAME_BYTES] = "";
  const char *dot = memchr(text, '.', (size_t)(equals - text)); /* a key may have a dot, a section has none */
  if (dot) memcpy(section, text, (size_t)(dot - text));
  const char *name = dot ? dot + 1 : text;
  memcpy(key, name, (size_t)(equals - name));
  if (!dot && is_section(key))
    return yaml_reader_fail(&place, 0, error,
                            "'%s' is a section; override its keys one by one, as %s.key=value", key, key);
  if (is_group(section, key))
    return yaml_reader_fail(&place, 0, error,
                            "'%s.%s' is a mapping; override its keys one by one, as %s.%s.key=value", section,
                            key, section, key);
  const Option *option = option_find(section, key);
  if (!option) return unknown_key(&place, 0, section, key, error);
  return override_value(option, place.source, equals + 1, config, error);
}
