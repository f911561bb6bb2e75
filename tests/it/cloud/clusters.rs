//! Clusters: stopped, deleted, and pointed out while they cost money for nothing.

use serde_json::{Value, json};

use super::world::{SLURM, World, how, text, warnings};
use crate::support::client::{Answer, Server};

/// A world that knows job `a`, which is job 1 of cluster `dev` on this cloud.
fn with_cluster(ours: &str, theirs: &str) -> World {
    let world = World::new();
    world.know(&[("a", ours, "dev", "1")]);
    world.cloud.add_cluster("dev", theirs, "UP");
    world.cloud.add_job("dev", "1", "a", "RUNNING");
    world
}

fn on_aws() -> World {
    with_cluster("aws", "AWS")
}

fn stop(server: &mut Server, cloud: &str, cluster: &str) -> Answer {
    server.call(
        "stop_cluster",
        json!({ "cloud": cloud, "cluster_name": cluster }),
    )
}

fn down(server: &mut Server, cloud: &str, cluster: &str) -> Answer {
    let agreed = json!({ "cloud": cloud, "cluster_name": cluster, "confirm": true, "user_confirmation": "DOWN" });
    server.call("down_cluster", agreed)
}

#[test]
fn stop_ends_the_jobs() {
    let world = on_aws();
    let mut server = world.server();
    let answer = stop(&mut server, " AWS ", "dev").ok();
    assert!(
        text(&answer, "message").contains("disks are kept"),
        "{answer}"
    );
    assert_eq!(
        (&answer["cloud"], &answer["cluster_name"]),
        (&json!("aws"), &json!("dev"))
    );
    assert_eq!(world.cloud.read("clusters/dev/status").unwrap(), "STOPPED");
    assert_eq!(
        world.cloud.calls_of(&["sky", "stop"])[0].args,
        ["stop", "-y", "dev"]
    );
    assert_eq!(how(&server.poll("a")), ("cluster_stopped", "UNKNOWN", true));
}

#[test]
fn cluster_on_a_cloud_that_oumi_does_not_know_is_ended() {
    let world = with_cluster("aws", "Vast");
    let mut server = world.server();
    let direct = json!({ "oumi_job_id": "1", "cloud": "Vast", "cluster_name": "dev" });
    assert_eq!(server.call("poll_status", direct).ok()["state"], "RUNNING");
    let launch = json!({ "cloud": "vast", "dry_run": true });
    let answer = server.run("job.yaml", launch);
    assert!(answer.refused().contains("launches nothing"), "{answer}");
    down(&mut server, "vast", "dev").ok();
    assert_eq!(world.cloud.read("clusters/dev/status"), None);
}

#[test]
fn stop_whose_end_cannot_be_read_is_told() {
    let world = on_aws();
    world.cloud.set("sky-status.garbage", "text");
    let mut server = world.server();
    let answer = stop(&mut server, "aws", "dev");
    let error = answer.refused();
    assert!(error.contains("`sky stop` ended with \"done\""), "{error}");
}

#[test]
fn stop_refused_has_the_reason() {
    let world = with_cluster("lambda", "Lambda");
    let mut server = world.server();
    let answer = stop(&mut server, "lambda", "dev");
    let error = answer.refused();
    assert!(
        error.contains("cannot be stopped") && error.contains("down_cluster"),
        "{error}"
    );
    assert_eq!(world.cloud.read("clusters/dev/status").unwrap(), "UP");
    assert!(warnings(&server.list("all").1).contains("the stop of cluster dev"));
    let answer = server.cancel("a", false).ok();
    let message = text(&answer, "message");
    let (_, rest) = message.split_once("; ").unwrap();
    assert_eq!(
        rest,
        "its cluster dev (Lambda) is still up and does not stop by itself; down_cluster deletes it. The job is over."
    );
    down(&mut server, "lambda", "dev").ok();
    // Nobody can stop what is gone.
    assert_eq!(warnings(&server.list("all").1), "");
}

