//! The runner with shell scripts as programs.

use std::path::Path;

use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};

use super::*;
use crate::process::program::MAX_OUTPUT;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

/// The folder in which the scripts of a test run and leave their notes.
struct Scripts(tempfile::TempDir);

impl Scripts {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn call(&self, script: &str, timeout: Duration) -> CliCall {
        let script = format!("cd '{}'; {script}", self.path().display());
        CliCall::new(Path::new("/bin/sh"), &["-c", &script], timeout)
    }

    fn log(&self, script: &str, timeout: Duration) -> CliCall {
        CliCall {
            is_log: true,
            ..self.call(script, timeout)
        }
    }

    fn write(&self, name: &str) {
        std::fs::write(self.path().join(name), "").unwrap();
    }

    /// Reads the lines of a file that a script wrote.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join(name)).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = std::time::Instant::now() + LONG;
        while !is_so(self) {
            assert!(std::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Waits until the test opens the gate, or removes the folder.
const GATE: &str =
    "echo begun >>begun; while [ -d \"$PWD\" ] && ! [ -e open ]; do sleep 0.02; done;";

fn alive(pid: &str) -> bool {
    let pid = pid.parse().unwrap();
    let mut system = System::new().unwrap();
    let kind = ProcessRefreshKind::nothing().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, kind);
    let process = system.process(pid);
    process.is_some_and(|process| {
        !matches!(
            process.status(),
            ProcessStatus::Zombie | ProcessStatus::Dead
        )
    })
}

#[tokio::test]
async fn equal_queries_share_one_run() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    let call = scripts.call(&format!("{GATE} echo answer"), LONG);
    let other = scripts.call(&format!("{GATE} echo other"), LONG);
    let runs: Vec<_> = (0..10)
        .map(|_| {
            let (cli, call) = (cli.clone(), call.clone());
            tokio::spawn(async move { cli.query(&call).await })
        })
        .collect();
    let another = tokio::spawn({
        let cli = cli.clone();
        async move { cli.query(&other).await }
    });
    scripts
        .until("both run", |scripts| scripts.lines("begun").len() == 2)
        .await;
    scripts.write("open");
    for run in runs {
        assert_eq!(run.await.unwrap().unwrap().stdout, "answer\n");
    }
    assert_eq!(another.await.unwrap().unwrap().stdout, "other\n");
    assert_eq!(scripts.lines("begun").len(), 2);
    // A later query wants the state of then.
    cli.query(&call).await.unwrap();
    assert_eq!(scripts.lines("begun").len(), 3);
}

#[tokio::test]
async fn at_most_four_programs_run_at_once() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    // Long enough that all would run at once if they might.
    let runs: Vec<_> = (0..12)
        .map(|number| {
            let script = format!("echo +1 >>at; sleep 0.3; echo -1 >>at; echo {number}");
            let (cli, call) = (cli.clone(), scripts.call(&script, LONG));
            tokio::spawn(async move { cli.query(&call).await.unwrap().stdout.clone() })
        })
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        assert_eq!(run.await.unwrap(), format!("{number}\n"));
    }
    let at_once = scripts.lines("at").into_iter().scan(0, |running, step| {
        *running += step.parse::<i32>().unwrap();
        Some(*running)
    });
    assert_eq!(at_once.max(), Some(4));
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

/// Has so much time pass at once.
async fn elapse(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn has_unread_result(cli: &Cli) -> bool {
    let queries = lock(&cli.queries);
    let mut runs = queries.values().filter_map(Weak::upgrade);
    runs.any(|run| run.borrow().is_some())
}

/// Runs four programs that wait for the gate: all slots are busy.
async fn fill_slots(scripts: &Scripts, cli: &Cli) -> Vec<tokio::task::JoinHandle<QueryResult>> {
    let busy = (0..MAX_CONCURRENT)
        .map(|number| {
            let (cli, call) = (
                cli.clone(),
                scripts.call(&format!("{GATE} echo {number}"), LONG),
            );
            tokio::spawn(async move { cli.query(&call).await })
        })
        .collect();
    let all_run = |scripts: &Scripts| scripts.lines("begun").len() == MAX_CONCURRENT;
    scripts.until("all slots are busy", all_run).await;
    busy
}

#[tokio::test]
async fn late_result_serves_one_later_query() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    let call = scripts.call(&format!("{GATE} wc -l <begun"), LONG);
    let waiting = tokio::spawn({
        let (cli, call) = (cli.clone(), call.clone());
        async move { cli.query(&call).await }
    });
    scripts
        .until("it runs", |scripts| !scripts.lines("begun").is_empty())
        .await;
    let error = until(soon(), cli.query(&call)).await.unwrap_err();
    assert!(error.to_string().contains("try again"), "{error}");
    waiting.abort();
    let _ = waiting.await;
    scripts.write("open");
    scripts
        .until("the result is kept", |_| has_unread_result(&cli))
        .await;
    let text = |result: QueryResult| result.unwrap().stdout.trim().to_owned();
    assert_eq!(text(cli.query(&call).await), "1");
    assert_eq!(text(cli.query(&call).await), "2");
}

