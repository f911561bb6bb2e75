//! The forms in which programs show a secret value.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::text::strip_escapes;

/// All but the unreserved characters of RFC 3986 is escaped in a part of a URL; Python leaves slashes too.
pub(crate) const IN_URLS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const IN_URLS_OF_PYTHON: &AsciiSet = &IN_URLS.remove(b'/');

/// Returns a value as it is, and as a terminal, JSON, a URL and base64 show it.
pub(super) fn forms(value: &str) -> BTreeSet<String> {
    let json = serde_json::Value::from(value).to_string();
    let escaped = |is_escaped: fn(char) -> bool| {
        let unit = |unit: &u16| format!("\\u{unit:04x}");
        let escape = |c: char| match is_escaped(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().map(unit).collect(),
            false => c.to_string(),
        };
        let chars = json.trim_matches('"').chars();
        chars.map(escape).collect::<String>()
    };
    let in_url = |kept| utf8_percent_encode(value, kept).to_string();
    let mut forms = BTreeSet::from([
        value.to_owned(),
        strip_escapes(value).into_owned(),
        escaped(|_| false),
        // By Python, and by Go.
        escaped(|c| !c.is_ascii()),
        escaped(|c| "<>&".contains(c)),
        in_url(IN_URLS),
        in_url(IN_URLS).replace("%20", "+"),
        in_url(IN_URLS_OF_PYTHON),
    ]);
    // What depends on the value alone, wherever it stands in what is encoded.
    for before in 0..3 {
        let bytes = [&b"::"[..before], value.as_bytes()].concat();
        let base64 = &BASE64.encode(&bytes)[(before * 8).div_ceil(6)..bytes.len() * 8 / 6];
        forms.insert(base64.replace('+', "-").replace('/', "_"));
        forms.insert(base64.to_owned());
    }
    forms
}
