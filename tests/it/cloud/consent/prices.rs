//! The price is shown before it is spent, and held against a limit.

use super::*;

/// What a dry run shows.
#[track_caller]
fn shown(server: &mut Server, more: &Value) -> Answer {
    let mut arguments = server.launch("job.yaml", more.clone());
    arguments["dry_run"] = true.into();
    server.call("run_job", arguments).ok()
}

#[test]
fn dry_run_shows_the_price_or_why_it_is_not_known() {
    let (world, mut server) = World::with_server();
    let aws = json!({ "cloud": "aws", "accelerators": "a100:8", "num_nodes": 2, "use_spot": true, "max_hours": 3 });
    for _ in 0..2 {
        let answer = shown(&mut server, &aws);
        let note = "2 × p4d.24xlarge with a100:8, spot, in us-west-2; the lowest price in SkyPilot's catalog";
        assert_eq!(answer["hourly_price"], 21.8);
        assert_eq!(answer["price_note"], note);
        let line = format!("\nPrice: $21.80 an hour ({note})\n");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(&line), "{message}");
        let limit = "\nTime limit: at most 3 h, at most $65.40 for the run; its setup and the idle cluster cost too\n";
        assert!(message.contains(limit), "{message}");
    }
    // Kept for a day.
    assert_eq!(world.cloud.calls_of(&["sky", "gpus"]).len(), 1);
    for (cloud, cluster, reason) in [
        ("gcp", "", "Failed to fetch Azure catalog"),
        ("k8s", "", "no list of prices for k8s"),
    ] {
        let asked = json!({ "cloud": cloud, "accelerators": "A100:8", "cluster_name": cluster });
        let answer = shown(&mut server, &asked);
        assert_eq!(answer.content.get("hourly_price"), None);
        let note = answer["price_note"].as_str().unwrap();
        assert!(note.contains(reason), "{note}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(&format!("\nPrice: not known: {note}")));
    }
    // Nothing is billed there, whatever the limit.
    let mut server = world.server_with(&[("OUMI_MCP_MAX_HOURLY", "1")]);
    for (cloud, cluster) in [("sky-slurm", ""), ("slurm", "me@login")] {
        let asked = json!({ "cloud": cloud, "cluster_name": cluster });
        let answer = shown(&mut server, &asked);
        let price = format!("\nPrice: $0.00 an hour ({cloud} is not billed by the hour)\n");
        assert!(answer["message"].as_str().unwrap().contains(&price));
    }
}

#[test]
fn question_shows_the_price_and_what_is_up_already() {
    let world = World::new();
    for (name, cloud, machines) in [
        ("big", "AWS", "2x(gpus=A100:8, cpus=96, p4d.24xlarge)"),
        ("small", "Lambda", "1x(gpus=A100:8, gpu_8x_a100)"),
        ("own", "Kubernetes", "1x(gpus=A100:8, cpus=4)"),
    ] {
        world.cloud.add_cluster(name, cloud, "UP");
        let at = |field: &str| format!("clusters/{name}/{field}");
        world.cloud.write(&at("machines"), machines);
        world.cloud.write(&at("region"), "us-east-1");
    }
    world.cloud.add_cluster("stopped", "AWS", "STOPPED");
    for client in CLIENTS {
        let mut server = client.server(&world);
        let cluster = "$65.55 an hour (cluster big of root is UP and does not stop by itself: 2 × p4d.24xlarge with A100:8,";
        let new = "$55.04 an hour (1 × p5.48xlarge with H100:8, on demand, in us-east-1;";
        for (tool, name, price, most) in [
            ("run_job", "", new, "$82.56"),
            ("run_job", "big", cluster, "$98.32"),
            ("stop_cluster", "big", cluster, ""),
        ] {
            let mut more =
                json!({ "cloud": "aws", "accelerators": "H100:8", "cluster_name": name });
            more["max_hours"] = 1.5.into();
            let arguments = match tool {
                "run_job" => server.launch("job.yaml", more),
                _ => json!({ "cloud": "aws", "cluster_name": name }),
            };
            let (question, _) = client.answers(&mut server, tool, arguments, "decline", || {});
            let price = format!("\nPrice: {price}");
            assert!(question.contains(&price), "{question}");
            let most = format!(
                "\nTime limit: at most 1.5 h, at most {most} for the run; its setup and the idle cluster cost too\n"
            );
            assert_eq!(question.contains(&most), tool == "run_job", "{question}");
            let already = "\nAlready: 3 clusters are up, $75.87 an hour together; the price of 1 is not known\n";
            assert_eq!(question.contains(already), tool == "run_job", "{question}");
        }
    }
}

#[test]
fn launch_that_became_dearer_is_refused() {
    let (world, mut server) = World::with_server();
    let asked = json!({ "cloud": "aws", "accelerators": "A100:8", "cluster_name": "dev" });
    let plan = shown(&mut server, &asked);
    world.cloud.add_cluster("dev", "AWS", "STOPPED");
    for (field, value) in [
        ("machines", "4x(gpus=A100:8, p4d.24xlarge)"),
        ("region", "us-east-1"),
    ] {
        world.cloud.write(&format!("clusters/dev/{field}"), value);
    }
    let mut launch = server.launch("job.yaml", asked);
    launch["plan_id"] = plan["plan_id"].clone();
    let answer = server.call("run_job", launch);
    let error = answer.refused();
    let why =
        "it would now cost $131.09 an hour, not the $32.77 of its plan; call run_job with dry_run";
    assert!(error.contains(why), "{error}");
    assert_eq!(world.launches(), 0);
}

