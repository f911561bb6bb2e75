//! The configuration file of a client, changed without disturbing what is in it: comments, order, line ends.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use serde_json::Value;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike};

use crate::error::JobError;

/// A file that was parsed.
pub(super) struct ClientFile {
    /// The values as they were.
    pub(super) values: Value,
    document: Document,
}

enum Document {
    /// With comments and trailing commas.
    Json(CstRootNode),
    Toml(Box<DocumentMut>),
}

impl ClientFile {
    /// Parses a text. An empty one is a file without values.
    pub(super) fn parse(is_toml: bool, text: &str) -> Result<Self, JobError> {
        let (values, document) = if is_toml {
            let document: DocumentMut = text.parse().map_err(JobError::failed)?;
            let values = toml_edit::de::from_document(document.clone());
            (
                values.map_err(JobError::failed)?,
                Document::Toml(Box::new(document)),
            )
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

    /// Sets the text at the end of `path`, with the objects around it; `None` is an empty list. Fails where one of those is
    /// not an object.
    pub(super) fn set(&mut self, path: &[&str], value: Option<&str>) -> Result<(), JobError> {
        let (name, parents) = path.split_last().unwrap_or((&"", &[]));
        let no_object = |what: &str| JobError::failed(format!("{what} in it is not an object"));
        match &mut self.document {
            Document::Json(root) => {
                let whole = root.object_value_or_create();
                let mut object = whole.ok_or_else(|| no_object("the whole"))?;
                for parent in parents {
                    let inner = object.object_value_or_create(parent);
                    object = inner.ok_or_else(|| no_object(parent))?;
                }
                let value = value.map_or(CstInputValue::Array(Vec::new()), CstInputValue::from);
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
                    table = inner.as_table_like_mut().ok_or_else(|| no_object(parent))?;
                }
                let value = value.map_or(Array::new().into(), toml_edit::Value::from);
                match table.get_mut(name).and_then(Item::as_value_mut) {
                    Some(old) => {
                        // What stands around it, such as a comment.
                        let decor = old.decor().clone();
                        *old = value;
                        *old.decor_mut() = decor;
                    }
                    None => drop(table.insert(name, Item::Value(value))),
                }
            }
        }
        Ok(())
    }

    /// Returns the whole text.
    pub(super) fn text(&self) -> String {
        match &self.document {
            Document::Json(root) => root.to_string(),
            Document::Toml(document) => document.to_string(),
        }
    }
}
