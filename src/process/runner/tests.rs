//! The runner against shell scripts.

use std::path::Path;

use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A folder in which the scripts of a test say what they do.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A question that is a shell script, run in this place.
    fn question(&self, script: &str, deadline: Duration) -> Question {
        let script = format!("cd '{}'; {script}", self.path().display());
        Question::new(Path::new("/bin/sh"), &["-c", &script], deadline)
    }

    fn log(&self, script: &str, deadline: Duration) -> Question {
        Question {
            is_log: true,
            ..self.question(script, deadline)
        }
    }

    fn write(&self, name: &str) {
        std::fs::write(self.path().join(name), "").unwrap();
    }

    /// The lines of a file that a script wrote.
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

/// Waits for the test, and ends with its place.
const GATE: &str =
    "echo begun >>begun; while [ -d \"$PWD\" ] && ! [ -e open ]; do sleep 0.02; done;";

/// Who is dead and not yet reaped does not live.
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
async fn who_asks_the_same_while_it_is_asked_shares_the_run() {
    let (place, cli) = (Place::new(), Cli::default());
    let question = place.question(&format!("{GATE} echo answer"), LONG);
    let other = place.question(&format!("{GATE} echo other"), LONG);
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let (cli, question) = (cli.clone(), question.clone());
            tokio::spawn(async move { cli.ask(question, LONG).await })
        })
        .collect();
    let another = tokio::spawn({
        let cli = cli.clone();
        async move { cli.ask(other, LONG).await }
    });
    place
        .until("both run", |place| place.lines("begun").len() == 2)
        .await;
    place.write("open");
    for asked in asked {
        assert_eq!(asked.await.unwrap().unwrap().stdout, "answer\n");
    }
    assert_eq!(another.await.unwrap().unwrap().stdout, "other\n");
    assert_eq!(place.lines("begun").len(), 2);
    // Whoever asks afterwards wants to know how it is then.
    cli.ask(question, LONG).await.unwrap();
    assert_eq!(place.lines("begun").len(), 3);
}

#[tokio::test]
async fn no_more_than_four_programs_run_at_once() {
    let (place, cli) = (Place::new(), Cli::default());
    // Long enough that all would run at once if they might.
    let asked: Vec<_> = (0..12)
        .map(|number| {
            let script = format!("echo +1 >>at; sleep 0.3; echo -1 >>at; echo {number}");
            let (cli, question) = (cli.clone(), place.question(&script, LONG));
            tokio::spawn(async move {
                // Those that change something count as well.
                if number % 2 == 0 {
                    cli.ask(question, LONG).await.unwrap().stdout.clone()
                } else {
                    cli.run(&question).await.unwrap().stdout
                }
            })
        })
        .collect();
    for (number, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap(), format!("{number}\n"));
    }
    let at_once = place.lines("at").into_iter().scan(0, |running, step| {
        *running += step.parse::<i32>().unwrap();
        Some(*running)
    });
    assert_eq!(at_once.max(), Some(4));
}

#[tokio::test]
async fn an_answer_that_came_too_late_is_kept_for_the_next_to_ask_and_given_once() {
    let (place, cli) = (Place::new(), Cli::default());
    let question = place.question(&format!("{GATE} wc -l <begun"), LONG);
    let error = cli
        .ask(question.clone(), Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(error, CliError::StillAsked { .. }), "{error}");
    assert!(error.to_string().contains("try again"), "{error}");
    place
        .until("it runs", |place| !place.lines("begun").is_empty())
        .await;
    place.write("open");
    let is_kept = || {
        cli.asked()
            .values()
            .any(|asked| asked.unclaimed_since.is_some())
    };
    place.until("it is kept", |_| is_kept()).await;
    let text = |answer: Outcome| answer.unwrap().stdout.trim().to_owned();
    assert_eq!(text(cli.ask(question.clone(), LONG).await), "1");
    assert_eq!(text(cli.ask(question, LONG).await), "2");
}

#[tokio::test]
async fn an_answer_that_nobody_comes_for_is_not_kept_for_long() {
    let (place, cli) = (Place::new(), Cli::default());
    let question = place.question(&format!("{GATE} wc -l <begun"), LONG);
    cli.ask(question.clone(), Duration::ZERO).await.unwrap_err();
    place.write("open");
    let is_kept = || {
        cli.asked()
            .values()
            .any(|asked| asked.unclaimed_since.is_some())
    };
    place.until("it is kept", |_| is_kept()).await;
    tokio::time::pause();
    tokio::time::advance(KEPT_FOR + Duration::from_secs(1)).await;
    tokio::time::resume();
    assert_eq!(cli.ask(question, LONG).await.unwrap().stdout.trim(), "2");
}

#[tokio::test]
async fn who_asks_after_a_change_gets_no_answer_from_before_it() {
    let (place, cli) = (Place::new(), Cli::default());
    // It looks first, and takes its time to say what it saw.
    let script = "seen=$(cat state); echo begun >>begun; \
                  while [ -d \"$PWD\" ] && ! [ -e open-$seen ]; do sleep 0.02; done; echo $seen";
    let question = place.question(script, LONG);
    std::fs::write(place.path().join("state"), "before").unwrap();
    let ask = || {
        let (cli, question) = (cli.clone(), question.clone());
        tokio::spawn(async move { cli.ask(question, LONG).await.unwrap().stdout.clone() })
    };
    let first = ask();
    place
        .until("it has looked", |place| place.lines("begun").len() == 1)
        .await;
    cli.run(&place.question("echo after >state", LONG))
        .await
        .unwrap();
    let second = ask();
    place
        .until("it looks anew", |place| place.lines("begun").len() == 2)
        .await;
    let third = ask();
    // Whichever ends first: each has what it asked for.
    place.write("open-before");
    assert_eq!(first.await.unwrap(), "before\n");
    let fourth = ask();
    place.write("open-after");
    for asked in [second, third, fourth] {
        assert_eq!(asked.await.unwrap(), "after\n");
    }
    assert_eq!(place.lines("begun").len(), 2);
    assert!(cli.asked().is_empty());
}