#[test]
fn down_needs_consent() {
    let world = on_aws();
    let mut server = world.server();
    for (confirm, said) in [
        (false, "DOWN"),
        (true, ""),
        (true, "down"),
        (true, "EXECUTE"),
        (true, "DOWN "),
    ] {
        let asked = json!({ "cloud": "aws", "cluster_name": "dev", "confirm": confirm, "user_confirmation": said });
        let answer = server.call("down_cluster", asked);
        assert!(
            answer.refused().contains("user_confirmation=\"DOWN\""),
            "{answer}"
        );
    }
    let answer = server.call(
        "down_cluster",
        json!({ "cloud": "aws", "cluster_name": "dev" }),
    );
    answer.refused();
    assert_eq!(world.cloud.calls(), []);

    let answer = down(&mut server, "aws", "dev").ok();
    assert!(
        text(&answer, "message").contains("cluster dev was deleted"),
        "{answer}"
    );
    assert_eq!(
        world.cloud.calls_of(&["sky", "down"])[0].args,
        ["down", "-y", "dev"]
    );
    assert_eq!(world.cloud.read("clusters/dev/status"), None);
    assert_eq!(how(&server.poll("a")), ("cluster_gone", "UNKNOWN", true));
}

#[test]
fn unknown_cluster_is_not_found() {
    let world = on_aws();
    let mut server = world.server();
    for answer in [
        stop(&mut server, "aws", "nosuch"),
        down(&mut server, "aws", "nosuch"),
    ] {
        let error = answer.refused();
        assert!(
            error.contains("\"nosuch\"") && error.contains("list_jobs"),
            "{error}"
        );
    }
    assert_eq!(world.cloud.read("clusters/dev/status").unwrap(), "UP");
}

#[test]
fn outcome_is_verified() {
    let world = on_aws();
    let mut server = world.server();
    // Said to be done, and not done.
    world.cloud.set("sky-down.replay", "sky/down");
    world.cloud.set("sky-stop.replay", "sky/stop");
    for answer in [
        stop(&mut server, "aws", "dev"),
        down(&mut server, "aws", "dev"),
    ] {
        assert!(answer.refused().contains("cluster dev is UP"), "{answer}");
    }
    // Done, and killed before it was said.
    world.cloud.unset("sky-down.replay");
    world.cloud.set("sky-down.crash", "");
    let answer = down(&mut server, "aws", "dev").ok();
    assert!(text(&answer, "message").contains("deleted"), "{answer}");
}

#[test]
fn unverified_outcome_is_an_error() {
    let world = on_aws();
    world.cloud.set("sky-status.garbage", "half");
    let mut server = world.server();
    let answer = down(&mut server, "aws", "dev");
    assert!(answer.refused().contains("sky status"), "{answer}");
}

#[test]
fn hostile_names_start_nothing() {
    let (world, mut server) = World::with_server();
    for (cloud, cluster) in [
        ("aws", "--all"),
        ("aws", ""),
        ("aws", "a b"),
        ("aws", "*"),
        ("nowhere", "dev"),
        ("local", "dev"),
        ("slurm", "host"),
        ("slurm", ""),
        ("modal", "-a"),
        // `oumi launch down` says that it was turned down, and ends nothing.
        ("slurm", SLURM),
    ] {
        stop(&mut server, cloud, cluster).refused();
        down(&mut server, cloud, cluster).refused();
    }
    assert_eq!(world.cloud.calls(), []);
}

#[test]
fn finished_job_warns_of_its_cluster() {
    let world = on_aws();
    world.cloud.write("clusters/dev/autostop", "60");
    world.cloud.write("clusters/dev/price", "3.5");
    let mut server = world.server();
    assert!(!warnings(&server.poll("a")).contains("still up"));
    for status in ["SUCCEEDED", "FAILED", "FAILED_SETUP", "CANCELLED"] {
        world.cloud.set_job("dev", "1", status);
        let answer = server.poll("a");
        let said = warnings(&answer);
        for part in [
            "cluster dev (AWS) is still up",
            "$3.50 an hour",
            "60 idle minutes",
            "stop_cluster",
            "down_cluster",
        ] {
            assert!(said.contains(part), "{status}: {said}");
        }
        assert_eq!(answer["hourly_price"], 3.5);
    }
    world.cloud.write("clusters/dev/autostop", "-1");
    assert!(warnings(&server.poll("a")).contains("does not stop by itself"));
}

