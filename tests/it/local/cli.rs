//! The command line, and the data folder it is pointed to.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Output, Stdio};

use oumi_mcp_server::env_vars;
use serde_json::json;

use crate::support::client::{Server, command};
use crate::support::{Home, wait_until};

fn run(home: &Home, arguments: &[&str]) -> Output {
    command(home).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_lists_the_environment() {
    let home = Home::new();
    let output = run(&home, &["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for (variable, meaning) in env_vars::all() {
        let line = help.lines().find(|line| line.contains(variable));
        let line = line.unwrap_or_else(|| panic!("{variable} is not in\n{help}"));
        assert!(line.contains(meaning), "{line}");
    }
    // What is no use to a person is not shown.
    assert!(!help.contains("supervise"), "{help}");
}

#[test]
fn relative_data_folder_is_refused() {
    let home = Home::new();
    let output = command(&home)
        .env(env_vars::HOME, "relative/data")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("absolute path") && stderr.contains(env_vars::HOME),
        "{stderr}"
    );
}

#[test]
fn default_data_folder() {
    let home = Home::new();
    let output = command(&home)
        .env_remove(env_vars::HOME)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(home.root().join(".cache/oumi-mcp/jobs").is_dir());
}

#[test]
fn log_level_of_stderr() {
    for (level, logged) in [
        (None, true),
        (Some(""), true),
        (Some("warn"), true),
        (Some("INFO"), true),
        (Some("nonsense"), true),
        (Some("error"), false),
        (Some("off"), false),
    ] {
        let home = Home::new();
        fs::create_dir(home.data()).unwrap();
        fs::write(home.registry(), "[{").unwrap();
        let mut command = command(&home);
        if let Some(level) = level {
            command.env(env_vars::LOG, level);
        }
        // Its recovery finds it damaged, or this call where that takes longer. The client fails at a line that is no message.
        let mut server = Server::spawn(&home, command);
        server.call("list_jobs", json!({})).ok();
        let stderr = server.stderr();
        assert_eq!(stderr.contains("WARN"), logged, "{level:?}: {stderr}");
        assert!(!stderr.contains('\u{1b}'), "{stderr}");
    }
}

#[test]
fn settings_that_have_no_effect_are_shown_by_the_client() {
    let home = Home::new();
    home.job("echo hi");
    let wrong = ["OUMI_MCP_READONLY", "OUMI_MCP_LOG", "OUMI_MCP_OUMI"];
    let mut server = Server::start_with(&home, &wrong.map(|variable| (variable, "/nowhere")));
    let mut preview = server.launch("job.yaml", json!({}));
    preview["dry_run"] = json!(true);
    for variable in wrong {
        for shown in [
            server.hello()["instructions"].to_string(),
            server.call("list_jobs", json!({})).ok()["warnings"].to_string(),
            server.call("run_job", preview.clone()).ok()["warnings"].to_string(),
        ] {
            assert!(shown.contains(variable), "{shown}");
        }
    }
}

#[test]
fn unusable_data_folder_fails_calls() {
    let home = Home::new();
    let file = home.write("file", "");
    let mut command = command(&home);
    command.env(env_vars::HOME, file.join("data"));
    let mut server = Server::spawn(&home, command);
    let said = server.call("list_jobs", json!({}));
    assert!(said.refused().contains("registry"), "{said}");
    home.job("echo hi");
    let launch = server.launch("job.yaml", json!({}));
    let said = server.call("run_job", launch.clone());
    assert!(
        said.refused().contains("cannot use the data folder"),
        "{said}"
    );
    std::fs::remove_file(&file).unwrap();
    server.call("run_job", launch).ok();
}

#[test]
fn exit_code_of_wait_tells_how_the_job_ended() {
    let (home, mut server) = Server::in_new_home();
    let well = server.submit(home.job("sleep 0.3"), json!({}));
    let badly = server.submit(home.job("exit 3"), json!({}));
    for (job_id, code, printed) in [
        (well.as_str(), 0, "completed: "),
        (&badly, 1, "failed: "),
        ("nobody", 3, "`list`"),
    ] {
        let output = run(&home, &["wait", job_id]);
        assert!(text(&output.stdout).contains(printed), "{output:?}");
        assert_eq!(output.status.code(), Some(code));
    }
}

#[test]
fn job_is_watched_and_cancelled_at_a_shell_beside_its_server() {
    let (home, mut server) = Server::in_new_home();
    let config = home.job("echo one; echo two; sleep 600");
    let job_id = server.submit(config, json!({}));
    let mut reading = command(&home)
        .args(["logs", "-f", "--grep", "o[nr]e|three", &job_id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the first poll comes within the timeout", || {
        // A limit that names this machine forbids nothing here.
        let mut waiting = command(&home);
        let waiting = waiting.env(env_vars::CLOUDS, "local,gcp");
        let waiting = waiting.args(["wait", &job_id, "--timeout", "1"]);
        let output = waiting.output().unwrap();
        assert_eq!(output.status.code(), Some(124));
        text(&output.stdout).starts_with("running: ")
    });
    let listed = text(&run(&home, &["list"]).stdout);
    assert!(
        listed.contains(&format!("{job_id}  running  local")),
        "{listed}"
    );
    let listed = run(&home, &["list", "--state", "failed", "--json"]);
    assert_eq!(text(&listed.stdout), "{\n  \"jobs\": []\n}\n");

    let mut refused = command(&home);
    refused.env(env_vars::READ_ONLY, "1");
    let refused = refused.args(["cancel", &job_id]).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).starts_with("error: "), "{refused:?}");
    assert!(reading.try_wait().unwrap().is_none(), "the job still runs");
    drop(server);
    let output = run(&home, &["cancel", &job_id, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["state"], "CANCELLED");
    let output = reading.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "one\n");
}

