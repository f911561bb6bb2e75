//! The JSON schemas of the tools, in the few words that every client understands.

use rmcp::model::JsonObject;
use schemars::Schema;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

/// Removes from the schema of a tool's arguments or answer what a model has no use for: it pays for every byte in each
/// conversation. Formats are Rust's (`uint64`), and strict clients reject them. Of an answer no model is shown the descriptions and
/// bounds, and what is empty is left out: so nothing in it is null, and only `success` is required.
pub(super) fn simplify(schema: &mut JsonObject, is_answer: bool) {
    for key in ["$schema", "title", "description"] {
        schema.remove(key);
    }
    let mut whole = Schema::from(std::mem::take(schema));
    let mut transform = RecursiveTransform(|schema: &mut Schema| {
        let Some(schema) = schema.as_object_mut() else {
            return;
        };
        remove_null(schema);
        if let (Some(Value::Array(required)), true) = (schema.get_mut("required"), is_answer) {
            required.retain(|name| name == "success");
        }
        schema.retain(|key, value| match key.as_str() {
            "format" => false,
            "description" | "minimum" => !is_answer,
            "default" => !(*value == "" || value.is_null()),
            "required" => *value != Value::Array(Vec::new()),
            // The default.
            "additionalProperties" => *value != true,
            _ => true,
        });
    });
    transform.transform(&mut whole);
    *schema = std::mem::take(whole.ensure_object());
}

/// Rewrites a value that may be null as the value: not every model's dialect has the other forms.
fn remove_null(schema: &mut JsonObject) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            schema.extend(only);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_have_no_nulls() {
        let mut schema = json!({ "properties": {
            "perhaps": { "items": { "description": "some", "type": ["object", "null"], "required": ["a"] } },
            "maybe": { "anyOf": [{ "type": "string", "enum": ["a"] }, { "type": "null" }] },
            "description": { "type": "integer", "format": "uint64", "minimum": 0 },
        }, "required": ["success", "perhaps"] });
        simplify(schema.as_object_mut().unwrap(), true);
        assert_eq!(
            schema,
            json!({ "properties": {
                "perhaps": { "items": { "type": "object" } },
                "maybe": { "type": "string", "enum": ["a"] },
                    "description": { "type": "integer" },
            }, "required": ["success"] })
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
