//! Progress in logs: which bar is the training's, and how log and bars go together.

use std::fs;
use std::io::{BufWriter, Write};
use std::time::{Duration, SystemTime};

use super::{fixture, is_close, metrics, scan, step_line};
use crate::progress::metrics::Metrics;
use crate::progress::{Scanner, read_log};

fn of(name: &str) -> Metrics {
    metrics(fs::read(fixture(name)).unwrap())
}

/// The figures of a log up to `part` of it.
fn up_to(name: &str, end: &str) -> Option<Metrics> {
    let log = fs::read(fixture(name)).unwrap();
    let at =
        memchr::memmem::find(&log, end.as_bytes()).unwrap_or_else(|| panic!("{end} in {name}"));
    scan(&log[..at + end.len()])
        .0
        .map(|progress| progress.metrics)
}

#[test]
fn oumi_run_from_start_to_end() {
    let name = "oumi-0.9-trl-sft-eval.log";
    let found = up_to(name, "8/12 [00:01<00:00,  4.91it/s]").unwrap();
    assert_eq!((found.step, found.total_steps), (Some(8), Some(12)));
    assert_eq!((found.loss, found.epoch), (Some(5.609), Some(0.4375)));
    assert_eq!(
        (found.eval_loss, found.learning_rate, found.grad_norm),
        (Some(5.699), Some(0.0005), Some(1.814))
    );
    assert_eq!(
        (found.steps_per_second, found.seconds_left),
        (Some(4.91), Some(0.0))
    );
    // Before the first loss the bar alone tells, since Oumi has said that the training starts.
    let found = up_to(name, "0/12 [00:00<?, ?it/s]").unwrap();
    assert_eq!(
        (found.step, found.total_steps, found.loss),
        (Some(0), Some(12), None)
    );
    // The evaluation's own bar, 0/8, changes nothing.
    let found = up_to(name, "5/8 [00:01<00:00,  4.24it/s]").unwrap();
    assert_eq!((found.step, found.total_steps), (Some(12), Some(12)));
    // At the end, with the speed over all of it. The mean loss is not the loss.
    let found = of(name);
    assert_eq!(
        (found.step, found.total_steps, found.loss, found.eval_loss),
        (Some(12), Some(12), Some(5.538), Some(5.515))
    );
    assert_eq!(
        (
            found.samples_per_second,
            found.steps_per_second,
            found.seconds_left
        ),
        (Some(12.84), Some(3.21), None)
    );
}

#[test]
fn nothing_before_the_training() {
    let name = "oumi-0.9-trl-sft-eval.log";
    assert_eq!(
        up_to(
            name,
            "Loading weights: 100%|██████████| 21/21 [00:00<00:00, 23338.73it/s]"
        ),
        None
    );
    assert_eq!(scan(b"").0, None);
    assert_eq!(scan(b"Installing oumi...\nloss of connection\n").0, None);
}

#[test]
fn oumi_trainer_prints_dictionaries_over_lines() {
    let found = of("oumi-0.9-oumi-trainer.log");
    assert_eq!(
        (found.step, found.total_steps, found.epoch),
        (Some(12), Some(12), Some(0.0))
    );
    assert_eq!(
        (found.loss, found.eval_loss),
        (Some(5.877113342285156), Some(5.898211240768433))
    );
    assert_eq!(
        (found.tokens_per_second, found.learning_rate),
        (Some(13.982756740110492), Some(4.166666666666667e-6))
    );
    let history = scan(fs::read(fixture("oumi-0.9-oumi-trainer.log")).unwrap()).1;
    let steps: Vec<_> = history
        .points()
        .iter()
        .map(|point| point.step.unwrap())
        .collect();
    assert_eq!(steps, [2, 4, 6, 8, 10, 12]);
    // Its evaluations do not print the step: they are of the one the training stands at.
    let evaluated: Vec<_> = history
        .points()
        .iter()
        .filter(|point| point.eval_loss.is_some())
        .map(|point| point.step)
        .collect();
    assert_eq!(evaluated, [Some(4), Some(8), Some(12)]);
}

