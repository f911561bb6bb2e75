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

/// Copies a config within twice [`MAX_CONFIG`] bytes.
pub(super) fn config_excerpt(config: &Value) -> Value {
    let (mut left, mut copy) = (MAX_CONFIG, Map::new());
    let fields = config.as_object().into_iter().flatten();
    for (name, value) in fields.clone() {
        if left == 0 {
            let more = format!("{} more", fields.count() - copy.len());
            copy.insert("…".to_owned(), more.into());
            break;
        }
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let value = match text.len() <= left {
            true => value.clone(),
            false => excerpt(&text, left).into(),
        };
        copy.insert(excerpt(name, left), value);
        // Each field has its marks.
        left = left.saturating_sub(name.len() + text.len() + 8);
    }
    copy.into()
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
