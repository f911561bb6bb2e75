//! Excerpts of configs and of what they hold: bounded, and with the number of what is left out.

use serde_json::{Map, Value};

/// The bytes of a config that an answer shows.
const MAX_CONFIG: usize = 16 * 1024;

/// Cuts a text to `max_bytes`, and counts what is left out.
pub(super) fn excerpt(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let (start, rest) = text.split_at(text.floor_char_boundary(max_bytes));
    format!("{start}… ({} more bytes in the config)", rest.len())
}

/// Copies a config within [`MAX_CONFIG`] bytes.
pub(super) fn config_excerpt(config: &Value) -> Value {
    copy(config, &mut MAX_CONFIG.clone())
}

fn copy(value: &Value, budget: &mut usize) -> Value {
    // Each value has its marks.
    *budget = budget.saturating_sub(8);
    match value {
        Value::Object(fields) => {
            let copies = fields.iter().map_while(|(name, field)| {
                (*budget > 0).then(|| (copied(name, budget), copy(field, budget)))
            });
            let mut copies: Map<String, Value> = copies.collect();
            if copies.len() < fields.len() {
                let left = format!("{} more", fields.len() - copies.len());
                copies.insert("…".to_owned(), left.into());
            }
            Value::Object(copies)
        }
        Value::Array(items) => {
            let copies = items.iter();
            let copies = copies.map_while(|item| (*budget > 0).then(|| copy(item, budget)));
            let mut copies: Vec<Value> = copies.collect();
            if copies.len() < items.len() {
                copies.push(format!("… {} more", items.len() - copies.len()).into());
            }
            Value::Array(copies)
        }
        Value::String(text) => copied(text, budget).into(),
        other => other.clone(),
    }
}

fn copied(text: &str, budget: &mut usize) -> String {
    let copied = excerpt(text, *budget);
    *budget = budget.saturating_sub(copied.len());
    copied
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_config_is_copied_within_its_bound() {
        let small = json!({ "run": "echo hi\n", "envs": { "A": "***" }, "num_nodes": 2, "x": [null, true] });
        assert_eq!(config_excerpt(&small), small);
        let texts = vec!["ä".repeat(5000); 50];
        for large in [
            json!({ "run": "x".repeat(800_000) }),
            json!({ "a": texts, "b": 1 }),
            json!({ "a": vec![1; 20_000] }),
            json!({ "k".repeat(800_000): 1, "b": 2, "c": [3] }),
            json!(
                (0..20_000)
                    .map(|n| (n.to_string(), json!({})))
                    .collect::<Map<_, _>>()
            ),
        ] {
            let text = config_excerpt(&large).to_string();
            assert!(text.len() < 2 * MAX_CONFIG, "{}", text.len());
            assert!(text.contains("more"), "{text}");
        }
    }
}