#[test]
fn unprinted_steps_come_from_the_bar() {
    let name = "transformers-5.16-train.log";
    // An unlabelled bar alone may be anything.
    assert_eq!(up_to(name, "5/8 [00:01<00:00,  3.12it/s]"), None);
    let found = of(name);
    assert_eq!((found.eval_loss, found.epoch), (Some(5.745), Some(2.5)));
    // Announced, it is known from the first state on.
    let name = "transformers-5.16-info.log";
    let found = up_to(name, "0/40 [00:00<?, ?it/s]").unwrap();
    assert_eq!((found.step, found.total_steps), (Some(0), Some(40)));
    let found = of(name);
    assert_eq!((found.step, found.total_steps), (Some(40), Some(40)));
    let history = scan(fs::read(fixture(name)).unwrap()).1;
    let evaluated: Vec<_> = history
        .points()
        .iter()
        .filter_map(|point| Some((point.step?, point.eval_loss?)))
        .collect();
    assert_eq!(
        evaluated.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        [0, 20, 40]
    );
}

#[test]
fn other_bars_are_not_progress() {
    for bar in [
        "Map:  12%|█▏        | 120/1000 [00:01<00:09, 97.51 examples/s]",
        "Generating train split: 64 examples [00:00, 2274.05 examples/s]",
        "model.safetensors:  12%|█▏        | 1.20G/9.98G [00:10<01:13, 119MB/s]",
        "Downloading shards:  50%|█████     | 1/2 [00:30<00:30, 30.12s/it]",
        "Loading checkpoint shards: 100%|██████████| 2/2 [00:00<00:00, 10.44it/s]",
        "Evaluating:  50%|█████     | 4/8 [00:00<00:00, 32.28it/s, loss=0.5]",
        "Validation DataLoader 0:  46%|████      | 73/157 [00:02<00:02, 37.48it/s, loss=0.2]",
        "Sanity Checking DataLoader 0:  50%|█████     | 1/2 [00:06<00:06,  0.16it/s]",
        " 12%|█▏        | 6/50 [00:01<00:09,  4.51it/s]",
        "Epoch 1:  12%|█▏        | 6/50 [00:01<00:09,  4.51it/s]",
        "6it [00:01,  4.51it/s]",
    ] {
        assert_eq!(scan(format!("\r{bar}\n")).0, None, "{bar}");
        // Nor when a training has begun whose own bar has not come.
        if !bar.starts_with(" 12%") {
            assert_eq!(
                scan(format!("Starting training... (x)\n\r{bar}\n")).0,
                None,
                "{bar}"
            );
        }
    }
    for line in [
        "{'learning_rate': 0.001, 'max_steps': 6, 'loss_type': 'nll'}",
        "{'loss': 'nll', 'epoch': 1}",
        "{'loss': 0.5}",
        "The loss is 5 at step 3",
        "{'input_ids': [1, 2, 3], 'labels': [1, 2, 3]}",
    ] {
        assert_eq!(scan(format!("{line}\n")).0, None, "{line}");
    }
}

/// A line about another run or checkpoint than the newest: the words before its figures mark it.
#[test]
fn earlier_results_are_not_progress() {
    let now = "{'loss': 1.5, 'epoch': 0.6, 'step': 600}\n";
    for line in [
        "Best checkpoint so far: step 500, loss 0.42",
        "2026-01-02 10:00:00 INFO Restored best model from step 500 (loss 0.42)",
        "Restoring model from checkpoint-500 (step 500, loss 0.42)",
        "best: {'loss': 0.42, 'step': 500}",
        "[INFO] previous run: {'loss': 0.42, 'learning_rate': 1e-4, 'epoch': 9.0}",
        "last run: {'train_runtime': 10.0, 'train_loss': 0.42, 'epoch': 9.0}",
        "INFO | previous run | step 500 | loss 0.42",
        "New best: loss=0.42 (step 500)",
        "Checkpoint saved at step 500 (loss 0.42)",
        "2026-01-02 10:00:00 INFO Loaded checkpoint: step 500, loss 0.42",
    ] {
        assert_eq!(metrics(format!("{now}{line}\n")), metrics(now), "{line}");
    }
    // What is new, or stands beside the newest, is progress.
    for line in [
        "New best model at step 700: loss 0.4",
        "step 700 | loss 0.4 | best 0.3",
        "Best: 0.3 | step: 700 | loss: 0.4",
        "Best: 0.3, step: 700, loss: 0.4",
        "best=0.3 step=700 loss=0.4",
        "{\"best\": 0.3, \"step\": 700, \"loss\": 0.4}",
        "{'loss': 0.4, 'best_loss': 0.3, 'best': {'loss': 0.3, 'step': 500}, 'step': 700}",
        "/home/ann/best/train.py:88: step 700, loss 0.4",
        "[best-run-3] step 700, loss 0.4",
        "Saved checkpoint at step 700, loss 0.4",
    ] {
        let found = metrics(format!("step 600, loss 1.5\n{line}\n"));
        assert_eq!((found.step, found.loss), (Some(700), Some(0.4)), "{line}");
    }
}

