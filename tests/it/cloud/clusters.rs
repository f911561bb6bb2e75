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
fn a_cluster_that_is_stopped_keeps_its_disks_and_its_jobs_are_over() {
    let world = on_aws();
    let mut server = world.server();
    let answer = stop(&mut server, " AWS ", "dev").ok();
    assert!(
        text(&answer, "message").contains("disks are kept"),
        "{:#}",
        answer.content
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
fn a_cluster_that_cannot_be_stopped_is_an_error_with_the_reason_and_what_to_call() {
    let world = with_cluster("lambda", "Lambda");
    let mut server = world.server();
    let answer = stop(&mut server, "lambda", "dev");
    let error = answer.refused();
    assert!(
        error.contains("cannot be stopped") && error.contains("down_cluster"),
        "{error}"
    );
    assert_eq!(world.cloud.read("clusters/dev/status").unwrap(), "UP");
}

#[test]
fn a_cluster_is_deleted_only_once_the_person_has_agreed() {
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
            "{}",
            answer.refused()
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
        "{:#}",
        answer.content
    );
    assert_eq!(
        world.cloud.calls_of(&["sky", "down"])[0].args,
        ["down", "-y", "dev"]
    );
    assert_eq!(world.cloud.read("clusters/dev/status"), None);
    assert_eq!(how(&server.poll("a")), ("cluster_gone", "UNKNOWN", true));
}

#[test]
fn a_cluster_that_nobody_knows_is_not_found_though_sky_ends_well() {
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
fn what_counts_is_how_the_cluster_is_afterwards_and_not_what_was_said() {
    let world = on_aws();
    let mut server = world.server();
    // Said to be done, and not done.
    world.cloud.set("sky-down.replay", "sky/down");
    world.cloud.set("sky-stop.replay", "sky/stop");
    for answer in [
        stop(&mut server, "aws", "dev"),
        down(&mut server, "aws", "dev"),
    ] {
        assert!(
            answer.refused().contains("cluster dev is UP"),
            "{}",
            answer.refused()
        );
    }
    // Done, and killed before it was said.
    world.cloud.unset("sky-down.replay");
    world.cloud.set("sky-down.crash", "");
    let answer = down(&mut server, "aws", "dev").ok();
    assert!(
        text(&answer, "message").contains("deleted"),
        "{:#}",
        answer.content
    );
}

#[test]
fn a_change_whose_outcome_cannot_be_asked_is_an_error_that_says_so() {
    let world = on_aws();
    world.cloud.set("sky-status.garbage", "half");
    let mut server = world.server();
    let answer = down(&mut server, "aws", "dev");
    assert!(
        answer.refused().contains("sky status"),
        "{}",
        answer.refused()
    );
}

#[test]
fn names_and_clouds_that_no_program_should_get_are_refused_before_one_is_started() {
    let world = World::new();
    let mut server = world.server();
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
    ] {
        stop(&mut server, cloud, cluster).refused();
        down(&mut server, cloud, cluster).refused();
    }
    assert_eq!(world.cloud.calls(), []);
}

#[test]
fn of_a_cluster_that_oumi_drives_itself_it_is_said_what_oumi_said() {
    let world = World::new();
    let mut server = world.server();
    let answer = down(&mut server, "slurm", SLURM).ok();
    assert!(
        text(&answer, "message").contains("turned down"),
        "{:#}",
        answer.content
    );
    let call = world.cloud.calls_of(&["oumi", "launch", "down"]).remove(0);
    assert_eq!(
        call.args,
        ["launch", "down", "--cloud", "slurm", "--cluster", SLURM]
    );
    assert_eq!(call.connections, SLURM);
}

#[test]
fn a_poll_of_a_finished_job_says_that_its_cluster_is_still_up_and_what_to_call() {
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
            "3.50 $/h",
            "60 idle minutes",
            "stop_cluster",
            "down_cluster",
        ] {
            assert!(said.contains(part), "{status}: {said}");
        }
        assert_eq!(answer["metadata"]["hourly_price"], 3.5);
    }
    world.cloud.write("clusters/dev/autostop", "-1");
    assert!(warnings(&server.poll("a")).contains("does not stop by itself"));
}

#[test]
fn a_cancel_says_that_the_cluster_is_still_up_and_what_to_call() {
    let world = on_aws();
    let mut server = world.server();
    let answer = server.cancel("a", false).ok();
    let said = text(&answer, "message");
    assert!(
        said.contains("cluster dev (AWS) is still up") && said.contains("down_cluster"),
        "{said}"
    );
    // Of one that had ended before, too.
    let answer = server.cancel("a", false);
    assert!(
        answer.refused().contains("is still up"),
        "{}",
        answer.refused()
    );
}

#[test]
fn a_list_gives_autostop_and_price_where_they_are_known() {
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
    assert_eq!(row("9").get("hourly_price"), None);
}

#[test]
fn a_list_names_the_clusters_that_are_up_with_no_live_job() {
    let world = on_aws();
    for (cluster, status) in [
        ("empty", "UP"),
        ("idle", "UP"),
        ("asleep", "STOPPED"),
        ("coming", "INIT"),
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
        for cluster in ["dev", "asleep", "coming", "busy", "odd"] {
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
fn what_is_asked_after_a_cluster_was_deleted_shows_it_deleted() {
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
    assert!(
        text(&deleted, "message").contains("deleted"),
        "{:#}",
        deleted.content
    );
    assert_eq!(how(&server.poll("a")), ("cluster_gone", "UNKNOWN", true));
    let (ids, later) = server.list("running");
    assert_eq!((ids.len(), warnings(&later)), (0, String::new()));
    world.cloud.set("sky-status.open", "");
    server.answer("list_jobs", list).ok();
}
