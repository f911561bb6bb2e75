//! Links to the pages that show a run: of Weights & Biases, TensorBoard, Trackio and Comet, as their libraries print them.

use std::sync::LazyLock;

use memchr::memmem;
use regex::bytes::Regex;

/// The services: what stands in the line before a link, and what in the link itself.
const SERVICES: [(&str, &str); 5] = [
    ("wandb", "/runs/"),
    ("TensorBoard", "://"),
    ("Trackio", "://"),
    ("View dashboard", r"huggingface\.co/spaces/"),
    ("COMET", r"comet\."),
];

/// A line with a link of a service; each has a group of its own.
static LINK: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let of = |(word, part)| {
        let rest = r#"[^\s\x1b?"'<>()\[\]]*"#;
        format!(r"{word}[^\r\n]*?(https?{rest}{part}{rest})")
    };
    Regex::new(&SERVICES.map(of).join("|")).ok()
});

#[derive(Debug, Clone, Default)]
pub(crate) struct Links([Option<String>; SERVICES.len()]);

impl Links {
    /// Reads the next piece of a log, which ends with a line.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        if memmem::find(bytes, b"http").is_none() {
            return;
        }
        let lines = LINK.iter().flat_map(|link| link.captures_iter(bytes));
        for line in lines {
            for (known, group) in self.0.iter_mut().zip(line.iter().skip(1)) {
                if let Some(link) = group.filter(|_| known.is_none()) {
                    let link = String::from_utf8_lossy(link.as_bytes());
                    *known = Some(link.trim_end_matches(['.', ',', ';']).to_owned());
                }
            }
        }
    }

    /// Returns the links, by service.
    pub(crate) fn to_vec(&self) -> Vec<String> {
        self.0.iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Links;

    fn links(log: &str) -> Vec<String> {
        let mut links = Links::default();
        links.read(log.as_bytes());
        links.to_vec()
    }

    #[test]
    fn the_first_run_of_each_service_counts() {
        let log = "\
            wandb: (1) Create a W&B account, see https://wandb.ai/authorize\n\
            wandb: ⭐️ View project at \x1b[34m\x1b[4mhttps://wandb.ai/me/llama\x1b[0m\n\
            (train, pid=12) wandb: 🚀 View run tiny at \x1b[34m\x1b[4mhttps://wandb.ai/me/llama/runs/1a2b?apiKey=0123\x1b[0m\n\
            wandb: 🚀 View run next at: https://wandb.ai/me/llama/runs/2\n\
            TensorBoard 2.15.1 at http://localhost:6006/ (Press CTRL+C to quit)\n\
            * Trackio UI launched at: http://127.0.0.1:7860/\n\
            * View dashboard by going to: https://huggingface.co/spaces/me/runs\n\
            COMET INFO: Experiment is live on comet.com https://www.comet.com/me/llama/9f8e.\n";
        assert_eq!(
            links(log),
            [
                "https://wandb.ai/me/llama/runs/1a2b",
                "http://localhost:6006/",
                "http://127.0.0.1:7860/",
                "https://huggingface.co/spaces/me/runs",
                "https://www.comet.com/me/llama/9f8e",
            ]
        );
    }

    #[test]
    fn other_links_are_none() {
        for log in [
            "",
            "://",
            "see https://example.org/runs/1\n",
            "wandb: docs at https://docs.wandb.ai\n",
            "To install TensorBoard, see the docs\nat https://tensorflow.org\n",
        ] {
            assert!(links(log).is_empty(), "{log}");
        }
    }
}
