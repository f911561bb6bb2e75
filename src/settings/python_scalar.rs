//! Plain YAML scalars as texts, as Oumi makes them: read by OmegaConf's loader, which is PyYAML's with another float, and
//! written by Python.

use std::sync::LazyLock;

use regex::Regex;

/// The number of each base, with its prefix: YAML 1.1, as PyYAML resolves it.
const INTEGERS: [(&str, u32, &str); 4] = [
    (r"^[-+]?0b[0-1_]+$", 2, "0b"),
    (r"^[-+]?0[0-7_]+$", 8, "0"),
    (r"^[-+]?0x[0-9a-fA-F_]+$", 16, "0x"),
    (r"^[-+]?(?:0|[1-9][0-9_]*(?::[0-5]?[0-9])*)$", 10, ""),
];
const FLOAT: &str = concat!(
    r"^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?",
    r"|[-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+|\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?",
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
);

static INTEGER: LazyLock<Vec<(Regex, u32, &str)>> = LazyLock::new(|| {
    let compile = |(pattern, base, prefix)| Some((Regex::new(pattern).ok()?, base, prefix));
    INTEGERS.into_iter().filter_map(compile).collect()
});
static IS_FLOAT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(FLOAT).ok());

/// Returns the text that a plain scalar becomes where Oumi wants a text.
pub(super) fn python_text(plain: &str) -> String {
    match plain.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" if is_cased(plain) => return "True".to_owned(),
        "no" | "false" | "off" if is_cased(plain) => return "False".to_owned(),
        _ => {}
    }
    integer(plain)
        .or_else(|| float(plain))
        .unwrap_or_else(|| plain.to_owned())
}

/// Returns `true` for `yes`, `Yes` and `YES`, the forms that PyYAML knows.
fn is_cased(word: &str) -> bool {
    let rest = word.get(1..).unwrap_or_default();
    let is_lower = rest.chars().all(|c| c.is_ascii_lowercase());
    is_lower || word.chars().all(|c| c.is_ascii_uppercase())
}

fn integer(plain: &str) -> Option<String> {
    let (_, base, prefix) = INTEGER.iter().find(|(is, ..)| is.is_match(plain))?;
    let sign = if plain.starts_with('-') { "-" } else { "" };
    let digits = plain.trim_start_matches(['-', '+']).replace('_', "");
    let digits = digits.strip_prefix(prefix)?;
    let number = if digits.contains(':') {
        // Sexagesimal.
        let parts = digits.split(':').map(|part| part.parse::<u128>().ok());
        let sum = parts.reduce(|sum, part| sum?.checked_mul(60)?.checked_add(part?));
        sum??.to_string()
    } else if *base == 10 {
        digits.to_owned()
    } else {
        u128::from_str_radix(digits, *base).ok()?.to_string()
    };
    Some(match number.as_str() {
        "0" => number,
        _ => format!("{sign}{number}"),
    })
}

fn float(plain: &str) -> Option<String> {
    IS_FLOAT.as_ref().filter(|is| is.is_match(plain))?;
    let digits = plain.replace('_', "");
    let number = digits
        .parse()
        .or_else(|_| digits.replace('.', "").parse::<f64>());
    let number = number.ok()?;
    if number.is_nan() {
        return Some("nan".to_owned());
    }
    // Rust and Python both write the shortest digits; the exponent differs.
    let written = format!("{number:?}");
    let small = number != 0.0 && number.abs() < 1e-4;
    let written = if small {
        format!("{number:e}")
    } else {
        written
    };
    Some(match written.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{}e{sign}{exponent:0>2}", digits.trim_end_matches(".0"))
        }
        None => written,
    })
}

#[cfg(test)]
mod tests {
    use super::python_text;

    #[test]
    fn scalars_read_as_pyyaml_reads_them() {
        for (plain, text) in [
            ("007", "7"),
            ("0o7", "0o7"),
            ("08", "08"),
            ("1_000", "1000"),
            ("+5", "5"),
            ("-0", "0"),
            ("0x1F", "31"),
            ("-0b11", "-3"),
            ("1:30", "90"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("yes", "True"),
            ("OFF", "False"),
            ("oN", "oN"),
            ("true", "True"),
            ("1e3", "1000.0"),
            ("1.50", "1.5"),
            ("1.", "1.0"),
            (".5", "0.5"),
            ("1e16", "1e+16"),
            ("1.5e-7", "1.5e-07"),
            ("0.0001", "0.0001"),
            ("-.inf", "-inf"),
            (".NaN", "nan"),
            ("2024-01-01", "2024-01-01"),
            ("1.2.3", "1.2.3"),
            ("plain words", "plain words"),
            ("y", "y"),
        ] {
            assert_eq!(python_text(plain), text, "{plain}");
        }
    }
}
