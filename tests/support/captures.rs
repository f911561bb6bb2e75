//! What the real `oumi` and `sky` printed once, as files: `captures/<group>/<name>.{meta,out,err}`.

use std::fs;
use std::path::{Path, PathBuf};

/// One call of a real program.
pub struct Capture {
    /// The command line, as a person typed it.
    pub command: String,
    pub exit: i32,
    pub out: String,
    pub err: String,
}

impl Capture {
    /// Stdout and stderr, as they stand in the output of a supervised launch.
    pub fn output(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// The capture `name`, such as `sky/queue-json`.
pub fn capture(name: &str) -> Capture {
    let read = |end: &str| fs::read_to_string(folder().join(format!("{name}.{end}")));
    let meta = read("meta").unwrap_or_else(|error| panic!("{name}.meta: {error}"));
    let field = |key: &str| {
        let line = meta.lines().find_map(|line| line.strip_prefix(key));
        line.expect("every meta file has this line").trim()
    };
    Capture {
        command: field("cmd:").to_owned(),
        exit: field("exit:").parse().expect("the exit code is a number"),
        out: read("out").expect("every capture has a stdout"),
        err: read("err").unwrap_or_default(),
    }
}

/// The names of all captures.
pub fn names() -> Vec<String> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("the captures can be read");
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let groups = entries(&folder()).into_iter().filter(|path| path.is_dir());
    let mut names: Vec<String> = groups
        .flat_map(|group| entries(&group))
        .filter(|path| path.extension().is_some_and(|end| end == "out"))
        .map(|path| {
            let name = path.with_extension("");
            let name = name.strip_prefix(folder()).unwrap();
            name.display().to_string()
        })
        .collect();
    names.sort();
    names
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/captures")
}