/// An early stop leaves a bar that is not full, and is drawn a last time behind the summary.
#[test]
fn last_bar_of_a_stopped_training_is_no_evaluation() {
    let bar = "\r 60%|██████    | 60/100 [02:00<01:20,  2.00s/it]";
    let loss = "\r     \r{'loss': 1.5, 'learning_rate': 0.1, 'epoch': 0.6, 'step': 60}\n";
    let end = "\r     \r{'train_runtime': 120.0, 'train_loss': 1.1, 'epoch': 0.6}\n";
    let found = scan(format!("{bar}{loss}{bar}{end}{bar}\n"))
        .0
        .unwrap_or_default();
    assert_eq!((found.metrics.step, found.activity), (Some(60), None));
    assert_eq!(found.metrics.seconds_left, None);
    // An evaluation that is as long as the training is over at its end.
    let bar = |done: u64| format!("\r {done}%|█| {done}/100 [02:00<01:20,  2.00s/it]");
    let loss = "\r    \r{'loss': 1.5, 'learning_rate': 0.1, 'epoch': 1.0, 'step': 100}\n";
    let end = "{'train_runtime': 120.0, 'train_loss': 1.1, 'epoch': 1.0}\n";
    let evaluated = [&bar(100), loss, &bar(100), "\n", end, &bar(99)].concat();
    let activity = |log: &str| scan(format!("{log}\n")).0.and_then(|found| found.activity);
    assert!(activity(&evaluated).is_some());
    assert_eq!(activity(&(evaluated + &bar(100))), None);
}

#[test]
fn bar_at_printed_step_is_bound() {
    let step = |step: u64| format!("{{'loss': 1.5, 'epoch': 0.1, 'step': {step}}}\n");
    let bar = |done: u64, total: u64| {
        format!(
            "\r{:3}%|█| {done}/{total} [00:10<01:00,  4.50it/s]",
            done * 100 / total
        )
    };
    let found = metrics(bar(20, 300) + "\r          \r" + &step(20) + &bar(21, 300));
    assert_eq!(
        (found.step, found.total_steps, found.seconds_left),
        (Some(21), Some(300), Some(60.0))
    );
    // It is drawn a little late, but anew right after the loss.
    let found = metrics(bar(18, 300) + "\r          \r" + &step(20) + &bar(20, 300));
    assert_eq!(found.total_steps, Some(300));
    // An outer loop somewhere else is not it.
    let found = metrics(bar(1, 5) + "\r          \r" + &step(20) + &bar(1, 5));
    assert_eq!((found.step, found.total_steps), (Some(20), None));
    // Nor is one that ended before.
    let fetched = "Fetching 1 files: 100%|█| 1/1 [00:10<00:00,  4.50it/s]\n".to_owned();
    let found = metrics(fetched + &bar(1, 200) + "\r          \r" + &step(1) + &bar(1, 200));
    assert_eq!((found.step, found.total_steps), (Some(1), Some(200)));
    // It is full at the last step, and another one is drawn already.
    let other = "x:   0%|  | 0/9 [00:00<?, ?it/s]\n";
    let found = metrics(bar(3, 6) + "\n" + &step(4) + &bar(6, 6) + "\n" + other + &step(6));
    assert_eq!((found.step, found.total_steps), (Some(6), Some(6)));
    // Without printed steps it must have moved between two losses.
    let loss = "{'loss': 1.5, 'learning_rate': 0.1, 'epoch': 0.1}\n";
    let moved = bar(20, 300)
        + "\r     \r"
        + loss
        + &bar(21, 300)
        + &bar(40, 300)
        + "\r    \r"
        + loss
        + &bar(41, 300);
    assert_eq!(metrics(moved).step, Some(41));
    let still = bar(1, 5) + "\r     \r" + loss + &bar(1, 5) + "\r    \r" + loss + &bar(1, 5);
    assert_eq!(metrics(still).step, None);
}

