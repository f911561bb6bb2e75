//! The JSON schemas of the tools, in the few words that every client understands.

use rmcp::model::JsonObject;
use serde_json::{Value, json};

/// Removes from the schema of a tool's arguments what a model has no use for: it pays for every byte in each conversation.
pub(super) fn simplify_input(schema: &mut JsonObject, is_closed: bool) {
    for key in ["$schema", "title", "description"] {
        schema.remove(key);
    }
    if is_closed {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            property.retain(|key, value| {
                key != "format" && !(key == "default" && (value == "" || value.is_null()))
            });
        }
    }
    schema.values_mut().for_each(normalize_unions);
}

/// Removes the descriptions from the schema of an answer: no model is shown it, and clients pay for its bytes. The formats are
/// Rust's (`uint64`), which strict clients reject. An answer leaves out what is empty, so no field but `success` is required.
pub(super) fn simplify_output(schema: &mut JsonObject) {
    schema.remove("$schema");
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name == "success");
    }
    schema.values_mut().for_each(strip_descriptions);
    schema.values_mut().for_each(normalize_unions);
}

fn strip_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            // A field may itself have such a name; then its value is a schema.
            object.retain(|key, value| match key.as_str() {
                "description" | "format" => !value.is_string(),
                "minimum" => !value.is_number(),
                // The default.
                "additionalProperties" => *value != true,
                "required" => !value.is_array(),
                _ => true,
            });
            object.values_mut().for_each(strip_descriptions);
        }
        Value::Array(array) => array.iter_mut().for_each(strip_descriptions),
        _ => {}
    }
}

/// Rewrites a schema to what the dialects of all models know: a choice of texts as an `enum`, and one `type` at a time.
fn normalize_unions(schema: &mut Value) {
    let object = match schema {
        Value::Object(object) => object,
        Value::Array(items) => return items.iter_mut().for_each(normalize_unions),
        _ => return,
    };
    object.values_mut().for_each(normalize_unions);
    if let Some(texts) = object.get("oneOf").and_then(text_choices) {
        object.shift_remove("oneOf");
        object.insert("type".to_owned(), "string".into());
        object.insert("enum".to_owned(), texts);
    }
    if let Some(Value::Array(types)) = object.get("type") {
        let types = types.clone();
        object.shift_remove("type");
        let mut common = JsonObject::new();
        common.extend(object.shift_remove_entry("description"));
        let each = types.into_iter().map(|kind| match kind.as_str() {
            Some("null") => json!({ "type": kind }),
            _ => {
                let mut one = JsonObject::from_iter([("type".to_owned(), kind)]);
                one.extend(object.clone());
                one.into()
            }
        });
        common.insert("anyOf".to_owned(), each.collect());
        *object = common;
    }
}

fn text_choices(choices: &Value) -> Option<Value> {
    let text = |choice: &Value| choice.get("const").filter(|text| text.is_string()).cloned();
    choices.as_array()?.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unions_become_enums_and_any_of() {
        let mut schema = json!({
            "choice": { "description": "which", "oneOf": [
                { "type": "string", "const": "a", "description": "the first" }, { "type": "string", "const": "b" },
            ], "default": "a" },
            "perhaps": { "items": { "description": "some", "type": ["object", "null"], "additionalProperties": true } },
            "either": { "oneOf": [{ "type": "string" }, { "const": 1 }] },
        });
        normalize_unions(&mut schema);
        assert_eq!(
            schema,
            json!({
                "choice": { "description": "which", "default": "a", "type": "string", "enum": ["a", "b"] },
                "perhaps": { "items": { "description": "some", "anyOf": [
                    { "type": "object", "additionalProperties": true }, { "type": "null" },
                ] } },
                "either": { "oneOf": [{ "type": "string" }, { "const": 1 }] },
            })
        );
    }

    #[test]
    fn no_tool_has_a_format_of_rust() {
        for tool in crate::server::tools::router().list_all() {
            let schemas =
                serde_json::to_string(&(&tool.input_schema, &tool.output_schema)).unwrap();
            assert!(
                !schemas.contains(r#""format":"#),
                "{}: {schemas}",
                tool.name
            );
        }
    }
}