#[test]
fn logs_end_once_the_log_of_a_job_that_is_over_is_gone() {
    let (home, mut server) = Server::in_new_home();
    let run = "echo one; until [ -e go ]; do sleep 0.02; done; seq 200000";
    let job_id = server.submit(home.job(run), json!({}));
    let following = command(&home)
        .args(["logs", "-f", &job_id])
        .stdout(Stdio::piped())
        .spawn();
    let mut reading = following.unwrap();
    let mut stdout = BufReader::new(reading.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    // The pipe takes a part of it, and the rest is not read yet when the log goes.
    home.write("go", "");
    server.wait_done(&job_id);
    let log = home.job_dir(&job_id).join("output.log");
    wait_until("a part is there", || !stdout.fill_buf().unwrap().is_empty());
    fs::remove_file(log).unwrap();
    stdout.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(reading.wait().unwrap().code(), Some(3));
}

#[test]
fn setup_corrects_an_entry_once() {
    let home = Home::new();
    let file = home.root().join(".claude.json");
    home.program("oumi", "exit 0");
    fs::write(&file, "{\"theirs\": 1}").unwrap();
    let set_up = || {
        let output = run(&home, &["setup", "claude-code", "--write"]);
        assert!(output.status.success(), "{output:?}");
        (text(&output.stdout), fs::read_to_string(&file).unwrap())
    };
    let (printed, written) = set_up();
    assert!(printed.starts_with("Added to"), "{printed}");
    // So is the data folder of the shell.
    let data = format!("\"OUMI_MCP_HOME\": \"{}\"", home.data().display());
    assert!(
        written.contains("OUMI_MCP_OUMI") && written.contains(&data),
        "{written}"
    );
    let (printed, again) = set_up();
    assert!(printed.starts_with("Nothing to do"), "{printed}");
    assert_eq!(again, written);
}

#[test]
fn doctor_names_a_job_without_a_record() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("sleep 600"), json!({}));
    fs::remove_file(home.registry()).unwrap();
    let report = text(&run(&home, &["doctor", "--json"]).stdout);
    let named = format!("job {job_id} runs, but its record is gone; `cancel` ends it");
    assert!(report.contains(&named), "{report}");
}
