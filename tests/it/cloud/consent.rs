//! The person is asked, where the client can: by an elicitation, or by an answer that asks for input.

mod open;
mod prices;

use std::fs;

use oumi_mcp_server::env_vars;
use serde_json::{Value, json};

use super::world::{World, text, warnings};
use crate::support::client::{Answer, Server};

/// How a client is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Client {
    /// By a request of the server, in this version.
    Elicits(&'static str),
    /// By an answer, in 2026-07-28.
    IsAnswered,
}

const CLIENTS: [Client; 3] = [
    Client::Elicits("2025-06-18"),
    Client::Elicits("2025-11-25"),
    Client::IsAnswered,
];

impl Client {
    fn server(self, world: &World) -> Server {
        self.server_with(world, &[])
    }

    fn server_with(self, world: &World, envs: &[(&str, &str)]) -> Server {
        let mut command = world.command();
        command.envs(envs.iter().copied());
        match self {
            Self::Elicits(version) => {
                let capabilities = json!({ "elicitation": {} });
                Server::spawn_as(&world.home, command, version, capabilities)
            }
            Self::IsAnswered => Server::spawn(&world.home, command),
        }
    }

    /// Calls a tool whose person is asked and answers so; gives what they were asked, and the answer of the tool.
    #[track_caller]
    fn answers(
        self,
        server: &mut Server,
        tool: &str,
        arguments: Value,
        action: &str,
        meanwhile: impl FnOnce(),
    ) -> (String, Answer) {
        if let Self::Elicits(_) = self {
            let id = server.send(tool, arguments);
            let asked = server.incoming_message("elicitation/create");
            let params = &asked["params"];
            let nothing_to_fill_in = json!({ "type": "object", "properties": {} });
            assert_eq!(params["requestedSchema"], nothing_to_fill_in, "{asked}");
            meanwhile();
            server.reply(&asked, json!({ "action": action }));
            let answer = server.answer(tool, id);
            return (params["message"].as_str().unwrap().to_owned(), answer);
        }
        let required = stateless(server, tool, &arguments, json!({}));
        assert_eq!(required["resultType"], "input_required", "{required}");
        let asked = &required["inputRequests"]["consent"];
        assert_eq!(asked["method"], "elicitation/create", "{required}");
        meanwhile();
        let result = stateless(server, tool, &arguments, again(&required, action));
        let question = asked["params"]["message"].as_str().unwrap().to_owned();
        (question, completed(&result))
    }
}

/// A call of 2026-07-28 by a client that can ask.
#[track_caller]
fn stateless(server: &mut Server, tool: &str, arguments: &Value, more: Value) -> Value {
    let mut params = json!({
        "name": tool,
        "arguments": arguments,
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
        },
    });
    let fields = params.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    server.request("tools/call", params)
}

/// What the client says when it calls again.
fn again(required: &Value, action: &str) -> Value {
    json!({
        "requestState": required["requestState"],
        "inputResponses": { "consent": { "action": action } },
    })
}

#[track_caller]
fn completed(result: &Value) -> Answer {
    assert_eq!(result["resultType"], "complete", "{result}");
    Answer {
        content: result["structuredContent"].clone(),
        is_error: result["isError"].as_bool().unwrap(),
    }
}

/// Nothing was started, and nothing is left of it.
#[track_caller]
fn nothing_was_started(world: &World, answer: &Answer) {
    assert_eq!(answer["status"], "blocked", "{answer}");
    assert_eq!(answer["job_id"], "");
    assert!(answer.refused().starts_with("nothing was started"));
    nothing_is_there(world);
}

