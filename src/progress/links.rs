//! Links to the pages that show a run: of Weights & Biases, TensorBoard, Trackio and Comet, as their libraries print them.

use memchr::memmem;

use crate::text::strip_escapes;

/// The longest line that is read, in bytes.
const MAX_LENGTH: usize = 2000;

/// The services: what stands in the line before a link, and what in the link itself.
const SERVICES: [(&str, &str); 5] = [
    ("wandb", "/runs/"),
    ("TensorBoard", "://"),
    ("Trackio", "://"),
    ("View dashboard", "huggingface.co/spaces/"),
    ("COMET", "comet."),
];

/// The first link of each service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links([Option<String>; SERVICES.len()]);

impl Links {
    /// Reads the next piece of a log, which ends with a line.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        let lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r'));
        for line in lines.filter(|line| line.len() <= MAX_LENGTH) {
            if memmem::find(line, b"://").is_some() {
                self.read_line(&strip_escapes(&String::from_utf8_lossy(line)));
            }
        }
    }

    fn read_line(&mut self, line: &str) {
        let Some((before, rest)) = line.find("http").map(|start| line.split_at(start)) else {
            return;
        };
        let is_end = |c: char| c.is_whitespace() || "?\"'<>()[]".contains(c);
        let link = rest.split(is_end).next().unwrap_or_default();
        let link = link.trim_end_matches(['.', ',', ';']);
        for (found, (word, part)) in self.0.iter_mut().zip(SERVICES) {
            if found.is_none() && before.contains(word) && link.contains(part) {
                return *found = Some(link.to_owned());
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
