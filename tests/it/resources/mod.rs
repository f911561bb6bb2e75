//! Jobs as resources and as tasks: what is read, and that it survives a restart.

mod addresses;
mod tasks;

use std::fs;

use crate::raw::{Raw, meta};
use crate::support::poll_for;
use serde_json::{Value, json};

const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const MISSING_CAPABILITY: i64 = -32021;
const RESOURCE_NOT_FOUND: i64 = -32002;

/// The versions in which a client shakes hands.
const SESSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const STATELESS: &str = "2026-07-28";
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// These params in the version without sessions.
fn stateless(params: Value) -> Value {
    with_meta(params, meta(STATELESS))
}

/// The same from a client that takes tasks.
fn taking_tasks(params: Value) -> Value {
    let mut meta = meta(STATELESS);
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({ "extensions": { TASKS: {} } });
    with_meta(params, meta)
}

fn with_meta(mut params: Value, meta: Value) -> Value {
    params["_meta"] = meta;
    params
}

impl Raw {
    /// The result of a request.
    #[track_caller]
    fn result(&mut self, method: &str, params: Value) -> Value {
        self.request(method, method, params);
        let answer = self.answer(method);
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].clone()
    }

    /// The error of a request.
    #[track_caller]
    fn error(&mut self, method: &str, params: Value) -> Value {
        self.request(method, method, params);
        let answer = self.answer(method);
        assert!(answer.get("result").is_none(), "{answer}");
        answer["error"].clone()
    }

    /// What stands at an address, with its kind.
    #[track_caller]
    fn read_text(&mut self, uri: &str) -> (String, String) {
        let result = self.result("resources/read", json!({ "uri": uri }));
        let contents = result["contents"].as_array().unwrap();
        assert_eq!(contents.len(), 1, "{result}");
        assert_eq!(contents[0]["uri"], uri);
        let text = |key: &str| contents[0][key].as_str().unwrap().to_owned();
        (text("mimeType"), text("text"))
    }

    #[track_caller]
    fn read_json(&mut self, uri: &str) -> Value {
        let (kind, text) = self.read_text(uri);
        assert_eq!(kind, "application/json");
        serde_json::from_str(&text).unwrap()
    }

    /// The arguments that start a job with this script.
    fn launch(&self, name: &str, run: &str) -> Value {
        // JSON is YAML.
        let config = json!({ "run": run }).to_string();
        fs::write(self.home().join("job.yaml"), config).unwrap();
        json!({
            "config_path": "job.yaml", "command": "train", "client_cwd": self.home(), "job_name": name,
            "dry_run": false, "confirm": true, "user_confirmation": "EXECUTE",
        })
    }

    /// Starts a job with this script, for its id.
    #[track_caller]
    fn start_job(&mut self, name: &str, run: &str) -> String {
        let launch = self.launch(name, run);
        self.call("start", "run_job", launch);
        let started = self.content("start");
        assert_eq!(started["success"], true, "{started}");
        started["job_id"].as_str().unwrap().to_owned()
    }

    /// A script that goes on until [`Self::let_end`].
    fn until(&self, name: &str) -> String {
        let (alive, held) = (self.home().join("alive"), self.home().join(name));
        fs::write(&held, "").unwrap();
        format!(
            "while [ -e {} ] && [ -e {} ]; do sleep 0.05; done",
            alive.display(),
            held.display()
        )
    }

    /// Ends the script of this name.
    fn let_end(&self, name: &str) {
        fs::remove_file(self.home().join(name)).unwrap();
    }

    /// How the job is once it is done.
    #[track_caller]
    fn wait_done(&mut self, job_id: &str) -> Value {
        poll_for(crate::raw::DEADLINE, || {
            self.call("poll", "poll_status", json!({ "job_id": job_id }));
            let status = self.content("poll");
            if status["is_done"] == true {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
    }
}