#[tokio::test]
async fn unread_result_expires() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    let call = scripts.call(&format!("{GATE} wc -l <begun"), LONG);
    let mut waiting = Box::pin(cli.query(&call));
    while scripts.lines("begun").is_empty() {
        let _ = timeout(Duration::from_millis(10), &mut waiting).await;
    }
    drop(waiting);
    scripts.write("open");
    scripts
        .until("the result is kept", |_| has_unread_result(&cli))
        .await;
    elapse(UNREAD_TTL + Duration::from_secs(1)).await;
    scripts
        .until("it has expired", |_| !has_unread_result(&cli))
        .await;
    assert_eq!(cli.query(&call).await.unwrap().stdout.trim(), "2");
}

#[tokio::test]
async fn abandoned_queries_do_not_start() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    let busy = fill_slots(&scripts, &cli).await;
    let abandoned = scripts.call("echo ran >>abandoned", LONG);
    until(soon(), cli.query(&abandoned)).await.unwrap_err();
    scripts.write("open");
    for run in busy {
        run.await.unwrap().unwrap();
    }
    scripts
        .until("the queue is empty", |_| lock(&cli.queries).is_empty())
        .await;
    assert!(scripts.lines("abandoned").is_empty());
    // Asked again, it runs.
    cli.query(&abandoned).await.unwrap();
    assert_eq!(scripts.lines("abandoned").len(), 1);
}

/// The server ends: nobody would read the answer.
#[test]
fn programs_end_with_the_runtime() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (first, scripts, cli) = (runtime(), Scripts::new(), Cli::default());
    let call = scripts.call("echo $$ >pid; (sleep 60; true)", LONG);
    first.block_on(async {
        tokio::spawn(async move { cli.query(&call).await });
        let runs = |scripts: &Scripts| !scripts.lines("pid").is_empty();
        scripts.until("it runs", runs).await;
    });
    first.shutdown_timeout(LONG);
    let pid = scripts.lines("pid").remove(0);
    runtime().block_on(scripts.until("it has ended", |_| !alive(&pid)));
}

#[tokio::test]
async fn queries_after_a_change_run_again() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    // It looks first, and takes its time to say what it saw.
    let script = "seen=$(cat state); echo begun >>begun; \
                  while [ -d \"$PWD\" ] && ! [ -e open-$seen ]; do sleep 0.02; done; echo $seen";
    let call = scripts.call(script, LONG);
    std::fs::write(scripts.path().join("state"), "before").unwrap();
    let query = || {
        let (cli, call) = (cli.clone(), call.clone());
        tokio::spawn(async move { cli.query(&call).await.unwrap().stdout.clone() })
    };
    let first = query();
    scripts
        .until("it has looked", |scripts| scripts.lines("begun").len() == 1)
        .await;
    std::fs::write(scripts.path().join("state"), "after").unwrap();
    cli.invalidate();
    let second = query();
    scripts
        .until("it looks anew", |scripts| scripts.lines("begun").len() == 2)
        .await;
    let third = query();
    // Each gets its own result, in either order.
    scripts.write("open-before");
    assert_eq!(first.await.unwrap(), "before\n");
    let fourth = query();
    scripts.write("open-after");
    for later in [second, third, fourth] {
        assert_eq!(later.await.unwrap(), "after\n");
    }
    assert_eq!(scripts.lines("begun").len(), 2);
    assert!(lock(&cli.queries).is_empty());
}

