//! The configuration file of a client, changed without disturbing what is in it: comments, order, other servers.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use serde_json::Value;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike};

use crate::error::{JobError, Result};

enum Document {
    /// With comments and trailing commas.
    Json(CstRootNode),
    Toml(DocumentMut),
}

pub(super) struct ClientFile {
    /// The values as they were.
    pub(super) values: Value,
    document: Document,
}

impl ClientFile {
    /// Parses a text. An empty one is a file without values.
    pub(super) fn parse(text: &str, is_toml: bool) -> Result<Self> {
        let (values, document) = if is_toml {
            let values = toml_edit::de::from_str(text).map_err(JobError::failed)?;
            let document = text.parse().map_err(JobError::failed)?;
            (values, Document::Toml(document))
        } else {
            let options = ParseOptions {
                allow_missing_commas: false,
                ..ParseOptions::default()
            };
            let root = CstRootNode::parse(text, &options).map_err(JobError::failed)?;
            let values = root.to_serde_value().unwrap_or_default();
            (values, Document::Json(root))
        };
        Ok(Self { values, document })
    }

    /// Sets the value at `path`; an empty text is an empty list. `None` where something on the way to it is not an object.
    pub(super) fn set(&mut self, path: &[&str], value: &str) -> Option<()> {
        let (name, parents) = path.split_last()?;
        match &mut self.document {
            Document::Json(root) => {
                let mut object = root.object_value_or_create()?;
                for parent in parents {
                    object = object.object_value_or_create(parent)?;
                }
                let value = match value {
                    "" => CstInputValue::Array(Vec::new()),
                    text => text.into(),
                };
                match object.get(name) {
                    Some(old) => old.set_value(value),
                    None => drop(object.append(name, value)),
                }
            }
            Document::Toml(document) => {
                let mut table: &mut dyn TableLike = document.as_table_mut();
                for parent in parents {
                    let mut new = Table::new();
                    new.set_implicit(true);
                    let inner = table.entry(parent).or_insert(Item::Table(new));
                    table = inner.as_table_like_mut()?;
                }
                let mut value = match value {
                    "" => Array::new().into(),
                    text => toml_edit::Value::from(text),
                };
                match table.get_mut(name).and_then(Item::as_value_mut) {
                    Some(old) => {
                        // Keeps what stands around the value, such as a comment.
                        *value.decor_mut() = old.decor().clone();
                        *old = value;
                    }
                    None => drop(table.insert(name, Item::Value(value))),
                }
            }
        }
        Some(())
    }

    pub(super) fn into_text(self) -> String {
        match self.document {
            Document::Json(root) => root.to_string(),
            Document::Toml(document) => document.to_string(),
        }
    }
}
