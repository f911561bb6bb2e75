//! Why a job failed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::{Exit, Failure, causes, explain, last_exception};
use crate::logs::fold::fold;

/// The excerpts, by name: `<cause>[.<variant>]`, each without the line that names its source.
fn excerpts() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs/failures");
    let mut all: Vec<(String, String)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            let (source, log) = text.split_once('\n').unwrap();
            assert!(source.starts_with("# source: "), "{name}");
            (name, fold(log.as_bytes()))
        })
        .collect();
    all.sort();
    all
}

fn excerpt(name: &str) -> String {
    let found = excerpts().into_iter().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("no {name}")).1
}

fn traceback_end(log: &str) -> Option<String> {
    explain(log, None, None)?.traceback_end
}

fn cause(log: &str) -> Option<String> {
    explain(log, None, None).and_then(|failure| failure.cause)
}

#[test]
fn every_cause_is_recognised_in_a_real_log_and_every_log_by_its_cause() {
    let mut seen = BTreeSet::new();
    for (name, log) in excerpts() {
        let expected = name.split('.').next().unwrap();
        let failure = explain(&log, Some(Exit::Code(1)), None).unwrap();
        assert_eq!(
            failure.cause.as_deref(),
            Some(expected),
            "{name}: {failure:#?}"
        );
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let evidence = failure.evidence.unwrap();
        assert!(
            squeezed(&log).contains(&squeezed(evidence.trim_end_matches('…'))),
            "{name}: {evidence}"
        );
        assert!(
            failure.traceback_end.or(failure.last_lines).is_some(),
            "{name}"
        );
        seen.insert(expected.to_owned());
    }
    let table = causes::read().unwrap();
    let all = table.causes.iter().map(|cause| cause.name.clone());
    let all: BTreeSet<String> = all.filter(|name| name != "killed").collect();
    assert_eq!(seen, all);
    assert_eq!(all.len() + 1, table.causes.len(), "a name twice");
}

/// `oumi launch` fails here for want of a package, a job where it runs.
#[test]
fn missing_package_is_installed_where_the_program_ran() {
    let log = "ModuleNotFoundError: No module named 'sky'";
    let advice = explain(log, Some(Exit::Code(1)), None).unwrap().advice;
    let advice = advice.unwrap();
    let places = ["for a launch", "beside `oumi` here", "`setup`"];
    assert!(
        places.iter().all(|place| advice.contains(place)),
        "{advice}"
    );
}

#[test]
fn exception_at_the_end_of_a_log_is_told_from_one_that_was_survived() {
    let raised = "Traceback (most recent call last):\n  File \"t.py\", line 3, in <module>\n    main()\nValueError: bad batch\n";
    let all_said = Some("ValueError: bad batch".to_owned());
    let end = |log: &str| last_exception(&fold(log.as_bytes()));
    assert_eq!(end(&format!("step 10/300 loss 1.2\n{raised}")), all_said);
    assert_eq!(end(&raised.replace("\n", "\n[rank0]: ")), all_said);
    assert_eq!(end(&format!("{raised}step 10/300 loss 1.2\n")), None);
    assert_eq!(end(&format!("{raised}a\nb\nc\nd\ne\n")), None);
    assert_eq!(end(&format!("Exception ignored in: <f>\n{raised}")), None);
    assert_eq!(end("Error: 0.03\n"), None);
}

#[test]
fn every_row_of_the_table_is_a_sentence_and_an_advice() {
    for cause in causes::read().unwrap().causes {
        for text in [&cause.what, &cause.advice] {
            assert!(
                text.ends_with('.') && text.chars().next().unwrap().is_uppercase(),
                "{text}"
            );
        }
        assert!(cause.advice.len() < 400, "{}", cause.name);
    }
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let unknown = "Traceback (most recent call last):\n  File \"train.py\", line 3, in <module>\n    x[3]\nIndexError: list index out of range\n";
    let failure = explain(unknown, Some(Exit::Code(1)), None).unwrap();
    assert_eq!(
        failure,
        Failure {
            exit: Some("exit code 1".into()),
            traceback_end: Some("  File \"train.py\", line 3, in <module>\n    x[3]\nIndexError: list index out of range".into()),
            ..Failure::default()
        }
    );
    assert_eq!(explain("", None, None), None);
    assert_eq!(explain("all is well\n", None, None), None);
    // A run that went well has nothing that looks like a cause.
    for name in [
        "oumi-0.9-trl-sft-eval.log",
        "oumi-0.9-oumi-trainer.log",
        "oumi-0.9-slurm-wrapped.out",
        "transformers-5.16-info.log",
    ] {
        let log = fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/fixtures/logs")
                .join(name),
        )
        .unwrap();
        assert_eq!(explain(&fold(&log), None, None), None, "{name}");
    }
    // Nor do warnings.
    for line in [
        "CUDA is not available!",
        "UserWarning: CUDA initialization: Found no NVIDIA driver on your system.",
        "UserWarning: Failed to initialize NumPy: No module named 'numpy'",
        "memory: 9.46GiB, allocated memory error rate 0",
        "Signal 15 (SIGTERM) received by PID 3602",
        "The address already known is in use by nobody",
    ] {
        assert_eq!(cause(&format!("{line}\n")), None, "{line}");
    }
}