#[test]
fn second_run_in_one_log() {
    let begin =
        |total: u64| format!("Starting training... (x)\n\r  0%|  | 0/{total} [00:00<?, ?it/s]");
    let step = |step: u64, total: u64, loss: f64| {
        let bar = format!("\r 10%|█ | {step}/{total} [00:01<00:09,  1.00it/s]");
        format!("{bar}\r      \r{{'loss': {loss}, 'epoch': 0.1, 'step': {step}}}\n{bar}")
    };
    let first = begin(10) + &step(9, 10, 3.0) + "\n";
    let found = metrics(first.clone() + &begin(500));
    assert_eq!(
        (found.step, found.total_steps, found.loss),
        (Some(0), Some(500), None)
    );
    let lost = scan(begin(10) + &step(9, 10, f64::NAN) + "\n" + &begin(500)).0;
    assert_eq!(lost.unwrap().bad_news, []);
    // Nor has a loss grown that is another training's.
    let loss = |loss: f64| format!("{{'loss': {loss}, 'learning_rate': 0.1}}\n");
    let grown = scan(begin(10) + "\n" + &loss(0.04) + &begin(500) + "\n" + &loss(1.5)).0;
    assert_eq!(grown.unwrap().bad_news, []);
    let found = metrics(first + &begin(500) + &step(1, 500, 2.0));
    assert_eq!(
        (found.step, found.total_steps, found.loss),
        (Some(1), Some(500), Some(2.0))
    );
}

#[test]
fn any_number_of_written_reports_are_not_of_the_trainer() {
    let trainer = (1..=9).map(|step| step_line(step, 2.5));
    let written = (1..=99).map(|form| format!("part{form} step: {form} loss: 0.1\n"));
    let found = metrics(trainer.chain(written).collect::<String>());
    assert_eq!((found.step, found.loss), (Some(9), Some(2.5)));
}

#[test]
fn hostile_lines_are_cheap() {
    for line in [
        "{'a': ".repeat(300_000),
        "{'loss': 1, 'x': [".repeat(100_000),
        "12%|".repeat(300_000),
        "loss iteration 1/ 2 |".repeat(100_000),
        "{\"".repeat(500_000),
        "it [".repeat(300_000),
        format!("{}\n", "12%|█| 1/9 [a, b]").repeat(50_000),
        "{'a': 1,\n".repeat(100_000),
        format!("loss {}\n", "n".repeat(64 * 1024)).repeat(8),
        format!(
            "{{'{}': {{{}",
            "train/".repeat(5_000),
            "'a': 1, ".repeat(4_000)
        ),
    ] {
        let start = std::time::Instant::now();
        scan(format!("{line}\n"));
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{}…: {:?}",
            &line[..20],
            start.elapsed()
        );
    }
    for line in [
        "Training:  12%|█▏        | nan/50 [00:01<00:09,  4.51it/s]",
        "Training:  12%|█▏        | -6/50 [00:01<00:09,  4.51it/s]",
        "Training epoch 0, iteration 18446744073709551615/0 | lr: 3e-05 | reduced_train_loss: 1",
        "Training:  12%|█▏        | 1e300/1e400 [99999999:99:99<00:09,  1e-400it/s]",
    ] {
        scan(format!("{line}\n"));
    }
}

#[test]
fn inference_counts_requests() {
    let log = fs::read(fixture("trainers/vllm.log")).unwrap();
    let (progress, history) = scan(&log);
    let progress = progress.unwrap();
    assert_eq!(
        (progress.metrics.step, progress.metrics.total_steps),
        (Some(5971), Some(9263))
    );
    assert_eq!(
        (
            progress.metrics.tokens_per_second,
            progress.metrics.seconds_left
        ),
        (Some(2683.22), Some(4669.0))
    );
    assert!(!progress.is_training && history.points().is_empty());
    let found =
        metrics("Running loglikelihood requests:  25%|██▌  | 100/400 [00:20<01:00,  5.00it/s]\n");
    assert_eq!((found.step, found.total_steps), (Some(100), Some(400)));
    // With a training, that counts.
    let both = [b"{'loss': 1.5, 'epoch': 0.1, 'step': 7}\n".as_slice(), &log].concat();
    assert_eq!(metrics(both).step, Some(7));
}

