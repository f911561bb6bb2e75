//! The values of `envs` reach the job and are nowhere else: not on disk, not in the log of the server, not in an answer.

use std::path::PathBuf;

use serde_json::json;

use crate::support::client::{Answer, Server};
use crate::support::{Home, files_holding};

const SECRET: &str = "s3cr3t-value-123";

fn holding_it(home: &Home) -> Vec<PathBuf> {
    files_holding(&home.data(), &[SECRET])
}

fn is_silent(answer: &Answer) {
    assert!(!answer.content.to_string().contains(SECRET), "{answer}");
}

#[test]
fn secret_reaches_only_the_job() {
    let home = Home::new();
    let text = format!(
        "envs: {{FROM_CONFIG: {SECRET}}}\nsetup: 'true'\nrun: echo $SECRET $FROM_CONFIG; while [ ! -e go ]; do sleep 0.05; done\n"
    );
    home.write("job.yaml", &text);
    home.program("oumi", "#!/bin/sh\necho $SECRET\n");
    home.write("train.yaml", "model: {}");
    let mut server = Server::start_with(&home, &[("OUMI_MCP_LOG", "trace")]);
    let envs = json!({ "envs": { "SECRET": SECRET } });
    for config in ["job.yaml", "train.yaml"] {
        for more in [
            json!({ "dry_run": true }),
            json!({ "confirm": false }),
            json!({}),
        ] {
            let mut asked = envs.clone();
            asked
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let answer = server.run(config, asked);
            is_silent(&answer);
        }
    }
    // While one runs, and after it.
    let job_id = server.list("running").0.last().unwrap().clone();
    assert!(
        holding_it(&home)
            .iter()
            .all(|path| path.ends_with("output.log")),
        "{:?}",
        holding_it(&home)
    );
    home.write("go", "");
    for job_id in server.list("all").0 {
        is_silent(&server.wait_done(&job_id));
    }
    is_silent(&server.list("all").1);
    is_silent(&server.cancel(&job_id, false));
    // It was there to be found: the jobs printed it, once each.
    let held = holding_it(&home);
    assert!(
        held.len() == 2 && held.iter().all(|path| path.ends_with("output.log")),
        "{held:?}"
    );
    let stderr = server.stderr();
    assert!(stderr.contains(" INFO "), "{stderr}");
    let line = stderr.lines().find(|line| line.contains(SECRET));
    assert_eq!(line, None);
}

#[test]
fn failed_start_keeps_no_secret() {
    let home = Home::new();
    home.program("oumi", "#!/no/such/interpreter\n");
    home.write("train.yaml", "model: {}\n");
    let mut server = Server::start_with(&home, &[("OUMI_MCP_LOG", "trace")]);
    let answer = server.run("train.yaml", json!({ "envs": { "SECRET": SECRET } }));
    assert!(answer.is_error);
    is_silent(&answer);
    assert_eq!(holding_it(&home), [""; 0].map(PathBuf::from));
    assert!(!server.stderr().contains(SECRET));
}