#[test]
fn launch_above_the_limit_is_refused() {
    let limit = (env_vars::MAX_HOURLY, "50");
    let known = json!({ "cloud": "aws", "accelerators": "A100:8" });
    let unknown = json!({ "cloud": "gcp", "accelerators": "A100:8" });
    let world = World::new();
    // What another one launched does not count.
    world.cloud.add_cluster("theirs", "AWS", "UP");
    for (consent, used) in [("flags", "0.00"), ("always", "32.77"), ("", "32.77")] {
        let spot = ("OUMI_USE_SPOT_VM", "true");
        let mut server = world.server_with(&[limit, spot, (env_vars::CONSENT, consent)]);
        let rule = format!(
            "OUMI_MCP_MAX_HOURLY allows $50.00 an hour for all that was launched here, and other clusters use ${used} of it"
        );
        for (more, reason) in [
            (&unknown, "the price of this job is not known"),
            (&known, "the cluster of this job costs $32.77"),
        ] {
            let mut arguments = server.launch("job.yaml", more.clone());
            arguments["dry_run"] = true.into();
            let preview = server.call("run_job", arguments.clone());
            assert!(preview["price_note"].is_string());
            arguments["dry_run"] = false.into();
            if (consent, more) == ("flags", &known) {
                let preview = preview.ok();
                assert!(
                    warnings(&preview).contains("OUMI_USE_SPOT_VM is set and is not passed on")
                );
                arguments["plan_id"] = preview["plan_id"].clone();
                assert_eq!(server.call("run_job", arguments).ok()["status"], "RUNNING");
                let variables = world.cloud.read("launcher-environment").unwrap();
                assert!(!variables.contains("OUMI_USE_SPOT_VM"), "{variables}");
                continue;
            }
            for answer in [preview, server.call("run_job", arguments)] {
                let error = answer.refused();
                assert!(error.contains(&rule) && error.contains(reason), "{error}");
            }
        }
        assert_eq!(world.launches(), 1);
    }
    for client in CLIENTS {
        let mut server = client.server_with(&world, &[limit]);
        let launch = server.launch("job.yaml", unknown.clone());
        let (question, answer) = client.answers(&mut server, "run_job", launch, "accept", || {});
        assert!(
            question.contains("\nNote: OUMI_MCP_MAX_HOURLY allows"),
            "{question}"
        );
        assert_eq!(answer.ok()["status"], "RUNNING");
    }
}

#[test]
fn two_servers_cannot_pass_the_limit_together() {
    let world = World::new();
    let envs = [(env_vars::MAX_HOURLY, "50"), (env_vars::CONSENT, "flags")];
    let mut servers = [(); 2].map(|()| world.server_with(&envs));
    let launch = |server: &mut Server| {
        let asked = json!({ "cloud": "aws", "accelerators": "A100:8" });
        server.run("job.yaml", asked)
    };
    let answers = std::thread::scope(|scope| {
        let calls = servers.each_mut();
        let calls = calls.map(|server| scope.spawn(move || launch(server)));
        calls.map(|call| call.join().unwrap())
    });
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.is_error).collect();
    let [refused] = refused.as_slice() else {
        panic!("{} of two were refused", refused.len());
    };
    assert!(
        refused
            .refused()
            .contains("other clusters use $32.77 of it")
    );
    assert_eq!(world.launches(), 1);
}

#[test]
fn launch_without_a_plan_is_recorded_with_its_price() {
    let (world, mut server) = World::with_server();
    let asked = json!({ "cloud": "aws", "accelerators": "A100:8" });
    server.run("job.yaml", asked).ok();
    let record = &world.home.records()[0];
    let job_id = record["job_id"].as_str().unwrap();
    let price = world.home.job_dir(job_id).join("price.json");
    assert_eq!(std::fs::read_to_string(price).unwrap(), "32.7726");
    // The Python server reads no record with a field of ours.
    assert_eq!(record.as_object().unwrap().len(), 9, "{record}");
}

#[test]
fn price_that_a_launch_printed_counts_for_the_limit() {
    let world = World::new();
    world.know(&[("a", "aws", "c1", "1"), ("b", "aws", "c2", "1")]);
    for cluster in ["c1", "c2"] {
        world.cloud.add_cluster(cluster, "AWS", "UP");
    }
    let log = world.home.job_dir("a").join("output.log");
    let table = "Considered resources (1 node):\n INFRA  COST ($)  CHOSEN\n AWS  2.50  ✔\n";
    let output = format!("{table}{}", std::fs::read_to_string(&log).unwrap());
    std::fs::write(log, output).unwrap();
    let limit = [(env_vars::MAX_HOURLY, "50"), (env_vars::CONSENT, "flags")];
    let mut server = world.server_with(&limit);
    let mut arguments = server.launch("job.yaml", json!({ "cloud": "aws" }));
    arguments["accelerators"] = "A100:8".into();
    let answer = server.call("run_job", arguments);
    let error = answer.refused();
    assert!(error.contains("other clusters use $2.50 of it"), "{error}");
    let doubt = "the price of cluster c2 is not known, and the client cannot ask its user";
    assert!(error.contains(doubt), "{error}");
    assert!(error.contains("down_cluster ends a cluster"), "{error}");
}