#[test]
fn warns_of_nan_loss() {
    let nan = "{'loss': nan, 'grad_norm': nan, 'learning_rate': 0.1, 'epoch': 0.2, 'step': 2}\n";
    let good = "{'loss': 3.0, 'grad_norm': 1.0, 'learning_rate': 0.1, 'epoch': 0.1, 'step': 1}\n";
    let found = metrics(good.to_owned() + nan);
    assert!(found.step == Some(2) && found.loss.unwrap().is_nan());
    assert_eq!(found, metrics(good.to_owned() + nan));
    let news = scan(good.to_owned() + nan).0.unwrap().bad_news;
    assert_eq!(news[0].sentence, "loss is nan since step 2");
    let found = scan(nan.to_owned() + &good.replace("'step': 1", "'step': 3"))
        .0
        .unwrap();
    assert_eq!((found.metrics.loss, found.bad_news), (Some(3.0), vec![]));
    // A gradient of fp16 may overflow, and an evaluation have nothing to count.
    let is_lost = |log: String| scan(log).0.unwrap().bad_news[0].is_lost;
    let overflow = good.replace("'grad_norm': 1.0", "'grad_norm': inf");
    assert!(!is_lost(overflow.clone()));
    let later = |step| overflow.replace("'step': 1", &format!("'step': {step}"));
    assert!(is_lost((1..=10).map(later).collect()));
    assert!(is_lost(overflow.replace("3.0", "0.0")));
    let rewarded = overflow
        .replace("3.0", "0.0")
        .replace("'epoch'", "'reward': 0.5, 'epoch'");
    assert!(!is_lost(rewarded));
    assert!(!is_lost("{'eval_loss': nan, 'epoch': 0.1}\n".to_owned()));
    assert!(!is_lost(
        good.to_owned() + "{'eval_loss': nan, 'epoch': 0.1}\n"
    ));
    // The history has it too.
    let history = scan(good.to_owned() + nan).1;
    let losses: Vec<_> = history
        .points()
        .iter()
        .map(|point| (point.step, point.loss.filter(|loss| !loss.is_nan())))
        .collect();
    assert_eq!(losses, [(Some(1), Some(3.0)), (Some(2), None)]);
}

#[test]
fn skips_prefixes() {
    let bar = "\x1b[36m(train, pid=2548)\x1b[0m Training:  12%|█▏        | 6/50 [00:01<00:09,  4.51it/s]\n";
    assert_eq!(metrics(bar).step, Some(6));
    let found = metrics(
        "\x1b[36m(head, rank=0, pid=2548)\x1b[0m {'loss': 1.5, 'epoch': 0.1, 'step': 7}\n[rank0]: {'loss': 1.4, 'epoch': 0.1, 'step': 8}\n",
    );
    assert_eq!((found.step, found.loss), (Some(8), Some(1.4)));
    // Without the time the second state of the bar is one of the same bar.
    for time in ["01-02T10:00:0", "01-02 10:00:0", "01-02T10:00:00.5-00:0"] {
        for (before, after) in [("2026-", " "), ("[2026-", "] "), ("[rank0]: 2026-", " ")] {
            let bar = |step| {
                format!(
                    "{before}{time}{step}{after} {step}0%|█ | {step}/9 [00:01<00:09,  4.51it/s]\n"
                )
            };
            let log = format!("max_steps: 9\n{}{}", bar(5), bar(6));
            assert_eq!(metrics(&log).step, Some(6), "{log}");
        }
    }
}

