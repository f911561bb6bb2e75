//! Fits the arguments of a call to the schema of its tool. Models write numbers and booleans as texts, objects as JSON text, and
//! `null`, `""` or `"null"` for what they leave out.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::JobError;
use crate::text::{clean_controls, shorten};

/// The longest text that is not a script, in bytes. Answers repeat it.
const MAX_TEXT: usize = 8192;

/// The largest number that every integer field can hold.
const MAX_NUMBER: i64 = i32::MAX as i64;

/// Returns the arguments, each of the type that `schema` gives. One that the schema lacks is dropped, or refused where the
/// schema allows no others. Values of an object are secret and never repeated.
pub(super) fn fit(
    schema: &Map<String, Value>,
    arguments: Map<String, Value>,
) -> Result<Map<String, Value>, JobError> {
    let no_fields = Map::new();
    let fields = (schema.get("properties").and_then(Value::as_object)).unwrap_or(&no_fields);
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let mut fitted = Map::new();
    for (name, value) in arguments {
        if value.is_null() || value == "" || value == "null" {
            continue;
        }
        match fields.get(&name) {
            Some(field) => fitted.insert(
                name.clone(),
                Field {
                    name: &name,
                    schema: field,
                }
                .fit(value)?,
            ),
            None if is_closed => return Err(unknown(&name, fields)),
            None => continue,
        };
    }
    let required = schema.get("required").and_then(Value::as_array);
    let mut required = required.into_iter().flatten().filter_map(Value::as_str);
    match required.find(|name| !fitted.contains_key(*name)) {
        None => Ok(fitted),
        Some(name) => {
            let meaning = fields[name]["description"].as_str().unwrap_or_default();
            Err(JobError::invalid(format!(
                "missing field `{name}`: {meaning}"
            )))
        }
    }
}

/// Refuses a field, and names the one that it may be meant for.
fn unknown(name: &str, fields: &Map<String, Value>) -> JobError {
    let letters = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let meant = fields.keys().find(|known| letters(known) == letters(name));
    let error = JobError::invalid(format!(
        "unknown field `{}`",
        clean_controls(&shorten(name, 100))
    ));
    match meant {
        Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
        None => error.with_hint("nothing was done: call again without it"),
    }
}

/// A field of a tool's schema.
struct Field<'a> {
    name: &'a str,
    schema: &'a Value,
}

impl Field<'_> {
    fn fit(&self, value: Value) -> Result<Value, JobError> {
        let fitted = match (self.schema["type"].as_str(), self.choices()) {
            (Some("boolean"), _) => boolean(&value),
            (Some("integer"), _) => integer(&value)
                .filter(|number| self.range().is_none_or(|range| range.contains(number)))
                .map(Value::from),
            (Some("number"), _) => number(&value).map(Value::from),
            (Some("object"), _) => return self.fit_object(value),
            (_, Some(choices)) => choices
                .iter()
                .find(|choice| is_same_word(choice, &value))
                .cloned(),
            _ => text(&value).map(Value::from),
        };
        let is_script = self.name.ends_with("_script");
        match fitted {
            Some(Value::String(text)) if text.len() > MAX_TEXT && !is_script => {
                Err(self.misfit(&format!("it has at most {MAX_TEXT} bytes")))
            }
            Some(fitted) => Ok(fitted),
            None => Err(self.misfit(&format!("it is {}, not {}", self.meaning(), kind(&value)))),
        }
    }

    /// Fits an object of texts, which may itself be JSON text.
    fn fit_object(&self, value: Value) -> Result<Value, JobError> {
        let value = match &value {
            Value::String(text) => serde_json::from_str(text).unwrap_or(value),
            _ => value,
        };
        let Value::Object(values) = value else {
            return Err(self.misfit(&format!("it is {}", self.meaning())));
        };
        let mut fitted = Map::new();
        for (key, value) in values {
            let text = match &value {
                Value::Null => continue,
                Value::Array(_) | Value::Object(_) => None,
                // A number as it was written: 7.0 stays 7.0.
                Value::Number(number) => Some(number.to_string()),
                _ => text(&value),
            };
            let Some(text) = text.filter(|_| key.len() <= MAX_TEXT) else {
                let key = format!("{}.{}", self.name, clean_controls(&shorten(&key, 100)));
                let field = Field {
                    name: &key,
                    schema: self.schema,
                };
                return Err(
                    field.misfit("names and values are strings; the names have at most 8192 bytes")
                );
            };
            fitted.insert(key, text.into());
        }
        Ok(fitted.into())
    }

    /// Returns the numbers that fit. One that may be negative is a count, of which a large one is as good as all.
    fn range(&self) -> Option<RangeInclusive<i64>> {
        let minimum = self.schema["minimum"].as_i64()?;
        Some(minimum..=MAX_NUMBER)
    }

    fn choices(&self) -> Option<&Vec<Value>> {
        self.schema["enum"].as_array()
    }

    fn meaning(&self) -> String {
        match (self.schema["type"].as_str(), self.choices()) {
            (Some("boolean"), _) => "a boolean, true or false".to_owned(),
            (Some("integer"), _) => match self.range() {
                Some(range) => format!("a whole number from {} to {MAX_NUMBER}", range.start()),
                None => "a whole number".to_owned(),
            },
            (Some("number"), _) => "a number".to_owned(),
            (Some("object"), _) => "an object of texts, such as {\"NAME\": \"value\"}".to_owned(),
            (_, Some(choices)) => {
                let choices = choices.iter().filter_map(Value::as_str);
                let choices: Vec<_> = choices.map(|choice| format!("`{choice}`")).collect();
                choices.join(" or ")
            }
            _ => "a string".to_owned(),
        }
    }

    fn misfit(&self, reason: &str) -> JobError {
        JobError::invalid(format!(
            "the argument `{}` does not fit: {reason}",
            self.name
        ))
    }
}

fn boolean(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) => Some(value.clone()),
        _ => [true, false]
            .map(Value::Bool)
            .into_iter()
            .find(|one| is_same_word(&one.to_string().into(), value)),
    }
}

fn is_same_word(word: &Value, value: &Value) -> bool {
    let (word, value) = (word.as_str(), value.as_str());
    word.zip(value)
        .is_some_and(|(word, value)| word.eq_ignore_ascii_case(value.trim()))
}

/// Reads a number: `1.5`, `"1.5"`.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
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
        Value::Number(_) => {
            Some(integer(value).map_or_else(|| value.to_string(), |whole| whole.to_string()))
        }
        Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Names a value that does not fit.
fn kind(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        _ => clean_controls(&shorten(&value.to_string(), 60)).into_owned(),
    }
}

#[cfg(test)]
#[path = "tests/arguments.rs"]
mod tests;
