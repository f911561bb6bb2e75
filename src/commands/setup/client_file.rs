//! The configuration file of a client, changed without disturbing what is in it: comments, order, line ends.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use serde_json::Value;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike};

use crate::error::JobError;

/// The first character of files from some editors.
const BYTE_ORDER_MARK: char = '\u{feff}';

#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    /// With comments and trailing commas.
    Json,
    Toml,
}

enum Document {
    Json(CstRootNode),
    Toml(Box<DocumentMut>),
}

/// A file that was parsed.
pub(super) struct ClientFile {
    /// The values as they were.
    pub(super) values: Value,
    document: Document,
    has_mark: bool,
    has_crlf: bool,
}

impl ClientFile {
    /// Parses a text. An empty one is a file without values.
    pub(super) fn parse(format: Format, text: &str) -> Result<Self, JobError> {
        let bare = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let (values, document) = match format {
            Format::Json => {
                let options = ParseOptions {
                    allow_missing_commas: false,
                    ..ParseOptions::default()
                };
                let root = CstRootNode::parse(bare, &options).map_err(JobError::failed)?;
                let values = root.to_serde_value().unwrap_or_default();
                (values, Document::Json(root))
            }
            Format::Toml => {
                let values = toml_edit::de::from_str(bare).map_err(JobError::failed)?;
                let document = bare.parse().map_err(JobError::failed)?;
                (values, Document::Toml(Box::new(document)))
            }
        };
        Ok(Self {
            values,
            document,
            has_mark: bare != text,
            has_crlf: text.contains("\r\n"),
        })
    }

    /// Sets the value at the end of `path`, with the objects around it; `None` is an empty list. Fails where one of those is not an
    /// object.
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
                    if !table.contains_key(parent) {
                        let mut new = Table::new();
                        new.set_implicit(true);
                        table.insert(parent, Item::Table(new));
                    }
                    let inner = table.get_mut(parent).and_then(Item::as_table_like_mut);
                    table = inner.ok_or_else(|| no_object(parent))?;
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
    pub(super) fn into_text(self) -> String {
        let mut text = match self.document {
            Document::Json(root) => root.to_string(),
            Document::Toml(document) => document.to_string(),
        };
        if self.has_crlf {
            text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        }
        if self.has_mark {
            text.insert(0, BYTE_ORDER_MARK);
        }
        text
    }
}