#[test]
fn spent_is_the_price_times_the_time_without_a_report() {
    let world = on_aws();
    world.cloud.write("clusters/dev/price", "3.5");
    let since = chrono::Utc::now().timestamp() - 2 * 3600;
    world
        .cloud
        .write("clusters/dev/launched_at", &since.to_string());
    let mut server = world.server();
    let (poll, list) = (server.poll("a"), server.list("all").1);
    for spent in [&poll["spent"], &list["jobs"][0]["spent"]] {
        let spent = spent.as_str().unwrap();
        assert!(
            // The job was there before: the cluster was launched again since.
            spent.starts_with("at least $7.0") && spent.ends_with(" (price × time)"),
            "{spent}"
        );
    }
}

#[test]
fn cancel_warns_of_the_cluster() {
    let world = on_aws();
    let mut server = world.server();
    let answer = server.cancel("a", false).ok();
    let said = text(&answer, "message");
    assert!(
        said.contains("cluster dev (AWS) is still up") && said.contains("down_cluster"),
        "{said}"
    );
    // Of one that had ended before, too.
    let answer = server.cancel("a", false).ok();
    assert!(text(&answer, "message").contains("is still up"));
    // And of one whose launch failed, as the launch itself does, unless it was up before.
    world.cloud.set_cluster("dev", "INIT");
    world
        .cloud
        .set("oumi-up.replay", "oumi-slurm/up-no-cluster");
    let launch = json!({ "cloud": "aws", "job_name": "b", "cluster_name": "dev" });
    let failed = server.call("run_job", server.launch("job.yaml", launch));
    assert!(warnings(&failed).contains("cluster dev (AWS) is INIT"));
    let answer = server.cancel("b", false);
    assert!(answer.refused().contains("cluster dev (AWS) is INIT"));
    // A cluster that may be coming up is named where that launch has failed.
    let now = chrono::Utc::now().timestamp().to_string();
    world.cloud.write("clusters/dev/launched_at", &now);
    assert!(warnings(&server.list("all").1).contains("cluster dev (AWS) is INIT"));
}

#[test]
fn list_has_autostop_and_price() {
    let world = on_aws();
    world.cloud.write("clusters/dev/autostop", "45");
    world.cloud.write("clusters/dev/price", "12.25");
    world.cloud.add_cluster("plain", "Lambda", "UP");
    world.cloud.add_job("plain", "9", "by-hand", "RUNNING");
    let mut server = world.server();
    let (_, list) = server.list("all");
    let row = |id: &str| -> Value {
        let rows = list["jobs"].as_array().unwrap();
        rows.iter().find(|row| row["job_id"] == id).unwrap().clone()
    };
    assert_eq!(
        (&row("a")["autostop_minutes"], &row("a")["hourly_price"]),
        (&json!(45), &json!(12.25))
    );
    assert_eq!(row("9").get("autostop_minutes"), None);
    // Jobs from elsewhere have their place among the others.
    world
        .cloud
        .write("clusters/plain/jobs/9/submitted_at", "4102444800");
    let newest = &server.list("all").1["jobs"][0];
    assert_eq!(
        (&newest["job_id"], &newest["submitted"]),
        (&json!("9"), &json!("01-01 00:00"))
    );
    assert_eq!(row("9").get("hourly_price"), None);
}