#[test]
fn the_cause_counts_and_not_what_follows_from_it() {
    let out_of_memory = excerpt("cuda_out_of_memory.txt");
    let timeout = excerpt("nccl_timeout.txt");
    let killed = excerpt("worker_killed.txt");
    assert_eq!(
        cause(&(out_of_memory.clone() + &timeout + &killed)).unwrap(),
        "cuda_out_of_memory"
    );
    assert_eq!(
        cause(&(timeout.clone() + &out_of_memory)).unwrap(),
        "cuda_out_of_memory"
    );
    assert_eq!(
        cause(&(excerpt("quota.txt") + &excerpt("no_resources.txt"))).unwrap(),
        "quota"
    );
    // Of two causes the later one: the first was survived.
    let survived = out_of_memory + "step 7\nstep 8\n";
    assert_eq!(cause(&survived), None);
    assert_eq!(
        cause(&(survived + &excerpt("disk_full.txt"))).unwrap(),
        "disk_full"
    );
}

#[test]
fn exits_are_told_by_their_names() {
    let exit = |exit: Exit| explain("", Some(exit), None).unwrap();
    assert_eq!(exit(Exit::Code(2)).exit.unwrap(), "exit code 2");
    assert_eq!(
        exit(Exit::Code(127)).exit.unwrap(),
        "exit code 127: a command was not found"
    );
    assert_eq!(
        exit(Exit::Signal(15)).exit.unwrap(),
        "killed by signal 15 (SIGTERM)"
    );
    assert_eq!(
        exit(Exit::Code(139)).exit.unwrap(),
        "exit code 139, as after signal 11 (SIGSEGV)"
    );
    assert_eq!(exit(Exit::Signal(64)).exit.unwrap(), "killed by signal 64");
    assert_eq!(exit(Exit::Signal(15)).cause, None);
    // Killed, with nothing in the log: what is likely is said as likely.
    for killed in [Exit::Signal(9), Exit::Code(137)] {
        let failure = exit(killed);
        assert_eq!(failure.cause.as_deref(), Some("killed"));
        assert!(
            failure
                .advice
                .unwrap()
                .starts_with("Unless somebody killed it")
        );
        assert_eq!(failure.evidence, None);
    }
    // With something in the log, that.
    let failure = explain(
        &excerpt("out_of_memory.slurm.txt"),
        Some(Exit::Signal(9)),
        None,
    )
    .unwrap();
    assert_eq!(failure.cause.as_deref(), Some("out_of_memory"));
}

#[test]
fn the_launchers_reason_is_looked_at_too() {
    let reason = "sky.exceptions.ResourcesUnavailableError: Task 'x' requires aws which is not enabled. To enable access, run: sky check aws";
    let failure = explain("Command to run: echo x\n", None, Some(reason)).unwrap();
    assert_eq!(
        (failure.cause.as_deref(), failure.evidence.as_deref()),
        (Some("cloud_not_enabled"), Some(reason))
    );
}

#[test]
fn the_last_traceback_ends_with_its_exception() {
    assert_eq!(
        traceback_end(&excerpt("no_such_dataset.hub.txt")).unwrap(),
        "  File \"/opt/venv/lib/python3.9/site-packages/datasets/load.py\", line 1852, in dataset_module_factory\n    raise DatasetNotFoundError(msg + f\" at revision '{revision}'\" if revision else msg)\ndatasets.exceptions.DatasetNotFoundError: Dataset 'xxx' doesn't exist on the Hub or cannot be accessed"
    );
    // Chained exceptions: the last, with what the first says.
    let end = traceback_end(&excerpt("shared_memory.txt")).unwrap();
    assert!(
        end.contains("exited unexpectedly\nRuntimeError: DataLoader") && end.lines().count() <= 4,
        "{end}"
    );
    // With what Oumi says below it left out.
    let end = traceback_end(&excerpt("hub_unreachable.txt")).unwrap();
    assert!(
        end.contains("OSError: We couldn't connect") && end.ends_with("#offline-mode'."),
        "{end}"
    );
    // Wrapped at 80 columns, as Oumi writes it where nobody tells it otherwise.
    let end = traceback_end(&excerpt("ssh_refused.txt")).unwrap();
    assert!(
        end.contains("\noumi.core.launcher.exceptions.ClusterUnreachableError: Failed to establish an\nSSH connection to the Slurm controller for nobody@localhost."),
        "{end}"
    );
    // Without a traceback, what Oumi says of the config.
    assert_eq!(
        traceback_end(&excerpt("bad_config.txt")).unwrap(),
        "Error: Config error at 'training.learning_rat': Key 'learning_rat' not in 'TrainingParams'\n    full_key: training.learning_rat\n    reference_type=TrainingParams\n    object_type=TrainingParams"
    );
    assert_eq!(traceback_end("nothing\n"), None);
    assert_eq!(
        traceback_end("Traceback (most recent call last):\n  File \"x\", line 1\n"),
        None
    );
}