#[tokio::test]
async fn timeout_ends_the_process_group() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    // One that ends when it is asked to, and one that does not; each with a child that does not.
    for (at, deaf) in ["", "trap '' TERM;"].into_iter().enumerate() {
        let script = format!(
            "{deaf} (trap '' TERM; sleep 60 >/dev/null 2>&1) & echo $$ >pids-{at}; echo $! >>pids-{at}; echo said; sleep 60"
        );
        let (cli, call) = (cli.clone(), scripts.call(&script, LONG));
        let query = tokio::spawn(async move { cli.query(&call).await });
        let pids = |scripts: &Scripts| scripts.lines(&format!("pids-{at}"));
        let both_run = |scripts: &Scripts| pids(scripts).len() == 2;
        scripts.until("both run", both_run).await;
        elapse(LONG).await;
        let error = query.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("did not answer"), "{error}");
        let pids = pids(&scripts);
        scripts
            .until("both have ended", |_| !pids.iter().any(|pid| alive(pid)))
            .await;
    }
}

#[tokio::test]
async fn timeout_keeps_the_output_of_logs() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    let script = "echo said; exec sleep 60";
    let log = cli
        .query(&scripts.log(script, Duration::from_secs(3)))
        .await
        .unwrap();
    assert_eq!(
        (log.stdout.as_str(), log.code, log.timed_out),
        ("said\n", None, true)
    );
}

#[tokio::test]
async fn daemon_holding_the_pipe_is_left_alone() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    let begun = std::time::Instant::now();
    let script =
        "(while [ -d \"$PWD\" ]; do echo beat >>beats; sleep 0.02; done) & echo said; exit 3";
    let output = cli.query(&scripts.call(script, LONG)).await.unwrap();
    assert_eq!(
        (output.stdout.as_str(), output.code, output.timed_out),
        ("said\n", Some(3), false)
    );
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    // It ends with its scripts.
    let beats = scripts.lines("beats").len();
    scripts
        .until("it lives on", |scripts| {
            scripts.lines("beats").len() > beats + 2
        })
        .await;
}

#[tokio::test]
async fn output_limit_fails_queries_and_cuts_logs() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    let script = "echo $$ >pid; yes 0123456789abcde | head -c 50000000; echo the end";
    let error = cli.query(&scripts.call(script, LONG)).await.unwrap_err();
    assert!(error.to_string().contains("8 MB"), "{error}");
    let pid = scripts.lines("pid").remove(0);
    scripts.until("it was ended", |_| !alive(&pid)).await;

    let output = cli.query(&scripts.log(script, LONG)).await.unwrap();
    assert!(output.stdout.ends_with("the end\n"));
    assert!(output.stdout.len() >= MAX_OUTPUT);
    assert!(output.stdout.len() <= 2 * MAX_OUTPUT + 64 * 1024);
}

#[tokio::test]
async fn reads_streams_exit_code_and_invalid_utf8() {
    let (scripts, cli) = (Scripts::new(), Cli::default());
    let script = "echo out; echo err >&2; printf '\\377\\n'; echo $COLUMNS $MORE; read line && echo \"$line\"; exit 7";
    let mut call = scripts.call(script, LONG);
    call.envs.push(("MORE".to_owned(), "more".to_owned()));
    let output = cli.query(&call).await.unwrap();
    assert_eq!(output.stdout, "out\n\u{fffd}\n4096 more\n");
    assert_eq!((output.stderr.as_str(), output.code), ("err\n", Some(7)));
    let killed = cli.query(&scripts.call("kill -9 $$", LONG)).await.unwrap();
    assert_eq!((killed.code, killed.timed_out), (None, false));
}

#[tokio::test]
async fn missing_program_is_an_error() {
    let call = CliCall::new(Path::new("/nonexistent/sky"), &["queue"], LONG);
    let error = Cli::default().query(&call).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("could not be started"), "{text}");
    assert!(text.contains("`sky queue`"), "{text}");
}

#[tokio::test]
async fn followed_log_is_taken_after_its_marker() {
    let scripts = Scripts::new();
    let script =
        "echo banner; echo Now comes the log; while [ -d . ]; do echo step; sleep 0.1; done";
    let mut call = scripts.log(script, Duration::from_secs(600));
    call.log_marker = Some("comes the log");
    let output = Cli::default().query(&call).await.unwrap();
    assert!(output.timed_out);
    assert!(output.stdout.ends_with("step\n"), "{}", output.stdout);
}
