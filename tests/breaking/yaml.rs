//! Configs that were made to hurt whoever reads them: refused soon, in little memory, with the reason.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Server;
use crate::support::{Home, memory};

/// Asks for a dry run of this config, and says what was answered, how long it took and how much memory was used for it.
fn asked(text: &[u8]) -> (Result<String, String>, Duration, Option<u64>) {
    let home = Home::new();
    fs::write(home.project().join("hostile.yaml"), text).unwrap();
    // A server of its own: what another config had used is not seen in this one's figures.
    let mut server = Server::start(&home);
    let arguments = server.launch("hostile.yaml", json!({ "dry_run": true }));
    let begun = Instant::now();
    let answer = server.call("run_job", arguments);
    let took = begun.elapsed();
    let peak = memory(server.id(), "VmHWM");
    let said = if answer.is_error {
        Err(answer.refused().to_owned())
    } else {
        Ok(answer.content.to_string())
    };
    // And nothing is wrong with the server afterwards.
    assert_eq!(server.list("all").0, [""; 0]);
    (said, took, peak)
}

fn bounded(name: &str, took: Duration, peak: Option<u64>) {
    println!("{name}: {took:?}, peak {peak:?} kB");
    // The program that is not optimised takes some ten times as long.
    let within = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 1 });
    assert!(took < within, "{name}: {took:?}");
    if let Some(peak) = peak {
        assert!(peak < 64 * 1024, "{name}: {peak} kB");
    }
}

/// It is refused within a second and 64 MB, and the reason says one of these words.
fn refused(name: &str, text: &[u8], reasons: &[&str]) {
    let (said, took, peak) = asked(text);
    bounded(name, took, peak);
    let error = match said {
        Err(error) => error,
        Ok(answer) => panic!("{name} was taken: {answer:.300}"),
    };
    assert!(error.contains("hostile.yaml"), "{name}: {error:.300}");
    assert!(error.len() < 2000, "{name}: {error:.300}");
    let lower = error.to_lowercase();
    assert!(
        reasons.iter().any(|reason| lower.contains(reason)),
        "{name}: {error}"
    );
}

#[test]
fn alias_bomb_is_refused() {
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (new, old) in ('b'..='z').zip('a'..='y') {
        bomb +=
            &format!("{new}: &{new} [*{old},*{old},*{old},*{old},*{old},*{old},*{old},*{old}]\n");
    }
    refused("aliases of lists", bomb.as_bytes(), &["alias"]);
    // The same of mappings that are merged, and of one long text.
    let mut merged = "a: &a {k0: v}\n".to_owned();
    for at in 1..60 {
        merged += &format!("b{at}: &b{at} {{<<: [*a, *a, *a], k{at}: [*a, *a, *a]}}\n");
    }
    merged += &(0..20_000)
        .map(|at| format!("c{at}: {{<<: *b59}}\n"))
        .collect::<String>();
    let (said, took, peak) = asked(merged.as_bytes());
    bounded("merge keys", took, peak);
    drop(said);
    let mut long = format!("a: &a {}\nl:\n", "x".repeat(200_000));
    long += &"- *a\n".repeat(100_000);
    refused(
        "aliases of a long text",
        long.as_bytes(),
        &["alias", "budget", "limit"],
    );
    refused(
        "an alias of itself",
        b"a: &a [*a]\n",
        &["alias", "recurs", "anchor"],
    );
}

#[test]
fn deep_nesting_is_refused() {
    for (name, open) in [("lists", "["), ("mappings", "{a: "), ("block lists", "- ")] {
        refused(
            name,
            open.repeat(200_000).as_bytes(),
            &["recursion", "nests"],
        );
    }
    let indented: String = (0..1200)
        .map(|depth| format!("{}k:\n", " ".repeat(depth)))
        .collect();
    refused(
        "block mappings",
        indented.as_bytes(),
        &["recursion", "nests"],
    );
}

#[test]
fn huge_config_is_refused_unread() {
    refused(
        "100 MB",
        &b"a: xxxxxxxxxxxxxxxx\n".repeat(5_000_000),
        &["larger"],
    );
    refused("100 MB of one line", &vec![b'x'; 100_000_000], &["larger"]);
    // What is just small enough is read, or refused, as quickly.
    for (name, text) in [
        (
            "many keys",
            (0..60_000)
                .map(|at| format!("k{at}: {at}\n"))
                .collect::<String>(),
        ),
        ("many items", format!("a: [{}]\n", "1,".repeat(400_000))),
        ("many brackets", format!("a: [{}]\n", "[],".repeat(300_000))),
        ("one long text", format!("a: {}\n", "x".repeat(1_000_000))),
        ("many comments", "#\n".repeat(500_000) + "a: 1\n"),
        (
            "many anchors",
            (0..40_000).map(|at| format!("k{at}: &a{at} x\n")).collect(),
        ),
        ("many documents", "---\na: 1\n".repeat(100_000)),
        (
            "a quote that never ends",
            format!("a: \"{}", "\\u0041".repeat(160_000)),
        ),
    ] {
        let (_, took, peak) = asked(text.as_bytes());
        bounded(name, took, peak);
    }
}
