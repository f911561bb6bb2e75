//! The JSON schemas of the tools, in the few words that every client understands.

use std::sync::Arc;

use rmcp::handler::server::tool::{schema_for_input, schema_for_output};
use rmcp::model::JsonObject;
use serde_json::{Value, json};

pub(super) fn input_schema<T: schemars::JsonSchema + 'static>() -> Arc<JsonObject> {
    strip_metadata(schema_for_input::<T>().unwrap_or_else(|error| {
        // Only a type that is no object can come here, and every request is one.
        tracing::error!(%error, "a tool has no schema");
        Default::default()
    }))
}

/// Returns the schema of an answer without descriptions: no model is shown it, and clients pay for its bytes. The formats are
/// Rust's (`uint64`), which strict clients reject.
pub(super) fn output_schema<T: schemars::JsonSchema + 'static>() -> Arc<JsonObject> {
    let mut schema = strip_metadata(schema_for_output::<T>());
    Arc::make_mut(&mut schema)
        .values_mut()
        .for_each(strip_descriptions);
    schema
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
                _ => true,
            });
            object.values_mut().for_each(strip_descriptions);
        }
        Value::Array(array) => array.iter_mut().for_each(strip_descriptions),
        _ => {}
    }
}

/// Removes what a model has no use for: it pays for every byte of a schema in each conversation.
fn strip_metadata(mut schema: Arc<JsonObject>) -> Arc<JsonObject> {
    let object_schema = Arc::make_mut(&mut schema);
    for key in ["$schema", "title", "description"] {
        object_schema.remove(key);
    }
    if let Some(Value::Object(properties)) = object_schema.get_mut("properties") {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            property.retain(|key, value| {
                key != "format" && !(key == "default" && (value == "" || value.is_null()))
            });
        }
    }
    object_schema.values_mut().for_each(normalize_unions);
    schema
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
