//! What `oumi launch` prints. There is no JSON, so sentences and boxes are read, at any width of the terminal from
//! [`MIN_WIDTH`] up.

use super::{after, strip_terminal};

/// The narrowest terminal at which hard-wrapped sentences are put together again.
pub const MIN_WIDTH: usize = 30;

/// Who a job became, as the launch said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// The launcher's id.
    pub oumi_job_id: String,
    /// The cluster, where the launch said it.
    pub cluster: Option<String>,
}

/// One row of `oumi launch status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OumiStatusRow {
    /// The cluster; cut in a terminal that is too narrow for it.
    pub cluster: String,
    /// The launcher's id.
    pub oumi_job_id: String,
    /// The launcher's word.
    pub status: String,
}

/// Who the job became, from the output of `oumi launch up`: `Job <id> queued on cluster <cluster>.`, else SkyPilot's
/// earlier `Job submitted, ID: <id>`, after which the launch can still fail or be killed.
pub fn launched(output: &str) -> Option<Launched> {
    let text = strip_terminal(output);
    queued(&text).or_else(|| submitted(&text))
}

/// The cluster that was there before, when the job was added to one. SkyPilot then skips the job's `setup`.
pub fn found_existing_cluster(output: &str) -> Option<String> {
    let text = strip_terminal(output);
    line_starts(&text, "Found").find_map(|rest| {
        let rest = ["an", "existing", "cluster:"]
            .into_iter()
            .try_fold(rest, expect_word)?;
        name_at_end_of_sentence(rest)
    })
}

/// The rows of all tables that `oumi launch status` printed.
pub fn oumi_statuses(output: &str) -> Vec<OumiStatusRow> {
    let text = strip_terminal(output);
    let mut rows: Vec<OumiStatusRow> = Vec::new();
    let mut cluster = "";
    let mut columns = None;
    for line in text.lines() {
        if let Some(title) = box_title(line) {
            (cluster, columns) = (title, None);
            continue;
        }
        let cells = table_cells(line);
        let place = |name| cells.iter().position(|cell| *cell == name);
        if let (Some(job), Some(status)) = (place("Job"), place("Status")) {
            columns = Some((job, status));
            continue;
        }
        let Some((job, status)) = columns else {
            continue;
        };
        let (Some(job), Some(status)) = (cells.get(job), cells.get(status)) else {
            continue;
        };
        if !status.contains(char::is_alphanumeric) {
            continue;
        }
        match rows.last_mut() {
            // A status of several words that was wrapped within its cell.
            Some(row) if job.is_empty() => {
                row.status.push(' ');
                row.status.push_str(status);
            }
            _ => rows.push(OumiStatusRow {
                cluster: cluster.to_owned(),
                oumi_job_id: (*job).to_owned(),
                status: (*status).to_owned(),
            }),
        }
    }
    rows
}

/// What `oumi launch logs` prints before the log.
pub const LOG_BEGINS: &str = "Logging to console...";

/// The job's own lines in the output of `oumi launch logs`, as they are.
pub fn oumi_log_lines(output: &str) -> String {
    let mut lines = output.split_inclusive('\n');
    lines.find(|line| strip_terminal(line).starts_with(LOG_BEGINS));
    lines.collect()
}

fn queued(text: &str) -> Option<Launched> {
    line_starts(text, "Job").find_map(|rest| {
        let (id, rest) = next_word(rest)?;
        let rest = ["queued", "on", "cluster"]
            .into_iter()
            .try_fold(rest, expect_word)?;
        Some(Launched {
            oumi_job_id: id.to_owned(),
            cluster: Some(name_at_end_of_sentence(rest)?),
        })
    })
}

fn submitted(text: &str) -> Option<Launched> {
    let word_after = |sentence| after(text, sentence)?.split_whitespace().next();
    let oumi_job_id = word_after("Job submitted, ID: ")?;
    let cluster = word_after("Running on cluster: ")
        .map(ToOwned::to_owned)
        .or_else(|| found_existing_cluster(text));
    Some(Launched {
        oumi_job_id: oumi_job_id.to_owned(),
        cluster,
    })
}

/// What follows `word` wherever a line begins with it.
fn line_starts<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(word)
        .filter(|(at, _)| *at == 0 || text[..*at].ends_with('\n'))
        .map(|(at, _)| &text[at + word.len()..])
}

/// The next word, which must stand behind a space or one new line, and what follows it.
fn next_word(text: &str) -> Option<(&str, &str)> {
    let word = text.trim_start_matches(' ');
    let word = word.strip_prefix('\n').unwrap_or(word);
    if word.len() == text.len() {
        return None;
    }
    let end = word.find([' ', '\n']).unwrap_or(word.len());
    (end > 0).then(|| word.split_at(end))
}

fn expect_word<'a>(text: &'a str, expected: &str) -> Option<&'a str> {
    next_word(text)
        .filter(|(word, _)| *word == expected)
        .map(|(_, rest)| rest)
}

/// A cluster's name with which a sentence ends. A name longer than a line is cut into lines of the terminal's width.
fn name_at_end_of_sentence(text: &str) -> Option<String> {
    let (first, mut rest) = next_word(text)?;
    let mut name = first.to_owned();
    let starts_line = text.trim_start_matches(' ').starts_with('\n');
    if starts_line && first.len() >= MIN_WIDTH {
        while let Some((piece, after)) = continued(rest, &name, first.len()) {
            name.push_str(piece);
            rest = after;
            if piece.len() < first.len() {
                break;
            }
        }
    }
    name.strip_suffix('.')
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned)
}

/// The next piece of a name that fills lines of `width`: it is alone on its line and no longer than that. Where the name so
/// far could be all of it, the piece must fill its line or end the sentence.
fn continued<'a>(rest: &'a str, so_far: &str, width: usize) -> Option<(&'a str, &'a str)> {
    let line = rest.strip_prefix('\n')?;
    let (piece, after) = line.split_at(line.find('\n').unwrap_or(line.len()));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    (!piece.is_empty()
        && piece.len() <= width
        && piece.chars().all(is_name)
        && (!so_far.ends_with('.') || piece.ends_with('.') || piece.len() == width))
        .then_some((piece, after))
}

/// The cluster in the upper edge of a box.
fn box_title(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (_, title) = line.split_once("Cluster: ")?;
    let end = title.find(|c: char| c.is_whitespace() || is_box_drawing(c));
    line.starts_with(['╭', '+'])
        .then(|| &title[..end.unwrap_or(title.len())])
}

/// The cells of a row of a table in a box. Terminals without these characters get `|`.
fn table_cells(line: &str) -> Vec<&str> {
    let mut pieces = line.trim().split(['│', '┃', '|']);
    // The edge of the box with nothing before it, then the space between the box and the table.
    let edges = (
        pieces.next(),
        pieces.next(),
        pieces.next_back(),
        pieces.next_back(),
    );
    match edges {
        (Some(""), Some(_), Some(""), Some(_)) => pieces.map(str::trim).collect(),
        _ => Vec::new(),
    }
}

fn is_box_drawing(c: char) -> bool {
    matches!(c, '\u{2500}'..='\u{257f}' | '|')
}
