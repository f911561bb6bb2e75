use serde_json::{Value, json};

use super::*;
use crate::server::tools;

/// Fits arguments of a tool, as they are passed on or as the error that refuses them.
fn fit_to(tool: &str, arguments: Value) -> Result<Value, String> {
    let router = tools::router();
    let schema = &router.get(tool).unwrap().input_schema;
    let arguments = arguments.as_object().unwrap().clone();
    let fitted = fit(schema, arguments).map_err(|error| error.to_string());
    fitted.map(|(fitted, _)| fitted.into())
}

/// Arguments of `run_job` with one more.
fn run_with(name: &str, value: Value) -> Result<Value, String> {
    let mut arguments = json!({ "config_path": "a.yaml", "command": "train" });
    arguments[name] = value;
    fit_to("run_job", arguments).map(|mut fitted| fitted[name].take())
}

#[test]
fn numbers_booleans_and_objects_as_texts_are_understood() {
    for (name, given, fitted) in [
        ("num_nodes", json!("2"), json!(2)),
        ("num_nodes", json!(2.0), json!(2)),
        ("num_nodes", json!(" 2.0 "), json!(2)),
        ("disk_size", json!("50"), json!(50)),
        ("max_hours", json!("1.5"), json!(1.5)),
        ("dry_run", json!("false"), json!(false)),
        ("confirm", json!("True"), json!(true)),
        ("use_spot", json!(" TRUE "), json!(true)),
        ("job_name", json!(7), json!("7")),
        ("job_name", json!(7.0), json!("7")),
        // More than a float holds.
        (
            "job_name",
            json!(9_007_199_254_740_993_u64),
            json!("9007199254740993"),
        ),
        (
            "job_name",
            json!(18_446_744_073_709_551_615_u64),
            json!("18446744073709551615"),
        ),
        ("accelerators", json!(4), json!("4")),
        ("cluster_name", json!(true), json!("true")),
        ("envs", json!("{\"A\": \"b\"}"), json!({ "A": "b" })),
        (
            "envs",
            json!({ "A": 1, "B": 7.5, "C": true, "D": "", "E": "null", "F": null, "G": 7.0 }),
            json!({ "A": "1", "B": "7.5", "C": "true", "D": "", "E": "null", "G": "7.0" }),
        ),
        ("file_mounts", json!("{\"/a\": 1}"), json!({ "/a": "1" })),
    ] {
        assert_eq!(run_with(name, given.clone()), Ok(fitted), "{name}: {given}");
    }
    let poll = json!({ "job_id": 7, "wait_seconds": "50", "until": "Progress", "cloud": "null" });
    let fitted = json!({ "job_id": "7", "wait_seconds": 50, "until": "progress" });
    assert_eq!(fit_to("poll_status", poll), Ok(fitted));
}

#[test]
fn fields_left_out_in_any_way_are_absent() {
    for tool in tools::router().list_all() {
        let schema = Value::Object((*tool.input_schema).clone());
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for name in schema["properties"].as_object().unwrap().keys() {
            for left_out in [json!(null), json!(""), json!("null")] {
                let mut arguments: Map<_, _> = (required.iter())
                    .map(|name| (name.as_str().unwrap().to_owned(), json!("x")))
                    .collect();
                arguments.insert(name.clone(), left_out);
                match fit(&tool.input_schema, arguments) {
                    Ok((fitted, _)) => assert!(!fitted.contains_key(name), "{} {name}", tool.name),
                    Err(error) => {
                        let error = error.to_string();
                        assert!(
                            error.starts_with(&format!("missing field `{name}`: ")),
                            "{error}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn values_that_do_not_fit_are_refused_in_plain_words() {
    for (name, given, words) in [
        (
            "num_nodes",
            json!(2.5),
            "a whole number from 1 to 2147483647, not 2.5",
        ),
        ("num_nodes", json!("2.5"), "not \"2.5\""),
        ("num_nodes", json!(0), "from 1"),
        ("num_nodes", json!(true), "not true"),
        ("disk_size", json!(1e300), "a whole number"),
        ("disk_size", json!("NaN"), "a whole number"),
        ("confirm", json!("yes"), "true or false, not \"yes\""),
        ("confirm", json!(1), "true or false"),
        ("config_path", json!(["a.yaml"]), "a string, not a list"),
        ("job_name", json!({ "a": "b" }), "a string, not an object"),
        ("envs", json!("A=secret"), "an object of strings"),
        ("envs", json!(["A=secret"]), "an object of strings"),
        (
            "envs",
            json!({ "A": ["secret"] }),
            "`envs.A` must be a string",
        ),
        ("job_name", json!("x".repeat(9000)), "at most 8192 bytes"),
    ] {
        let error = run_with(name, given).unwrap_err();
        assert!(
            error.starts_with(&format!("the argument `{name}")),
            "{error}"
        );
        assert!(error.contains(words), "{error}");
        assert!(error.len() < 200 && !error.contains("secret"), "{error}");
    }
    let error = fit_to("list_jobs", json!({ "status": "done" })).unwrap_err();
    assert!(
        error.contains("`all` or `running` or `completed` or `succeeded` or `failed` or `cancelled`, not \"done\""),
        "{error}"
    );
}

#[test]
fn fields_unknown_to_a_tool_are_dropped_or_refused() {
    for tool in tools::router().list_all() {
        let mut arguments =
            json!({ "config_path": "a", "command": "b", "cloud": "c", "cluster_name": "d" });
        arguments["dryrun"] = json!(true);
        let fitted = fit_to(&tool.name, arguments);
        if tools::is_read_only(&tool) {
            assert!(fitted.unwrap().get("dryrun").is_none(), "{}", tool.name);
        } else {
            assert!(
                fitted.unwrap_err().contains("unknown field `"),
                "{}",
                tool.name
            );
        }
    }
    let error = run_with("gpus", json!(8)).unwrap_err();
    assert_eq!(
        error,
        "unknown field `gpus`; nothing was done: use the names in the tool's schema"
    );
    let error = run_with(&"x".repeat(100_000), json!(8)).unwrap_err();
    assert!(error.len() < 200, "{error}");
}

#[test]
fn arguments_that_fit_can_be_read() {
    use crate::service::requests::{LogsRequest, PollRequest, RunRequest};
    let run = json!({ "config_path": 1, "command": "train", "num_nodes": 2147483647, "disk_size": "9", "envs": {} });
    let run: RunRequest = serde_json::from_value(fit_to("run_job", run).unwrap()).unwrap();
    assert_eq!(
        (run.options.num_nodes, run.options.disk_size, run.dry_run),
        (Some(2_147_483_647), Some(9), true)
    );
    let logs = json!({ "job_id": "a", "lines": -2147483647, "context": 2147483647, "max_bytes": "2048", "plot": "true" });
    let logs: LogsRequest = serde_json::from_value(fit_to("get_job_logs", logs).unwrap()).unwrap();
    assert_eq!(
        (logs.job.job_id.as_str(), logs.max_bytes, logs.plot),
        ("a", 2048, true)
    );
    let poll = fit_to(
        "poll_status",
        json!({ "oumi_job_id": 1, "wait_seconds": 2147483647 }),
    );
    let poll: PollRequest = serde_json::from_value(poll.unwrap()).unwrap();
    assert_eq!(
        (poll.job.oumi_job_id.as_str(), poll.wait_seconds),
        ("1", 2_147_483_647)
    );
}