#[test]
fn the_workers_own_traceback_counts_and_not_that_of_torchrun() {
    let log = "[rank1]: Traceback (most recent call last):\n[rank0]: Traceback (most recent call last):\n[rank1]:   File \"a.py\", line 1, in f\n[rank0]:   File \"b.py\", line 2, in g\n[rank1]:     one()\n[rank0]:     other()\n[rank1]: ValueError: one\n[rank0]: KeyError: 'other'\n(head, rank=0, pid=12) Traceback (most recent call last):\n(head, rank=0, pid=12)   File \"run.py\", line 9, in run\n(head, rank=0, pid=12)     raise ChildFailedError(\n(head, rank=0, pid=12) torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n";
    assert_eq!(
        traceback_end(log).unwrap(),
        "  File \"a.py\", line 1, in f\n    one()\nValueError: one"
    );
    // That of a worker, inside of torchrun's report.
    let report = excerpt("worker_killed.txt");
    assert!(traceback_end(&report).unwrap().contains("ChildFailedError"));
}

#[test]
fn a_phrase_is_found_across_lines_and_shown_in_its_line() {
    let failure = explain(&excerpt("no_such_model.wrapped.txt"), None, None).unwrap();
    assert_eq!(
        failure.evidence.as_deref(),
        Some(
            "OSError: models/pygmalion-6b_dev-sharded is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models' If this is a private repository, make sure to pass a token having permission to this repo with `use_auth_token` or log in with `huggingface-cli login` and pass `use_auth_token=True`."
        )
    );
    let long = format!(
        "RuntimeError: {}CUDA out of memory. {}\n",
        "x".repeat(5_000),
        "y".repeat(5_000)
    );
    let evidence = explain(&long, None, None).unwrap().evidence.unwrap();
    assert!(
        evidence.contains("CUDA out of memory") && evidence.chars().count() <= 401,
        "{evidence}"
    );
}

#[test]
fn a_huge_tail_costs_little_and_any_text_is_no_panic() {
    let mut log = "é\u{fffd} Traceback (most recent call last):\n  File\n\n".repeat(100_000);
    log.push_str("RuntimeError: CUDA out of memory.\n");
    let start = Instant::now();
    assert_eq!(cause(&log).unwrap(), "cuda_out_of_memory");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    let words = [
        "Traceback (most recent call last):",
        "\n",
        "  ",
        "File \"",
        "Error: ",
        "x",
        "é",
        "[rank0]: ",
        "(a, pid=1) ",
        ": ",
        "ValueError",
    ];
    let mut state = 3_u64;
    for _ in 0..2_000 {
        let mut text = String::new();
        for _ in 0..40 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push_str(words[(state >> 33) as usize % words.len()]);
        }
        explain(&text, None, Some(&text));
    }
}

/// As bitsandbytes words it, and torchrun.
#[test]
fn error_line_that_announces_goes_on_in_the_next() {
    for (error, message) in [
        (
            "RuntimeError: \n        CUDA Setup failed despite GPU being available.\n",
            "RuntimeError: CUDA Setup failed despite GPU being available.",
        ),
        (
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n========\na.py FAILED\n--------\n",
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: a.py FAILED",
        ),
        (
            "pydantic.ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified\n",
            "pydantic.ValidationError: 1 validation error for ModelConfig Value error, User-specified",
        ),
        // As loguru sets it off.
        (
            "\nZeroDivisionError: division by zero",
            "ZeroDivisionError: division by zero",
        ),
        (
            "RuntimeError: Error(s) in loading state_dict for Llama:\n\tsize mismatch for lm_head\n",
            "RuntimeError: Error(s) in loading state_dict for Llama: size mismatch for lm_head",
        ),
    ] {
        let frame = "  File \"a.py\", line 1, in <module>";
        let log = format!("Traceback (most recent call last):\n{frame}\n{error}");
        let failure = explain(&log, None, None).unwrap();
        assert_eq!(failure.error_line().as_deref(), Some(message));
    }
}

#[test]
fn what_shows_the_cause_is_left_when_quotes_are_cut() {
    for (log, limit, shown) in [
        (
            "ValueError: Couldn't instantiate the backend tokenizer from one of:\n(1) a `tokenizers` library serialization file,\n(2) a slow tokenizer instance to convert or\n(3) an equivalent slow tokenizer class to instantiate and convert.\nYou need to have sentencepiece installed.\n",
            260,
            "sentencepiece",
        ),
        (
            "OSError: There was a specific connection error when trying to load a/b:\nFor more information check: https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/401\n\nInvalid credentials in Authorization header\n",
            60,
            "Invalid credentials in Authorization header",
        ),
    ] {
        let mut failure = explain(log, None, None).unwrap();
        failure.cut_quotes(500, limit);
        let quote = failure.traceback_end.unwrap();
        assert!(quote.contains(shown), "{quote}");
        assert_eq!(failure.evidence, None);
    }
}
