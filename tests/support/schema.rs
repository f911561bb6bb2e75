//! As much of JSON Schema as the tools' output schemas use: strict clients hold every answer against them.

use serde_json::Value;

/// Why `value` is not what `schema` says; nothing when it is. `root` is where its references point.
pub fn misfit(value: &Value, schema: &Value, root: &Value) -> Option<String> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(reference.trim_start_matches('#'));
        return match target {
            Some(target) => misfit(value, target, root),
            None => Some(format!("{reference} points nowhere")),
        };
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(choices) = schema.get(key).and_then(Value::as_array)
            && !choices
                .iter()
                .any(|choice| misfit(value, choice, root).is_none())
        {
            return Some(format!("{value} is none of {choices:?}"));
        }
    }
    if let Some(wanted) = schema.get("const")
        && wanted != value
    {
        return Some(format!("{value} is not {wanted}"));
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array)
        && !choices.contains(value)
    {
        return Some(format!("{value} is none of {choices:?}"));
    }
    let kinds = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.clone(),
        Some(kind) => vec![kind.clone()],
        None => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_a(value, kind)) {
        return Some(format!("{value} is not of {kinds:?}"));
    }
    let of_items = value.as_array().into_iter().flatten().find_map(|item| {
        schema
            .get("items")
            .and_then(|items| misfit(item, items, root))
    });
    of_items.or_else(|| misfit_of_fields(value, schema, root))
}

fn misfit_of_fields(value: &Value, schema: &Value, root: &Value) -> Option<String> {
    let object = value.as_object()?;
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            return Some(format!("the field {name} is missing"));
        }
    }
    let properties = schema.get("properties")?;
    object
        .iter()
        .find_map(|(name, field)| match properties.get(name) {
            Some(property) => {
                misfit(field, property, root).map(|reason| format!("{name}: {reason}"))
            }
            // An answer holds no field that its schema does not know.
            None => Some(format!("the field {name} is not in the schema")),
        })
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str() {
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("null") => value.is_null(),
        _ => false,
    }
}