#[track_caller]
fn nothing_is_there(world: &World) {
    assert_eq!(world.launches(), 0);
    assert!(!world.home.registry().exists() || world.home.records().is_empty());
    assert_eq!(
        fs::read_dir(world.home.data().join("jobs"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn launch_starts_when_accepted() {
    for client in CLIENTS {
        let world = World::new();
        world.home.write(
            "job.yaml",
            "resources: {cloud: gcp, use_spot: true, disk_size: 99, Price: 0.00 $/h}\nnum_nodes: 2\nenvs: {A: visible-value}\n\
             setup: pip install x\nrun: |\n  echo one\n  echo two\n",
        );
        let mut server = client.server(&world);
        let arguments = server.launch(
            "job.yaml",
            json!({ "cloud": "gcp", "accelerators": "A100:8", "envs": { "B": "given-value" } }),
        );
        let (question, answer) =
            client.answers(&mut server, "run_job", arguments, "accept", || {
                nothing_is_there(&world);
            });
        for line in [
            "Cloud: gcp",
            "Accelerators: A100:8",
            "Nodes: 2",
            "Spot: yes",
            "resources.disk_size: 99",
            "Variables (values not shown): A, B",
            "setup:\n| pip install x",
            "run:\n| echo one\n| echo two",
        ] {
            assert!(question.contains(line), "{line}: {question}");
        }
        assert!(!question.contains("-value"), "{question}");
        assert!(question.contains("\nPrice: not known: "), "{question}");
        let answer = answer.ok();
        assert_eq!(answer["status"], "RUNNING", "{client:?}");
        assert!(!warnings(&answer).contains("plan_id"), "they saw it");
        assert_eq!(world.launches(), 1);
        // The very cluster that they were shown.
        let cluster = format!("Cluster: a new one, {}", text(&answer, "cluster"));
        assert!(question.contains(&cluster), "{question}");
        let job_id = text(&answer, "job_id");
        assert!(
            question.contains(&format!("jobs/{job_id}/job.yaml")),
            "{question}"
        );
        assert_eq!(world.the_record()["job_id"], answer["job_id"]);
        assert!(!server.has_asked());
    }
}

#[test]
fn question_shows_all_that_decides() {
    let world = World::new();
    let client = CLIENTS[1];
    let mut server = client.server(&world);
    let shown = |server: &mut Server, config: &str| {
        world.home.write("job.yaml", config);
        let asked = json!({ "cloud": "gcp", "dry_run": true });
        let message = server.run("job.yaml", asked).ok()["message"]
            .as_str()
            .unwrap()
            .to_owned();
        let launch = server.launch("job.yaml", json!({ "cloud": "gcp" }));
        let (question, _) = client.answers(server, "run_job", launch, "decline", || {});
        let lines =
            |text: &str| -> Vec<String> { text.lines().skip(1).map(str::to_owned).collect() };
        let question = lines(&question);
        // The preview says the same, but for what is made up anew.
        for line in lines(&message)
            .iter()
            .filter(|line| line.contains("Spot") || line.contains("config."))
        {
            assert!(question.contains(line), "{line}: {question:#?}");
        }
        question.join("\n")
    };
    for (value, spot) in [
        ("true", "yes"),
        ("'true'", "yes"),
        ("1", "yes"),
        ("yes", "yes"),
        ("'On'", "yes"),
        ("'1'", "yes"),
        ("false", "no"),
        ("0", "no"),
        ("'no'", "no"),
        ("null", "no"),
    ] {
        let question = shown(
            &mut server,
            &format!("resources: {{use_spot: {value}}}\nrun: x\n"),
        );
        assert!(
            question.contains(&format!("Spot: {spot}\n")),
            "{value}: {question}"
        );
    }
    let question = shown(
        &mut server,
        "working_dir: '~'\nuser: root\nstorage_mounts: {/data: {source: 's3://b', store: s3}}\nmystery: [1, yes]\n\
         num_nodes: 010\nresources: {image_id: 0x10}\nfile_mounts: {/d: /tmp}\nrun: x\n",
    );
    for line in [
        &format!(
            "Working folder: {} (with your whole home folder)",
            world.home.root().display()
        ),
        "config.user: root",
        "config.storage_mounts: {/data: {source: s3://b, store: s3}}",
        "config.mystery: [1, true]",
        "Files copied: /d from /tmp",
        "Nodes: 8",
        "resources.image_id: 16",
        "Accelerators: none",
        "a machine without a GPU",
    ] {
        assert!(question.contains(line), "{line}: {question}");
    }
    // Unquoted it is nothing, and the folder is the project's.
    let question = shown(&mut server, "working_dir: ~\nrun: x\n");
    let project = world.home.project().display().to_string();
    assert!(
        question.contains(&format!("Working folder: {project}\n")),
        "{question}"
    );
}

#[test]
fn declined_starts_nothing() {
    for client in CLIENTS {
        for (action, said) in [("decline", "declined"), ("cancel", "closed the question")] {
            let world = World::new();
            let mut server = client.server(&world);
            let arguments = server.launch("job.yaml", json!({ "cloud": "gcp", "job_name": "a" }));
            let (_, answer) = client.answers(&mut server, "run_job", arguments, action, || {});
            assert!(answer.refused().contains(said), "{answer}");
            nothing_was_started(&world, &answer);
        }
    }
}

#[test]
fn client_without_elicitation_uses_the_flags() {
    let elsewhere = json!({ "sampling": {}, "roots": {} });
    for (version, capabilities) in [
        ("2025-03-26", json!({ "elicitation": {} })),
        ("2025-06-18", elsewhere),
        ("2025-11-25", json!({})),
        ("2025-11-25", json!({ "elicitation": { "url": {} } })),
    ] {
        let world = World::new();
        let mut server = Server::spawn_as(&world.home, world.command(), version, capabilities);
        let answer = server.run("job.yaml", json!({ "cloud": "gcp" })).ok();
        assert_eq!(answer["status"], "RUNNING");
        assert!(warnings(&answer).contains("no plan_id"), "{version}");
        assert!(!server.has_asked());
    }
    let (_world, mut server) = World::with_server();
    let arguments = server.launch("job.yaml", json!({ "cloud": "gcp" }));
    let mine = json!({ "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    } });
    let answer = completed(&stateless(&mut server, "run_job", &arguments, mine)).ok();
    assert!(warnings(&answer).contains("no plan_id"));
}

#[test]
fn flags_come_before_the_prompt() {
    for client in CLIENTS {
        let world = World::new();
        let mut server = client.server(&world);
        for (more, status) in [
            (json!({ "cloud": "gcp", "confirm": false }), "blocked"),
            (
                json!({ "cloud": "gcp", "user_confirmation": "yes" }),
                "blocked",
            ),
            (json!({ "cloud": "gcp", "dry_run": true }), "dry_run"),
        ] {
            let arguments = server.launch("job.yaml", more);
            let answer = completed(&stateless(&mut server, "run_job", &arguments, json!({})));
            assert_eq!(answer["status"], status);
        }
        assert!(!server.has_asked());
        nothing_is_there(&world);
    }
}

#[test]
fn cancel_of_a_foreign_job_asks() {
    for client in CLIENTS {
        let world = World::new();
        world.cloud.add_cluster("dev", "AWS", "UP");
        world.cloud.add_job("dev", "7", "theirs", "RUNNING");
        let mut server = client.server(&world);
        let theirs = json!({ "oumi_job_id": "7", "cloud": "aws", "cluster_name": "dev" });
        let (question, answer) =
            client.answers(&mut server, "cancel_job", theirs.clone(), "decline", || {});
        for line in [
            "not started by this server",
            "Job: 7",
            "Its name: theirs",
            "Cloud: aws",
            "Cluster: dev",
        ] {
            assert!(question.contains(line), "{line}: {question}");
        }
        assert!(
            answer
                .refused()
                .contains("nothing was done: the user declined")
        );
        assert_eq!(world.cloud.calls_of(&["sky", "cancel"]).len(), 0);
        let (_, answer) = client.answers(&mut server, "cancel_job", theirs, "accept", || {});
        assert_eq!(answer.ok()["state"], "CANCELLED");
    }
}

#[test]
fn cancel_of_an_own_job_does_not_ask() {
    let world = World::new();
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.cloud.add_job("dev", "7", "a", "RUNNING");
    world.know(&[("a", "aws", "dev", "7")]);
    let mut server = CLIENTS[1].server(&world);
    let ours = json!({ "oumi_job_id": "7", "cloud": "aws", "cluster_name": "dev" });
    assert_eq!(server.call("cancel_job", ours).ok()["state"], "CANCELLED");
    assert!(!server.has_asked());
}

#[test]
fn cluster_change_asks() {
    for client in CLIENTS {
        for (tool, verb, flags, consequence) in [
            ("stop_cluster", "stop", json!({}), "Its disks are kept"),
            (
                "down_cluster",
                "down",
                json!({ "confirm": true, "user_confirmation": "DOWN" }),
                "everything on its disks is lost",
            ),
        ] {
            let world = World::new();
            world.cloud.add_cluster("dev", "AWS", "UP");
            world.cloud.write("clusters/dev/price", "3.5");
            let mut server = client.server(&world);
            let mut arguments = json!({ "cloud": "gcp", "cluster_name": "dev" });
            let fields = arguments.as_object_mut().unwrap();
            fields.extend(flags.as_object().unwrap().clone());
            // The cloud is not what the call says: nobody is asked.
            let elsewhere = match client {
                Client::Elicits(_) => server.call(tool, arguments.clone()),
                Client::IsAnswered => {
                    completed(&stateless(&mut server, tool, &arguments, json!({})))
                }
            };
            let error = elsewhere.refused();
            assert!(error.contains("dev is on aws, not on gcp"), "{error}");
            assert!(!server.has_asked());
            arguments["cloud"] = "aws".into();
            let (question, answer) =
                client.answers(&mut server, tool, arguments.clone(), "cancel", || {});
            for line in [
                "Cluster: dev",
                "Cloud: aws",
                "It is: UP",
                "Price: $3.50 an hour",
                consequence,
            ] {
                assert!(question.contains(line), "{line}: {question}");
            }
            assert!(
                answer
                    .refused()
                    .contains("nothing was done: the client closed")
            );
            assert_eq!(world.cloud.calls_of(&["sky", verb]).len(), 0);
            let (_, answer) = client.answers(&mut server, tool, arguments, "accept", || {});
            answer.ok();
            assert_eq!(world.cloud.calls_of(&["sky", verb]).len(), 1);
        }
    }
}

#[test]
fn down_needs_flags_first() {
    let world = World::new();
    world.cloud.add_cluster("dev", "AWS", "UP");
    let mut server = CLIENTS[1].server(&world);
    let answer = server.call(
        "down_cluster",
        json!({ "cloud": "aws", "cluster_name": "dev" }),
    );
    assert!(answer.refused().contains("DOWN"));
    assert!(!server.has_asked());
    assert_eq!(world.cloud.calls_of(&["sky"]).len(), 0);
}

#[test]
fn existing_cluster_is_described() {
    let world = World::new();
    world.cloud.add_cluster("dev", "GCP", "UP");
    world.cloud.write("clusters/dev/price", "12.25");
    let client = CLIENTS[1];
    let mut server = client.server(&world);
    let launch = server.launch("job.yaml", json!({ "cloud": "gcp", "cluster_name": "dev" }));
    let (question, answer) = client.answers(&mut server, "run_job", launch, "decline", || {});
    for line in [
        "Cluster: dev\n",
        "It is: UP",
        "Price: $12.25 an hour",
        "Accelerators: none",
    ] {
        assert!(question.contains(line), "{line}: {question}");
    }
    nothing_was_started(&world, &answer);
    // A name that is misspelt makes a cluster.
    let launch = server.launch("job.yaml", json!({ "cloud": "gcp", "cluster_name": "dve" }));
    let (question, _) = client.answers(&mut server, "run_job", launch, "decline", || {});
    assert!(question.contains("Cluster: a new one, dve\n"), "{question}");
}

#[test]
fn local_job_asks_only_with_always() {
    for client in CLIENTS {
        let world = World::new();
        let mut server = client.server(&world);
        let launch = server.launch("job.yaml", json!({}));
        let answer = completed(&stateless(&mut server, "run_job", &launch, json!({}))).ok();
        assert_eq!(warnings(&answer), "");
        assert!(!server.has_asked());

        let always = [(env_vars::CONSENT, "always")];
        let mut server = client.server_with(&world, &always);
        let before = world.home.records().len();
        let launch = server.launch("job.yaml", json!({ "envs": { "SECRET": "s3cr3t-value" } }));
        let (question, answer) =
            client.answers(&mut server, "run_job", launch.clone(), "decline", || {});
        for line in [
            "it runs on this machine",
            "Runs: bash ",
            "run:\n| echo hi",
            "SECRET",
        ] {
            assert!(question.contains(line), "{line}: {question}");
        }
        assert!(!question.contains("s3cr3t"), "{question}");
        assert!(answer.refused().contains("declined"));
        assert_eq!(world.home.records().len(), before);
        let (_, answer) = client.answers(&mut server, "run_job", launch, "accept", || {});
        let job_id = answer.ok()["job_id"].as_str().unwrap().to_owned();
        assert_eq!(server.wait_done(&job_id)["state"], "SUCCEEDED");
    }
}

#[test]
fn always_without_elicitation_needs_plan_id() {
    let world = World::new();
    let mut server = world.server_with(&[(env_vars::CONSENT, "always")]);
    for cloud in ["local", "gcp"] {
        let launch = server.launch("job.yaml", json!({ "cloud": cloud }));
        let answer = server.call("run_job", launch.clone());
        assert_eq!(answer["status"], "blocked");
        let error = answer.refused();
        assert!(
            error.contains("OUMI_MCP_CONSENT") && error.contains("plan_id"),
            "{error}"
        );
        let mut preview = launch.clone();
        preview["dry_run"] = true.into();
        let plan_id = server.call("run_job", preview).ok()["plan_id"].clone();
        let mut bound = launch;
        bound["plan_id"] = plan_id;
        let answer = server.call("run_job", bound).ok();
        assert!(!warnings(&answer).contains("plan_id"), "{answer}");
    }
    assert_eq!(world.launches(), 1);
}

#[test]
fn flags_mode_never_asks() {
    let world = World::new();
    let client = CLIENTS[1];
    let mut server = client.server_with(&world, &[(env_vars::CONSENT, "flags")]);
    server.run("job.yaml", json!({ "cloud": "gcp" })).ok();
    assert!(!server.has_asked());
    assert_eq!(world.launches(), 1);
}
