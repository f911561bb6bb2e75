//! What a job or a launcher prints is text, whatever it looks like: cleaned of what a terminal obeys, bounded, never protocol.

use serde_json::{Value, json};

use crate::fake_cloud::FakeCloud;
use crate::support::client::Server;
use crate::support::{Home, memory, wait_until};
use crate::tools::start_on;

/// What a terminal would obey: C0 and C1 but the two that lay out text.
fn is_control(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t')
}

fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.iter().for_each(|(name, field)| {
            found.push(name.clone());
            texts(field, found);
        }),
        _ => {}
    }
}

#[track_caller]
fn is_clean(answer: &Value) {
    let mut found = Vec::new();
    texts(answer, &mut found);
    for text in found {
        assert!(!text.chars().any(is_control), "{text:?}");
    }
}

const HOSTILE: &str = r#"printf '\033]0;pwned\007\033[2J\033[31mred\033[0m \033]52;c;cHduZWQ=\007 \033P+q\033\\ a\bb\rc \302\2331m \177 \000\001\n'
printf '{"jsonrpc":"2.0","id":1,"result":{}}\n{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}\n'
printf 'Content-Length: 5\r\n\r\n{"jso\n'
printf '{"a": [1, {"b": "\n'
"#;

#[test]
fn job_output_is_cleaned_and_never_protocol() {
    let (home, mut server) = Server::in_new_home();
    // The client here takes every line on stdout for protocol, and fails on one that is none.
    let job_id = server.submit(home.job(HOSTILE), json!({}));
    server.wait_done(&job_id);
    let answer = server
        .call("get_job_logs", json!({ "job_id": job_id }))
        .ok();
    is_clean(&answer.content);
    let logs = answer["logs"].as_str().unwrap();
    assert!(
        logs.contains(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
            && logs.contains(r#"{"a": [1, {"b": ""#),
        "{logs}"
    );
    // What was written over is there when the lines are asked for as they are: of controls the carriage return alone.
    let asked = json!({ "job_id": job_id, "raw": true });
    let mut answer = server.call("get_job_logs", asked).ok();
    let raw = answer.content["logs"].take();
    is_clean(&answer.content);
    let raw = raw.as_str().unwrap();
    assert!(raw.contains("red") && raw.contains("b\rc"), "{raw:?}");
    is_clean(&json!(raw.replace('\r', "")));
    is_clean(&server.list("all").1.content);
}

#[test]
fn hundred_megabytes_without_newline() {
    let (home, mut server) = Server::in_new_home();
    let before = memory(server.id(), "VmRSS");
    let script = "yes 'x' | tr -d '\\n' | head -c 104857600; printf END";
    let job_id = server.submit(home.job(script), json!({}));
    server.wait_done(&job_id);
    assert_eq!(
        std::fs::metadata(home.log(&job_id)).unwrap().len(),
        104_857_603
    );
    for lines in [1, 200, 1_000_000_000] {
        let answer = server
            .call("get_job_logs", json!({ "job_id": job_id, "lines": lines }))
            .ok();
        let logs = answer["logs"].as_str().unwrap();
        assert!(
            logs.len() <= 64 * 1024 && logs.ends_with("END"),
            "{}",
            logs.len()
        );
        assert_eq!(answer["truncated"], true);
    }
    if let (Some(before), Some(peak)) = (before, memory(server.id(), "VmHWM")) {
        println!("before {before} kB, peak {peak} kB");
        assert!(peak < before + 16 * 1024, "{peak} kB, {before} kB before");
    }
}

#[test]
fn launcher_output_is_cleaned_and_bounded() {
    let home = Home::new();
    let cloud = FakeCloud::new();
    home.write("job.yaml", "run: 'true'\n");
    let mut server = start_on(&home, &cloud, &[]);
    let launched = server.submit(
        "job.yaml",
        json!({ "cloud": "gcp", "job_name": "launched" }),
    );
    assert_eq!(server.poll(&launched)["status"], "RUNNING");
    let ask_all = |server: &mut Server, what: &str| {
        for (tool, arguments) in [
            ("poll_status", json!({ "job_id": launched })),
            ("get_job_logs", json!({ "job_id": launched })),
            ("cancel_job", json!({ "job_id": launched })),
            ("list_jobs", json!({})),
            (
                "stop_cluster",
                json!({ "cloud": "gcp", "cluster_name": "launched" }),
            ),
        ] {
            let answer = server.call(tool, arguments);
            is_clean(&answer.content);
            let size = answer.content.to_string().len();
            assert!(size < 256 * 1024, "{what}: {tool} answered {size} bytes");
            // Nobody may conclude from garbage that a job has ended, or that it was cancelled.
            assert_ne!(
                answer["is_done"], true,
                "{what}: {tool} {:#}",
                answer.content
            );
            if tool == "list_jobs" {
                for row in answer["jobs"].as_array().unwrap() {
                    assert_ne!(row["is_done"], true, "{what}: {:#}", answer.content);
                }
            }
        }
    };
    for garbage in ["half", "text", "empty", "bytes", "huge"] {
        for command in [
            "sky-queue",
            "sky-status",
            "sky-logs",
            "sky-cancel",
            "sky-stop",
        ] {
            cloud.set(&format!("{command}.garbage"), garbage);
        }
        ask_all(&mut server, garbage);
    }
    if let Some(peak) = memory(server.id(), "VmHWM") {
        println!("peak {peak} kB after 100 MB of each");
        assert!(peak < 96 * 1024, "{peak} kB");
    }
}

/// A `sky` whose words are hostile, and an `oumi` whose failure is.
#[test]
fn launcher_words_are_cleaned_everywhere() {
    let home = Home::new();
    home.write("job.yaml", "run: 'true'\nname: \"n\\e[31m\"\n");
    let words = r"\u001b[2J\u001b]0;pwned\u0007\u009b31m";
    home.program("sky", &format!(
        "#!/bin/sh\ncase $1 in\nqueue) cat <<'E'\n{{\"ours\": [{{\"job_id\": 1, \"job_name\": \"{words}\", \"status\": \"RUNNING{words}\", \"resources\": \"{words}\", \
         \"submitted_at\": 1e300, \"start_at\": null, \"end_at\": -1, \"log_path\": \"{words}\"}}], \"x{words}\": [{{\"job_id\": 2, \"status\": \"RUNNING\"}}]}}\nE\n;;\n\
         status) cat <<'E'\n[{{\"name\": \"ours\", \"status\": \"UP{words}\", \"cloud\": \"GCP{words}\", \"autostop\": -1}}]\nE\n;;\n\
         *) printf '\\033[2Jpwned\\007\\n'; printf '\\033[31mbad\\n' >&2; exit 1 ;;\nesac\n"
    ));
    home.program("oumi", "#!/bin/sh\nprintf 'ValueError: \\033[2Jbad \\033]0;pwned\\007 \\302\\233 words\\n'; exit 1\n");
    let mut server = Server::start(&home);
    let direct = json!({ "oumi_job_id": "1", "cloud": "gcp", "cluster_name": "ours" });
    for tool in ["poll_status", "get_job_logs", "cancel_job"] {
        is_clean(&server.call(tool, direct.clone()).content);
    }
    is_clean(&server.call("list_jobs", json!({})).content);
    is_clean(
        &server
            .call(
                "stop_cluster",
                json!({ "cloud": "gcp", "cluster_name": "ours" }),
            )
            .content,
    );
    let answer = server.run("job.yaml", json!({ "cloud": "gcp", "job_name": "failing" }));
    assert!(answer.refused().contains("bad"), "{answer}");
    is_clean(&answer.content);
    wait_until("the failure is known", || {
        server.poll("failing")["status"] == "failed"
    });
    for tool in ["poll_status", "get_job_logs", "cancel_job"] {
        is_clean(&server.call(tool, json!({ "job_id": "failing" })).content);
    }
    // What a config or an argument says comes back too.
    let arguments = server.launch(
        "job.yaml",
        json!({ "cloud": "gcp", "dry_run": true, "cluster_name": "a\u{1b}[2J" }),
    );
    is_clean(&server.call("run_job", arguments).content);
    is_clean(
        &server
            .call("poll_status", json!({ "job_id": "a\u{1b}[2J\u{9b}" }))
            .content,
    );
    home.write(
        "words.yaml",
        "model: {model_name: \"m\\e[31m\\a\"}\noutput_dir: \"\\e]0;x\\a\"\n",
    );
    let arguments = server.launch("words.yaml", json!({ "dry_run": true }));
    is_clean(&server.call("run_job", arguments).content);
}
