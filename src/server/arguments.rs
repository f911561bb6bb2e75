//! Fits the arguments of a call to the schema of its tool. Models write numbers and booleans as texts, objects as JSON text, and
//! `null`, `""` or `"null"` for what they leave out.

use serde_json::{Map, Value};

use crate::error::{JobError, Result};
use crate::text::{clean_controls, shorten};

/// The longest text that is not a script, in bytes. Answers repeat it.
const MAX_TEXT: usize = 8192;

/// The largest number that every integer field can hold.
const MAX_NUMBER: i64 = i32::MAX as i64;

/// Returns the arguments, each of the type that `schema` gives, and the names of those that it lacks, where it allows others.
/// Values of an object are secret and never repeated.
pub(super) fn fit(
    schema: &Map<String, Value>,
    arguments: Map<String, Value>,
) -> Result<(Map<String, Value>, String)> {
    let no_fields = Map::new();
    let fields = (schema.get("properties").and_then(Value::as_object)).unwrap_or(&no_fields);
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let (mut fitted, mut unknown_names) = (Map::new(), Vec::new());
    for (name, value) in arguments {
        if value.is_null() || value == "" || value == "null" {
            continue;
        }
        match fields.get(&name) {
            Some(field) => drop(fitted.insert(name.clone(), fit_field(&name, field, &value)?)),
            None if is_closed => {
                let error = JobError::invalid(format!("unknown field `{}`", quoted(&name)));
                return Err(error.with_hint("nothing was done: use the names in the tool's schema"));
            }
            None => unknown_names.push(name),
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    let mut required = required.into_iter().flatten().filter_map(Value::as_str);
    match required.find(|name| !fitted.contains_key(*name)) {
        None => Ok((fitted, quoted(&unknown_names.join(", ")))),
        Some(name) => {
            let meaning = fields[name]["description"].as_str().unwrap_or_default();
            Err(JobError::invalid(format!(
                "missing field `{name}`: {meaning}"
            )))
        }
    }
}

fn fit_field(name: &str, schema: &Value, value: &Value) -> Result<Value> {
    let (fitted, meaning) = match (schema["type"].as_str(), schema["enum"].as_array()) {
        (Some("object"), _) => return fit_object(name, value),
        (Some("boolean"), _) => {
            let boolean = text(value).and_then(|text| text.trim().to_lowercase().parse().ok());
            (boolean.map(Value::Bool), "true or false".to_owned())
        }
        (Some("number"), _) => (number(value).map(Value::from), "a number".to_owned()),
        (Some("integer"), _) => match schema["minimum"].as_i64() {
            Some(least) => {
                let fits = |number: &i64| (least..=MAX_NUMBER).contains(number);
                let meaning = format!("a whole number from {least} to {MAX_NUMBER}");
                (integer(value).filter(fits).map(Value::from), meaning)
            }
            // A number of lines, of which any large number means all.
            None => (integer(value).map(Value::from), "a whole number".to_owned()),
        },
        (_, Some(choices)) => {
            let choices: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
            let word = value.as_str().unwrap_or_default().trim();
            let chosen = choices.iter().find(|it| it.eq_ignore_ascii_case(word));
            let chosen = chosen.map(|choice| Value::from(*choice));
            (chosen, format!("`{}`", choices.join("` or `")))
        }
        _ => (text(value).map(Value::from), "a string".to_owned()),
    };
    match fitted {
        Some(Value::String(text)) if text.len() > MAX_TEXT && !name.ends_with("_script") => {
            Err(misfit(name, &format!("must have at most {MAX_TEXT} bytes")))
        }
        Some(fitted) => Ok(fitted),
        None => {
            let value = match value {
                Value::Array(_) => "a list".to_owned(),
                Value::Object(_) => "an object".to_owned(),
                _ => quoted(&value.to_string()),
            };
            Err(misfit(name, &format!("must be {meaning}, not {value}")))
        }
    }
}

fn misfit(name: &str, reason: &str) -> JobError {
    JobError::invalid(format!("the argument `{name}` {reason}"))
}

/// Fits an object of texts, which may itself be JSON text.
fn fit_object(name: &str, value: &Value) -> Result<Value> {
    let json = value.as_str();
    let parsed = json.and_then(|json| serde_json::from_str(json).ok());
    let Value::Object(values) = parsed.as_ref().unwrap_or(value) else {
        let meaning = "must be an object of strings, such as {\"NAME\": \"value\"}";
        return Err(misfit(name, meaning));
    };
    let mut fitted = Map::new();
    for (key, value) in values.iter().filter(|(_, value)| !value.is_null()) {
        let text = match value {
            // A number as it was written: 7.0 stays 7.0.
            Value::Number(number) => Some(number.to_string()),
            _ => text(value),
        };
        let Some(text) = text.filter(|_| key.len() <= MAX_TEXT) else {
            let name = format!("{name}.{}", quoted(key));
            let meaning = "must be a string, and its name must have at most 8192 bytes";
            return Err(misfit(&name, meaning));
        };
        fitted.insert(key.clone(), text.into());
    }
    Ok(fitted.into())
}

/// Reads a number: `1.5`, `"1.5"`.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// Reads a whole number: `50`, `2.0`, `"50"`.
fn integer(value: &Value) -> Option<i64> {
    let number = number(value)?;
    (number.fract() == 0.0).then_some(number as i64)
}

/// Reads a text; a number or a boolean is one too.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // A whole number is taken as it is: an id may be larger than what a float holds.
        Value::Number(number) if number.is_f64() => {
            Some(integer(value).map_or_else(|| number.to_string(), |whole| whole.to_string()))
        }
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Shortens what an error repeats of the call's own words.
fn quoted(text: &str) -> String {
    clean_controls(&shorten(text, 60)).into_owned()
}

#[cfg(test)]
#[path = "tests/arguments.rs"]
mod tests;
