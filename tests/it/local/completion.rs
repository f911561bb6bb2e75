//! What a client offers while a person types the argument of a prompt.

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::Home;
use crate::support::client::Server;

fn record(job_id: &str, hours_ago: i64) -> Value {
    let time = Utc::now() - TimeDelta::hours(hours_ago);
    json!({
        "job_id": job_id, "command": "train", "config_path": "/p/train.yaml", "cloud": "local", "cluster_name": "",
        "oumi_job_id": job_id, "model_name": "tiny", "output_dir": "",
        "submit_time": time.to_rfc3339_opts(SecondsFormat::Secs, true),
    })
}

fn offered(server: &mut Server, prompt: &str, argument: &str, typed: &str) -> Value {
    completion(server, prompt, argument, typed)["values"].clone()
}

fn completion(server: &mut Server, prompt: &str, argument: &str, typed: &str) -> Value {
    let asked = json!({
        "ref": { "type": "ref/prompt", "name": prompt },
        "argument": { "name": argument, "value": typed },
    });
    server.request("completion/complete", asked)["completion"].clone()
}

#[test]
fn what_begins_so_is_offered_before_what_holds_it_the_newest_first() {
    let home = Home::new();
    home.write_registry(&[
        record("sft-old", 9),
        record("eval", 5),
        record("sft-new", 1),
    ]);
    let mut server = Server::start(&home);
    assert_eq!(server.hello()["capabilities"]["completions"], json!({}));
    for prompt in ["watch_job", "why_failed"] {
        assert_eq!(
            offered(&mut server, prompt, "job_id", ""),
            json!(["sft-new", "eval", "sft-old"])
        );
        assert_eq!(
            offered(&mut server, prompt, "job_id", "sft"),
            json!(["sft-new", "sft-old"])
        );
        assert_eq!(
            offered(&mut server, prompt, "job_id", "E"),
            json!(["eval", "sft-new"])
        );
        assert_eq!(offered(&mut server, prompt, "job_id", "dpo"), json!([]));
    }
    // Only the person knows the file.
    assert_eq!(offered(&mut server, "train", "config_path", "c"), json!([]));
}

#[test]
fn no_more_than_a_client_may_be_given_are_offered() {
    let home = Home::new();
    let records: Vec<Value> = (0..150)
        .map(|number| record(&format!("job-{number}"), number / 2))
        .collect();
    home.write_registry(&records);
    let mut server = Server::start(&home);
    let offered = completion(&mut server, "watch_job", "job_id", "job-");
    assert_eq!(offered["values"].as_array().unwrap().len(), 100);
    assert_eq!(offered["total"], 150);
    assert_eq!(offered["hasMore"], true);
}

#[test]
fn nothing_is_offered_where_no_job_is_known() {
    let home = Home::new();
    let mut server = Server::start(&home);
    assert_eq!(offered(&mut server, "watch_job", "job_id", ""), json!([]));
}