#[test]
fn list_names_idle_clusters() {
    let world = on_aws();
    for (cluster, status) in [
        ("empty", "UP"),
        ("idle", "UP"),
        ("asleep", "STOPPED"),
        ("stuck", "INIT"),
        ("busy", "UP"),
        ("odd", "UP"),
    ] {
        world.cloud.add_cluster(cluster, "GCP", status);
    }
    world.cloud.add_job("idle", "1", "x", "SUCCEEDED");
    world.cloud.add_job("idle", "2", "x", "FAILED_SETUP");
    world.cloud.add_job("busy", "1", "x", "SUCCEEDED");
    world.cloud.add_job("busy", "2", "x", "PENDING");
    world.cloud.add_job("odd", "1", "x", "HOVERING");
    let mut server = world.server();
    for filter in ["all", "running"] {
        let said = warnings(&server.list(filter).1);
        for cluster in ["empty", "idle"] {
            assert!(
                said.contains(&format!("cluster {cluster} (GCP) is still up")),
                "{said}"
            );
        }
        assert!(said.contains("cluster stuck (GCP) is INIT"), "{said}");
        for cluster in ["dev", "asleep", "busy", "odd"] {
            assert!(!said.contains(&format!("cluster {cluster} ")), "{said}");
        }
    }
    world.cloud.set_job("dev", "1", "SUCCEEDED");
    let said = warnings(&server.list("all").1);
    assert!(
        said.contains("cluster dev (AWS) is still up") && said.contains("down_cluster"),
        "{said}"
    );
}

#[test]
fn answers_after_down_are_fresh() {
    let world = on_aws();
    // A list whose look at the clusters takes long is under way, and says what it saw before.
    world.cloud.set("sky-status.late", "");
    let mut server = world.server();
    let list = server.send("list_jobs", json!({}));
    world.cloud.wait_for("late-sky-status");
    world.cloud.unset("sky-status.late");
    let deleted = server.send(
        "down_cluster",
        json!({
            "cloud": "aws", "cluster_name": "dev", "confirm": true, "user_confirmation": "DOWN",
        }),
    );
    let deleted = server.answer("down_cluster", deleted).ok();
    assert!(text(&deleted, "message").contains("deleted"), "{deleted}");
    assert_eq!(how(&server.poll("a")), ("cluster_gone", "UNKNOWN", true));
    let (ids, later) = server.list("running");
    assert_eq!((ids.len(), warnings(&later)), (0, String::new()));
    world.cloud.set("sky-status.open", "");
    server.answer("list_jobs", list).ok();
}

/// On an API server that several people share.
#[test]
fn cluster_of_another_user_is_told_as_that() {
    let world = on_aws();
    world.cloud.add_cluster("theirs", "AWS", "UP");
    world.cloud.write("clusters/theirs/user", "jane");
    let mut server = world.server();
    let (ids, list) = server.list("all");
    assert_eq!(
        (ids, warnings(&list).contains("theirs")),
        (vec!["a".to_owned()], false)
    );
    let mut shown = |more: Value| {
        let mut asked = json!({ "cloud": "aws", "dry_run": true });
        asked
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server.run("job.yaml", asked).ok()
    };
    let onto = shown(json!({ "cluster_name": "theirs" }));
    assert!(
        text(&onto, "message").contains("cluster theirs of jane is UP"),
        "{onto}"
    );
    let new = shown(json!({ "job_name": "theirs" }));
    assert!(text(&new, "cluster_name").starts_with("theirs-"), "{new}");
    let onto = json!({ "cloud": "aws", "job_name": "b", "cluster_name": "theirs" });
    server.submit("job.yaml", onto);
    assert!(server.list("all").0.contains(&"b".to_owned()));
    let stopped = stop(&mut server, "aws", "theirs").ok();
    assert!(
        text(&stopped, "message").contains("was stopped"),
        "{stopped}"
    );
    let other = down(&mut server, "gcp", "theirs");
    assert!(other.refused().contains("is on aws"), "{other}");
    // Her job on a cluster of ours.
    world.cloud.set_job("dev", "1", "SUCCEEDED");
    let shared = [("SKYPILOT_API_SERVER_ENDPOINT", "https://sky.example.org")];
    let idle = world.server_with(&shared).list("all").1;
    assert!(warnings(&idle).contains("been idle"), "{idle:?}");
    world.cloud.add_job("dev", "2", "hers", "RUNNING");
    world.cloud.write("clusters/dev/jobs/2/user", "jane");
    let list = world.server_with(&shared).list("running").1;
    assert_eq!(list["jobs"][0]["name"], "hers of jane", "{list:?}");
    assert!(!warnings(&list).contains("been idle"), "{list:?}");
}