#[test]
fn pieces_make_no_difference() {
    for name in [
        "oumi-0.9-trl-sft-eval.log",
        "oumi-0.9-oumi-trainer.log",
        "oumi-0.9-slurm-wrapped.out",
        "transformers-5.16-info.log",
        "trainers/megatron.log",
    ] {
        let log = fs::read(fixture(name)).unwrap();
        let (whole, points) = scan(&log);
        for size in [1, 7, 100, 4096] {
            let mut scanner = Scanner::default();
            log.chunks(size).for_each(|piece| scanner.push(piece));
            let training = scanner.ahead();
            let (progress, history) = (training.progress(SystemTime::now()), &training.history);
            let figures = progress.map(|progress| progress.metrics);
            assert_eq!(
                figures,
                whole.clone().map(|progress| progress.metrics),
                "{name} in pieces of {size}"
            );
            assert_eq!(history, &points, "{name} in pieces of {size}");
        }
    }
}

#[test]
fn no_panic_on_any_bytes() {
    let alphabet: &[&[u8]] = &[
        b"{'",
        b"'loss': ",
        b"1.5",
        b", ",
        b"'step': 3",
        b"}",
        b"\n",
        b"\r",
        b" 12%|",
        b"| 6/50 [",
        b"00:01<00:09, ",
        b"4.5it/s",
        b"]",
        b"\xff",
        b"nan",
        b"'",
        b"\\",
        b"[",
        b"Epoch 1:",
        b"\x1b[A",
        b"iteration 3/ 0 |",
        b"loss:",
        b"step:1 - a:",
    ];
    let mut state = 7_u64;
    for _ in 0..3_000 {
        let mut log = Vec::new();
        for _ in 0..60 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            log.extend(alphabet[(state >> 33) as usize % alphabet.len()]);
        }
        scan(&log);
    }
}

#[test]
fn large_log_without_loss() {
    let mut file = BufWriter::new(tempfile::NamedTempFile::new().unwrap());
    writeln!(file, "Starting training... (TrainerType.TRL_SFT)\n").unwrap();
    write!(file, "\r  0%|          | 0/900000 [00:00<?, ?it/s]").unwrap();
    for n in 1..120_000 {
        write!(
            file,
            "\r {:3}%|█         | {n}/900000 [1:00:00<8:00:00,  2.50it/s]",
            n / 9000
        )
        .unwrap();
    }
    let file = file.into_inner().unwrap();
    assert!(fs::metadata(file.path()).unwrap().len() > 6_000_000);
    // No loss was printed yet, and the line that says what the bar is stands far from the end.
    let (progress, history) = read_log(file.path()).unwrap();
    let progress = progress.unwrap();
    assert_eq!(
        (progress.metrics.step, progress.metrics.total_steps),
        (Some(119_999), Some(900_000))
    );
    assert_eq!(
        (progress.metrics.seconds_left, history.points().is_empty()),
        (Some(28_800.0), true)
    );
}

#[test]
fn torchtune_bar() {
    let found = metrics("\r2|60|Loss: 1.25:  20%|██        | 10/50 [00:24<01:36,  2.40s/it]");
    assert_eq!(
        (
            found.step,
            found.loss,
            found.total_steps,
            found.seconds_left
        ),
        (Some(60), Some(1.25), None, None)
    );
    assert!(is_close(found.epoch, 1.2));
}

#[test]
fn figures_have_no_padding() {
    for (value, text) in [
        (1e-4, "1e-4"),
        (1.25e-5, "1.25e-5"),
        (2.0 / 3e8, "6.667e-9"),
        (3e7, "3e7"),
        (0.5, "0.5"),
    ] {
        assert_eq!(crate::text::short_number(value), text);
    }
}

/// As Transformers prints it where Oumi's `include_performance_metrics` has it count tokens.
#[test]
fn step_with_the_time_since_the_start_is_no_summary() {
    let step = |step: u64, loss: f64| {
        format!(
            "{{'loss': '{loss}', 'grad_norm': '1.7', 'learning_rate': '5e-05', 'epoch': '0.6', 'num_input_tokens_seen': 564, \
             'train_runtime': '2.041', 'train_tokens_per_second': '276.4', 'step': {step}}}\n"
        )
    };
    let end = "{'train_runtime': '3.892', 'train_loss': '5.55', 'epoch': '1.25', 'num_input_tokens_seen': 1124, 'step': 20}\n";
    let found = metrics(step(10, 5.7) + &step(20, 5.4) + end);
    assert_eq!((found.step, found.loss), (Some(20), Some(5.4)));
}
