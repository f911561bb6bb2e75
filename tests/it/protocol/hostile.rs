//! Thousands of hostile lines, made from a seed: nothing may end the server, stop it or make it grow.

use serde_json::{Map, Value, json};

use crate::chance::Chance;
use crate::raw::{Raw, initialize, meta, request};

impl Chance {
    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most);
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn text(&mut self) -> String {
        let odd = "|list_jobs|run_job|local|EXECUTE|2025-11-25|2026-07-28|../../etc/passwd|\0|\u{1b}[31m|\u{202e}|\u{fffd}|𝕏\
                   |'; rm -rf /|$(id)|-h|%s%n|\r\n|NaN";
        let odd: Vec<&str> = odd.split('|').collect();
        let mut text = self.of(&odd).to_owned();
        if self.one_in(16) {
            text = text.repeat(self.below(2000));
        }
        text
    }

    /// Any JSON, not too deep.
    fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => self.one_in(2).into(),
            2 => self.next().into(),
            3 => json!(-i64::from_le_bytes(self.next().to_le_bytes()).saturating_abs()),
            4 => json!(f64::from_bits(self.next())),
            5 => self.text().into(),
            6 => (0..self.below(5)).map(|_| self.json(depth - 1)).collect(),
            _ => (0..self.below(5))
                .map(|_| (self.text(), self.json(depth - 1)))
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    fn word(&mut self, words: &'static str) -> &'static str {
        self.of(&words.split(' ').collect::<Vec<_>>())
    }

    /// A method; the last is an empty one.
    fn method(&mut self) -> &'static str {
        self.word(
            "initialize ping server/discover tools/list tools/call prompts/get resources/read resources/subscribe \
             subscriptions/listen completion/complete tasks/get tasks/cancel logging/setLevel sampling/createMessage \
             notifications/cancelled notifications/initialized notifications/progress \
             notifications/roots/list_changed rpc.discover ",
        )
    }

    /// A call of a tool with arguments that are its own by name only. Nothing is launched: `confirm` is no truth here.
    fn call(&mut self) -> Value {
        let tool = self.word("run_job poll_status get_job_logs cancel_job list_jobs none");
        let names = "job_id oumi_job_id cloud cluster_name lines force status config_path command client_cwd job_name \
                     envs file_mounts num_nodes accelerators no_such";
        let arguments: Map<_, _> = (0..self.below(6))
            .map(|_| (self.word(names).to_owned(), self.json(2)))
            .collect();
        json!({ "name": tool, "arguments": arguments })
    }

    /// A message, right or wrong in any of its fields.
    fn message(&mut self) -> Value {
        let mut message = Map::new();
        let version = if self.one_in(8) {
            self.json(1)
        } else {
            "2.0".into()
        };
        message.insert("jsonrpc".to_owned(), version);
        if !self.one_in(4) {
            let id = if self.one_in(3) {
                self.json(2)
            } else {
                self.below(20).into()
            };
            message.insert("id".to_owned(), id);
        }
        if !self.one_in(8) {
            let method = if self.one_in(8) {
                self.json(2)
            } else {
                self.method().into()
            };
            message.insert("method".to_owned(), method);
        }
        if !self.one_in(4) {
            let params = match self.below(4) {
                0 => self.json(3),
                1 => {
                    json!({ "requestId": self.below(20), "progressToken": self.json(1), "progress": 1 })
                }
                _ => self.call(),
            };
            message.insert("params".to_owned(), params);
        }
        if self.one_in(3)
            && let Some(Value::Object(params)) = message.get_mut("params")
        {
            let version = self.of(&["2025-06-18", "2026-07-28", "2099-01-01"]);
            let meta = if self.one_in(3) {
                self.json(3)
            } else {
                meta(version)
            };
            params.insert("_meta".to_owned(), meta);
        }
        for field in ["result", "error"] {
            if self.one_in(8) {
                message.insert(field.to_owned(), self.json(3));
            }
        }
        message.into()
    }

    /// A line without its end.
    fn line(&mut self) -> Vec<u8> {
        let mut line = match self.below(12) {
            0 => self.bytes(2000),
            1 => {
                let (open, close) = self.of(&[("[", "]"), ("{\"a\":", "}"), ("[{\"a\":[", "]}]")]);
                let depth = self.below(3000);
                let inner = if self.one_in(2) { "" } else { "0" };
                let closed = self.below(2);
                format!(
                    "{}{inner}{}",
                    open.repeat(depth),
                    close.repeat(depth * closed)
                )
                .into_bytes()
            }
            2 => {
                let part = self.of(&[
                    "0,",
                    "\"\",",
                    "[],",
                    "{},",
                    "{\"a\":1},",
                    "1e9,",
                    "\\",
                    "\"",
                    "\u{feff}",
                ]);
                format!("[{}0]", part.repeat(self.below(30_000))).into_bytes()
            }
            3 => {
                let number = self.of(&[
                    "1e999", "-0", "1E400", "01", "+1", ".5", "1.", "0x10", "NaN", "Infinity",
                ]);
                format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"ping"}}"#).into_bytes()
            }
            4 => {
                let escape = self.of(&[
                    r"\ud800",
                    r"\udc00\ud800",
                    r"\u0000",
                    r"\x",
                    r"\u12",
                    r"\u{1}",
                ]);
                let line = request(1, "tools/call", json!({ "name": "NAME", "arguments": {} }));
                line.replace("NAME", escape).into_bytes()
            }
            5 => Value::from_iter((0..self.below(5)).map(|_| self.message()))
                .to_string()
                .into_bytes(),
            6 => {
                let version =
                    self.of(&["2024-11-05", "2025-11-25", "2026-07-28", "2099-01-01", ""]);
                initialize(self.below(20), version).into_bytes()
            }
            7 if self.one_in(10) => {
                let length = self.of(&[1, 4, 17]) << 20;
                let mut line = request(1, "tools/call", json!({ "name": "run_job" })).into_bytes();
                line.resize(length, self.of(b"x \"[\\\xff"));
                line
            }
            7 if self.one_in(10) => {
                let script = self.of(&["x", "\u{1}", "é", "\"\\"]).repeat(1 << 19);
                let arguments = json!({ "config_path": script, "command": script, "client_cwd": "/", "x": script });
                request(
                    1,
                    "tools/call",
                    json!({ "name": "run_job", "arguments": arguments }),
                )
                .into_bytes()
            }
            8 => {
                let text = request(1, "tools/call", self.call());
                text.encode_utf16().flat_map(u16::to_le_bytes).collect()
            }
            _ => self.message().to_string().into_bytes(),
        };
        // A good deal of what was well made is damaged.
        if self.one_in(4) && !line.is_empty() {
            let at = self.below(line.len());
            match self.below(4) {
                0 => line.truncate(at),
                1 => line[at] = self.next().to_le_bytes()[0],
                2 => drop(line.remove(at)),
                _ => {
                    let copy = line[at..line.len().min(at + 50)].to_vec();
                    line.splice(at..at, copy);
                }
            }
        }
        line.retain(|byte| *byte != b'\n');
        line
    }
}

/// Says so many lines, with a good request after every few, which must be answered.
fn survives(count: usize, seed: u64) {
    let mut chance = Chance::seeded(seed);
    let mut raw = Raw::start();
    for said in 0..count {
        raw.say(chance.line());
        if said % 16 == 15 {
            let good = format!("good-{said}");
            let call = json!({ "name": "list_jobs", "arguments": {}, "_meta": meta("2026-07-28") });
            raw.request(good.clone(), "tools/call", call);
            raw.forget_until(&good);
        }
    }
    raw.stays_under(64);
    raw.initialize("2025-11-25");
    raw.lives();
    assert!(!raw.stderr().contains("panicked"), "{}", raw.stderr());
    raw.close_stdin();
    raw.ends_well();
}

#[test]
fn two_thousand_hostile_lines_are_survived() {
    survives(2000, 0x9e37_79b9_7f4a_7c15);
}

#[test]
#[ignore = "takes minutes; cargo test --release --test it -- --ignored hundred_thousand_hostile_lines"]
fn a_hundred_thousand_hostile_lines_are_survived() {
    survives(100_000, 0x2545_f491_4f6c_dd1d);
}
