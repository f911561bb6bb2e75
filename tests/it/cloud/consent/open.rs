//! A question that is open: answered by nonsense, late, twice or never, or one of too many.

use serde_json::{Value, json};

use super::{CLIENTS, Client, again, completed, nothing_is_there, nothing_was_started, stateless};
use crate::cloud::world::World;

#[test]
fn nonsense_answer_starts_nothing() {
    let world = World::new();
    let mut server = CLIENTS[0].server(&world);
    let launch = server.launch("job.yaml", json!({ "cloud": "gcp" }));
    for result in [
        json!({}),
        json!({ "action": "maybe" }),
        json!({ "content": {} }),
    ] {
        let id = server.send("run_job", launch.clone());
        let asked = server.incoming_message("elicitation/create");
        server.reply(&asked, result);
        let answer = server.answer("run_job", id);
        assert!(answer.refused().contains("could not"), "{answer}");
        nothing_was_started(&world, &answer);
    }
    let required = stateless(&mut server, "run_job", &launch, json!({}));
    let mut nonsense = again(&required, "accept");
    nonsense["inputResponses"]["consent"] = json!("yes");
    let answer = completed(&stateless(&mut server, "run_job", &launch, nonsense));
    nothing_was_started(&world, &answer);
}

#[test]
fn cancelled_call_withdraws_the_prompt() {
    let world = World::new();
    let mut server = CLIENTS[1].server(&world);
    let id = server.send_run("job.yaml", json!({ "cloud": "gcp" }));
    let asked = server.incoming_message("elicitation/create");
    server.give_up(id);
    let withdrawn = server.incoming_message("notifications/cancelled");
    assert_eq!(withdrawn["params"]["requestId"], asked["id"], "{withdrawn}");
    server.reply(&asked, json!({ "action": "accept" }));
    let (ids, _) = server.list("all");
    assert_eq!(ids.len(), 0);
    nothing_is_there(&world);
}

#[test]
fn client_gone_starts_nothing() {
    let world = World::new();
    let mut server = CLIENTS[1].server(&world);
    server.send_run("job.yaml", json!({ "cloud": "gcp" }));
    server.incoming_message("elicitation/create");
    server.close_stdin();
    // Long before the ten minutes are over that the person has.
    let (status, _) = server.wait_exit();
    assert_eq!(status.code(), Some(0));
    nothing_is_there(&world);
}

#[test]
fn other_calls_are_answered_meanwhile() {
    let world = World::new();
    let mut server = CLIENTS[1].server(&world);
    let waiting = server.send_run("job.yaml", json!({ "cloud": "gcp", "job_name": "asked" }));
    let asked = server.incoming_message("elicitation/create");
    let here = server.submit("job.yaml", json!({ "job_name": "here" }));
    assert_eq!(server.wait_done(&here)["state"], "SUCCEEDED");
    assert_eq!(server.list("all").0, ["here"]);
    server.reply(&asked, json!({ "action": "accept" }));
    assert_eq!(server.answer("run_job", waiting).ok()["job_id"], "asked");
}

#[test]
fn config_changed_meanwhile_is_refused() {
    for client in CLIENTS {
        let world = World::new();
        let mut server = client.server(&world);
        let launch = server.launch("job.yaml", json!({ "cloud": "gcp" }));
        let (_, answer) = client.answers(&mut server, "run_job", launch, "accept", || {
            world.home.write("job.yaml", "run: echo something else\n");
        });
        assert!(answer.refused().contains("`job_config.run`"), "{answer}");
        nothing_was_started(&world, &answer);
    }
}

#[test]
fn request_state_is_single_use() {
    let world = World::new();
    let mut server = Client::IsAnswered.server(&world);
    let launch = server.launch("job.yaml", json!({ "cloud": "gcp" }));
    let other = server.launch(
        "job.yaml",
        json!({ "cloud": "gcp", "accelerators": "A100:8" }),
    );
    let foreign = "is not valid";
    let forged = again(&json!({ "requestState": "rs1.AAAA.AAAA" }), "accept");
    let answer = completed(&stateless(&mut server, "run_job", &launch, forged));
    assert!(answer.refused().contains(foreign), "{answer}");
    nothing_was_started(&world, &answer);

    let required = stateless(&mut server, "run_job", &launch, json!({}));
    let granted = again(&required, "accept");
    let answer = completed(&stateless(&mut server, "run_job", &other, granted.clone()));
    assert!(
        answer.refused().contains(foreign),
        "for other arguments: {}",
        answer.refused()
    );
    nothing_was_started(&world, &answer);

    // The fields in another order are the same call.
    let mut fields: Vec<_> = launch.as_object().unwrap().clone().into_iter().collect();
    fields.reverse();
    let same = Value::Object(fields.into_iter().collect());
    completed(&stateless(&mut server, "run_job", &same, granted.clone())).ok();
    assert_eq!(world.launches(), 1);
    let answer = completed(&stateless(&mut server, "run_job", &launch, granted.clone()));
    assert!(answer.refused().contains("used already"), "{answer}");
    assert_eq!(world.launches(), 1);

    // What was declined is not agreed to by saying so afterwards.
    let required = stateless(&mut server, "run_job", &launch, json!({}));
    for (action, said) in [("decline", "declined"), ("accept", "used already")] {
        let answer = completed(&stateless(
            &mut server,
            "run_job",
            &launch,
            again(&required, action),
        ));
        assert!(answer.refused().contains(said), "{answer}");
    }
    assert_eq!(world.launches(), 1);

    // Another server knows nothing of it.
    let required = stateless(&mut server, "run_job", &launch, json!({}));
    let mut next = Client::IsAnswered.server(&world);
    let answer = completed(&stateless(
        &mut next,
        "run_job",
        &launch,
        again(&required, "accept"),
    ));
    assert!(answer.refused().contains(foreign), "{answer}");
    assert_eq!(world.launches(), 1);
}

#[test]
fn retry_without_answer_asks_again() {
    let world = World::new();
    let mut server = Client::IsAnswered.server(&world);
    let launch = server.launch("job.yaml", json!({ "cloud": "gcp" }));
    let required = stateless(&mut server, "run_job", &launch, json!({}));
    for more in [
        json!({ "requestState": required["requestState"] }),
        json!({ "inputResponses": { "consent": { "action": "accept" } } }),
        json!({ "requestState": required["requestState"], "inputResponses": { "other": {} } }),
    ] {
        let result = stateless(&mut server, "run_job", &launch, more);
        assert_eq!(result["resultType"], "input_required", "{result}");
    }
    nothing_is_there(&world);
}

#[test]
fn task_client_is_asked_first() {
    let world = World::new();
    let mut server = Client::IsAnswered.server(&world);
    let launch = server.launch("job.yaml", json!({ "cloud": "gcp", "job_name": "a" }));
    let capabilities = json!({
        "elicitation": {},
        "extensions": { "io.modelcontextprotocol/tasks": {} },
    });
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    let required = stateless(&mut server, "run_job", &launch, json!({ "_meta": meta }));
    assert_eq!(required["resultType"], "input_required", "{required}");
    nothing_is_there(&world);
    let mut granted = again(&required, "accept");
    granted["_meta"] = meta;
    let task = stateless(&mut server, "run_job", &launch, granted);
    assert_eq!(task["resultType"], "task", "{task}");
    assert_eq!(world.launches(), 1);
}