#[tokio::test]
async fn a_program_that_goes_on_after_its_deadline_is_ended_with_what_it_started() {
    let (place, cli) = (Place::new(), Cli::default());
    // One that ends when it is asked to, and one that does not; each with a child that does not.
    for (at, deaf) in ["", "trap '' TERM;"].into_iter().enumerate() {
        let script = format!(
            "{deaf} (trap '' TERM; sleep 60 >/dev/null 2>&1) & echo $$ >pids-{at}; echo $! >>pids-{at}; echo said; sleep 60"
        );
        let question = place.question(&script, Duration::from_millis(300));
        let error = cli.ask(question, LONG).await.unwrap_err();
        assert!(matches!(error, CliError::TimedOut { .. }), "{error}");
        let pids = place.lines(&format!("pids-{at}"));
        assert_eq!(pids.len(), 2);
        place
            .until("both have ended", |_| !pids.iter().any(|pid| alive(pid)))
            .await;
    }
}

#[tokio::test]
async fn of_a_log_and_of_a_change_what_was_said_by_the_deadline_is_the_answer() {
    let (place, cli) = (Place::new(), Cli::default());
    let script = "echo said; exec sleep 60";
    let log = cli
        .ask(place.log(script, Duration::from_millis(300)), LONG)
        .await
        .unwrap();
    let change = cli
        .run(&place.question(script, Duration::from_millis(300)))
        .await
        .unwrap();
    for output in [(*log).clone(), change] {
        assert_eq!(
            (output.stdout.as_str(), output.code, output.timed_out),
            ("said\n", None, true)
        );
    }
}

#[tokio::test]
async fn a_daemon_that_was_left_behind_and_holds_the_pipe_is_not_waited_for_and_lives_on() {
    let (place, cli) = (Place::new(), Cli::default());
    let begun = std::time::Instant::now();
    let script =
        "(while [ -d \"$PWD\" ]; do echo beat >>beats; sleep 0.02; done) & echo said; exit 3";
    let output = cli.ask(place.question(script, LONG), LONG).await.unwrap();
    assert_eq!(
        (output.stdout.as_str(), output.code, output.timed_out),
        ("said\n", Some(3), false)
    );
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    // It ends with its place.
    let beats = place.lines("beats").len();
    place
        .until("it lives on", |place| {
            place.lines("beats").len() > beats + 2
        })
        .await;
}

#[tokio::test]
async fn too_much_output_is_an_error_and_of_a_log_the_end_is_kept() {
    let (place, cli) = (Place::new(), Cli::default());
    let script = "echo $$ >pid; yes 0123456789abcde | head -c 50000000; echo the end";
    let error = cli
        .ask(place.question(script, LONG), LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, CliError::TooMuch { .. }), "{error}");
    assert!(error.to_string().contains("8 MB"), "{error}");
    let pid = place.lines("pid").remove(0);
    place.until("it was ended", |_| !alive(&pid)).await;

    let output = cli.ask(place.log(script, LONG), LONG).await.unwrap();
    assert!(output.stdout.ends_with("the end\n"));
    assert!(output.stdout.len() >= MAX_OUTPUT);
    assert!(output.stdout.len() <= 2 * MAX_OUTPUT + 64 * 1024);
}

#[tokio::test]
async fn both_streams_the_exit_code_and_bytes_that_are_no_text_are_read() {
    let (place, cli) = (Place::new(), Cli::default());
    let script = "echo out; echo err >&2; printf '\\377\\n'; echo $COLUMNS $MORE; read line && echo \"$line\"; exit 7";
    let question = place
        .question(script, LONG)
        .with_env("MORE", "more".to_owned());
    let output = cli.ask(question, LONG).await.unwrap();
    assert_eq!(output.stdout, "out\n\u{fffd}\n4096 more\n");
    assert_eq!((output.stderr.as_str(), output.code), ("err\n", Some(7)));
    let killed = cli
        .ask(place.question("kill -9 $$", LONG), LONG)
        .await
        .unwrap();
    assert_eq!((killed.code, killed.timed_out), (None, false));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_an_error_of_its_own() {
    let question = Question::new(Path::new("/nonexistent/sky"), &["queue"], LONG);
    let error = Cli::default().ask(question, LONG).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CliError::NotStarted { .. }), "{text}");
    assert!(text.contains("`sky queue`"), "{text}");
}

#[tokio::test]
async fn a_log_that_is_followed_is_taken_soon_after_it_has_begun() {
    let place = Place::new();
    let script =
        "echo banner; echo Now comes the log; while [ -d . ]; do echo step; sleep 0.1; done";
    let mut question = place.log(script, Duration::from_secs(600));
    question.log_begins = Some("comes the log");
    let output = Cli::default().ask(question, LONG).await.unwrap();
    assert!(output.timed_out);
    assert!(output.stdout.ends_with("step\n"), "{}", output.stdout);
}
