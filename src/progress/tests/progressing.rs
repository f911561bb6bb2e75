//! How far a run is, from its log.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::progress::figures::Figures;
use crate::progress::history::History;
use crate::progress::tqdm::Bar;
use crate::progress::{Progress, Scanner, read_log};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/logs")
        .join(name)
}

pub fn scan(log: impl AsRef<[u8]>) -> (Option<Progress>, History) {
    let mut scanner = Scanner::default();
    scanner.push(log.as_ref());
    (scanner.progress(SystemTime::now()), scanner.into_history())
}

fn figures(log: impl AsRef<[u8]>) -> Figures {
    scan(log).0.expect("progress").figures
}

fn of(name: &str) -> Figures {
    figures(fs::read(fixture(name)).unwrap())
}

/// The figures of a log up to `part` of it.
fn up_to(name: &str, end: &str) -> Option<Figures> {
    let log = fs::read(fixture(name)).unwrap();
    let at =
        memchr::memmem::find(&log, end.as_bytes()).unwrap_or_else(|| panic!("{end} in {name}"));
    scan(&log[..at + end.len()])
        .0
        .map(|progress| progress.figures)
}

pub fn close(one: Option<f64>, other: f64) -> bool {
    one.is_some_and(|one| (one - other).abs() <= other.abs() * 1e-9)
}

#[test]
fn an_oumi_run_tells_its_step_total_loss_and_time_left() {
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
        (Some(12.84), Some(3.21), Some(0.0))
    );
}

#[test]
fn nothing_is_told_before_the_training_begins() {
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
fn the_numbers_may_be_numbers_or_text() {
    let new = figures(
        "{'loss': '5.943', 'grad_norm': '2.038', 'learning_rate': '0.0008333', 'epoch': '0.125', 'step': 2}\n",
    );
    let old = figures(
        "{'loss': 5.943, 'grad_norm': 2.038, 'learning_rate': 0.0008333, 'epoch': 0.125, 'step': 2}\n",
    );
    let numpy = figures(
        "{'loss': np.float64(5.943), 'grad_norm': tensor(2.038, device='cuda:0'), 'learning_rate': 0.0008333, 'epoch': 0.125, 'step': 2}\n",
    );
    assert_eq!((&new, new.step, new.loss), (&old, Some(2), Some(5.943)));
    assert_eq!(new, numpy);
    let json = figures("{\"loss\": 5.943, \"epoch\": 0.125, \"step\": 2}\n");
    assert_eq!((json.step, json.loss), (Some(2), Some(5.943)));
}

#[test]
fn oumis_own_trainer_prints_its_metrics_over_several_lines() {
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
fn lines_that_were_wrapped_on_their_way_are_put_together() {
    let found = of("oumi-0.9-slurm-wrapped.out");
    assert_eq!(
        (found.step, found.total_steps, found.loss),
        (Some(6), Some(6), Some(5.737))
    );
    assert_eq!(
        (found.samples_per_second, found.epoch),
        (Some(4.31), Some(0.375))
    );
    let history = scan(fs::read(fixture("oumi-0.9-slurm-wrapped.out")).unwrap()).1;
    assert_eq!(history.points().len(), 6);
}

#[test]
fn a_trainer_that_does_not_print_steps_is_followed_by_its_bar() {
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
fn an_evaluation_alone_has_a_loss_and_no_steps() {
    let found = of("transformers-5.16-evaluate.log");
    assert_eq!(
        (found.eval_loss, found.step, found.total_steps),
        (Some(6.001410484313965), None, None)
    );
    let found = of("transformers-5.16-no-tqdm.log");
    assert_eq!(
        (found.loss, found.eval_loss, found.step),
        (Some(5.767), Some(5.745), None)
    );
}

#[test]
fn bars_of_other_things_are_not_progress() {
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

#[test]
fn an_unlabelled_bar_is_the_trainings_when_it_stands_at_the_printed_step() {
    let step = |step: u64| format!("{{'loss': 1.5, 'epoch': 0.1, 'step': {step}}}\n");
    let bar = |done: u64, total: u64| {
        format!(
            "\r{:3}%|█| {done}/{total} [00:10<01:00,  4.50it/s]",
            done * 100 / total
        )
    };
    let found = figures(bar(20, 300) + "\r          \r" + &step(20) + &bar(21, 300));
    assert_eq!(
        (found.step, found.total_steps, found.seconds_left),
        (Some(21), Some(300), Some(60.0))
    );
    // It is drawn a little late, but anew right after the loss.
    let found = figures(bar(18, 300) + "\r          \r" + &step(20) + &bar(20, 300));
    assert_eq!(found.total_steps, Some(300));
    // An outer loop somewhere else is not it.
    let found = figures(bar(1, 5) + "\r          \r" + &step(20) + &bar(1, 5));
    assert_eq!((found.step, found.total_steps), (Some(20), None));
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
    assert_eq!(figures(moved).step, Some(41));
    let still = bar(1, 5) + "\r     \r" + loss + &bar(1, 5) + "\r    \r" + loss + &bar(1, 5);
    assert_eq!(figures(still).step, None);
}

#[test]
fn a_run_that_begins_again_in_the_same_log_has_its_own_figures() {
    let begin =
        |total: u64| format!("Starting training... (x)\n\r  0%|  | 0/{total} [00:00<?, ?it/s]");
    let step = |step: u64, total: u64, loss: f64| {
        let bar = format!("\r 10%|█ | {step}/{total} [00:01<00:09,  1.00it/s]");
        format!("{bar}\r      \r{{'loss': {loss}, 'epoch': 0.1, 'step': {step}}}\n{bar}")
    };
    let first = begin(10) + &step(9, 10, 3.0) + "\n";
    let found = figures(first.clone() + &begin(500));
    assert_eq!(
        (found.step, found.total_steps, found.loss),
        (Some(0), Some(500), None)
    );
    let found = figures(first + &begin(500) + &step(1, 500, 2.0));
    assert_eq!(
        (found.step, found.total_steps, found.loss),
        (Some(1), Some(500), Some(2.0))
    );
}

#[test]
fn hostile_lines_cost_no_more_than_their_length() {
    for line in [
        "{'a': ".repeat(300_000),
        "{'loss': 1, 'x': [".repeat(100_000),
        "12%|".repeat(300_000),
        "loss iteration 1/ 2 |".repeat(100_000),
        "{\"".repeat(500_000),
        "it [".repeat(300_000),
        format!("{}\n", "12%|█| 1/9 [a, b]").repeat(50_000),
        "{'a': 1,\n".repeat(100_000),
    ] {
        let start = std::time::Instant::now();
        scan(&line);
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
        scan(line);
    }
}

#[test]
fn the_formats_of_other_trainers_are_read() {
    let found = of("trainers/megatron.log");
    assert_eq!(
        (found.step, found.total_steps, found.loss),
        (Some(124), Some(250_000), Some(2.559583))
    );
    assert_eq!(
        (found.learning_rate, found.grad_norm),
        (Some(9.3e-6), Some(0.242))
    );
    assert!(close(found.steps_per_second, 1000.0 / 89474.8));
    assert!(close(found.seconds_left, (250_000.0 - 124.0) * 89.4748));

    let found = of("trainers/gpt-neox.log");
    assert_eq!(
        (found.step, found.total_steps, found.loss),
        (Some(35), Some(10_000), Some(11.18665))
    );
    assert_eq!(
        (found.samples_per_second, found.learning_rate),
        (Some(7.799), Some(2.1731931451279077e-6))
    );

    let found = of("trainers/deepspeed.log");
    assert_eq!(
        (found.step, found.loss, found.samples_per_second),
        (Some(4500), None, Some(16.807402094161112))
    );

    let found = of("trainers/torchtune.log");
    assert_eq!(
        (found.step, found.loss, found.learning_rate),
        (Some(3), Some(1.1732845306396484), Some(2e-5))
    );
    assert_eq!(
        (found.tokens_per_second, found.tokens_per_second_per_gpu),
        (None, Some(655.9372371931469))
    );

    let found = of("trainers/torchtitan.log");
    assert_eq!(
        (found.step, found.loss, found.grad_norm),
        (Some(15), Some(3.1068), Some(0.8587))
    );
    assert_eq!(found.tokens_per_second_per_gpu, Some(7334.0));

    let found = of("trainers/nemo.log");
    assert_eq!(
        (found.step, found.loss, found.eval_loss),
        (Some(121), Some(1.288), Some(4.106))
    );
    assert!(close(found.epoch, 122.0 / 149.0) && close(found.steps_per_second, 1.0 / 0.03163));

    let found = of("trainers/nemo-1.log");
    assert_eq!(
        (
            found.step,
            found.loss,
            found.total_steps,
            found.seconds_left
        ),
        (Some(794), Some(3.09), None, None)
    );
    assert!(close(found.epoch, 795.0 / 77225.0));

    let found = of("trainers/verl.log");
    assert_eq!(
        (found.step, found.epoch, found.loss, found.grad_norm),
        (Some(83), Some(2.0), Some(0.01), Some(0.006))
    );
    // verl prints three decimals: that is no learning rate.
    assert_eq!((found.learning_rate, found.total_steps), (None, None));
    let found = of("trainers/verl-nan.log");
    assert_eq!(
        (found.grad_norm, found.warning.as_deref()),
        (None, Some("actor/grad_norm is nan"))
    );

    let found = of("trainers/lightning.log");
    assert_eq!(
        (
            found.loss,
            found.step,
            found.total_steps,
            found.steps_per_second
        ),
        (Some(0.223), None, None, Some(27.71))
    );
    assert!(close(found.epoch, 933.0 / 1016.0));

    let found = of("trainers/liger.log");
    assert_eq!(
        (found.loss, found.epoch, found.tokens_per_second),
        (Some(74.5029), Some(1.5), Some(18835.9))
    );

    let found = of("trainers/axolotl.log");
    assert_eq!(
        (found.loss, found.epoch, found.step),
        (Some(1.0226), Some(0.89), None)
    );

    let found = of("trainers/nanogpt.log");
    assert_eq!(
        (found.step, found.eval_loss, found.loss),
        (Some(3010), Some(4.0427), None)
    );
    assert_eq!(found.warning.as_deref(), Some("loss is nan"));
}

#[test]
fn inference_tells_its_requests_where_there_is_no_training() {
    let log = fs::read(fixture("trainers/vllm.log")).unwrap();
    let (progress, history) = scan(&log);
    let progress = progress.unwrap();
    assert_eq!(
        (progress.figures.step, progress.figures.total_steps),
        (Some(5971), Some(9263))
    );
    assert_eq!(
        (
            progress.figures.tokens_per_second,
            progress.figures.seconds_left
        ),
        (Some(2683.22), Some(4669.0))
    );
    assert!(progress.source.contains("requests") && history.is_empty());
    let found =
        figures("Running loglikelihood requests:  25%|██▌  | 100/400 [00:20<01:00,  5.00it/s]\n");
    assert_eq!((found.step, found.total_steps), (Some(100), Some(400)));
    // With a training, that counts.
    let both = [b"{'loss': 1.5, 'epoch': 0.1, 'step': 7}\n".as_slice(), &log].concat();
    assert_eq!(figures(both).step, Some(7));
}

#[test]
fn a_loss_that_is_no_number_is_said_until_there_is_one_again() {
    let nan = "{'loss': nan, 'grad_norm': nan, 'learning_rate': 0.1, 'epoch': 0.2, 'step': 2}\n";
    let good = "{'loss': 3.0, 'grad_norm': 1.0, 'learning_rate': 0.1, 'epoch': 0.1, 'step': 1}\n";
    let found = figures(good.to_owned() + nan);
    assert_eq!((found.step, found.loss), (Some(2), None));
    assert!(found.warning.unwrap().ends_with("is nan"));
    let found = figures(nan.to_owned() + &good.replace("'step': 1", "'step': 3"));
    assert_eq!((found.loss, found.warning), (Some(3.0), None));
    // In the history it is a gap.
    let points = scan(good.to_owned() + nan).1.points();
    let told: Vec<_> = points
        .iter()
        .map(|point| (point.step, point.loss, point.bad_loss))
        .collect();
    assert_eq!(told, [(Some(1), Some(3.0), false), (Some(2), None, true)]);
}

#[test]
fn prefixes_of_skypilot_and_torchrun_are_seen_through() {
    let bar = "\x1b[36m(train, pid=2548)\x1b[0m Training:  12%|█▏        | 6/50 [00:01<00:09,  4.51it/s]\n";
    assert_eq!(figures(bar).step, Some(6));
    let found = figures(
        "\x1b[36m(head, rank=0, pid=2548)\x1b[0m {'loss': 1.5, 'epoch': 0.1, 'step': 7}\n[rank0]: {'loss': 1.4, 'epoch': 0.1, 'step': 8}\n",
    );
    assert_eq!((found.step, found.loss), (Some(8), Some(1.4)));
}

#[test]
fn the_pieces_a_log_comes_in_make_no_difference() {
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
            let figures = scanner
                .progress(SystemTime::now())
                .map(|progress| progress.figures);
            assert_eq!(
                figures,
                whole.clone().map(|progress| progress.figures),
                "{name} in pieces of {size}"
            );
            assert_eq!(scanner.history(), &points, "{name} in pieces of {size}");
        }
    }
}

#[test]
fn any_bytes_are_no_panic() {
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
fn a_log_of_any_size_is_read_at_its_beginning_and_end() {
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
    let (progress, history) = read_log(file.path()).unwrap().unwrap();
    assert_eq!(
        (progress.figures.step, progress.figures.total_steps),
        (Some(119_999), Some(900_000))
    );
    assert_eq!(
        (progress.figures.seconds_left, history.is_empty()),
        (Some(28_800.0), true)
    );
}

#[test]
fn the_age_is_that_of_the_newest_figure_not_of_the_log() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let line = |time: &str, text: &str| {
        format!(
            "[2026-11-24 {time},305][oumi][rank0][pid:1][MainThread][INFO]][train.py:1] {text}\n"
        )
    };
    file.write_all(line("10:00:00", "Starting training...").as_bytes())
        .unwrap();
    file.write_all(b"{'loss': 1.5, 'epoch': 0.1, 'step': 7}\n")
        .unwrap();
    file.flush().unwrap();
    let written = SystemTime::now() - Duration::from_secs(1000);
    file.as_file().set_modified(written).unwrap();
    let age = |path: &Path| {
        let (progress, _) = read_log(path).unwrap().unwrap();
        progress
            .age(written + Duration::from_secs(100))
            .unwrap()
            .as_secs()
    };
    assert!((99..=101).contains(&age(file.path())));
    // Half an hour of other text later.
    file.write_all(line("10:00:02", "Saving the checkpoint.").as_bytes())
        .unwrap();
    file.write_all(line("10:30:02", "Still saving.").as_bytes())
        .unwrap();
    file.flush().unwrap();
    file.as_file().set_modified(written).unwrap();
    assert!((1899..=1901).contains(&age(file.path())));
}

#[test]
fn bars_of_tqdm_are_read_in_all_their_forms() {
    let bar =
        Bar::parse("Training:  12%|█▏        | 6/50 [00:01<00:09,  4.51it/s, loss=0.12, lr=1e-5]")
            .unwrap();
    assert_eq!(
        (bar.label, bar.done, bar.total, bar.unit),
        ("Training", 6.0, Some(50.0), "it")
    );
    assert_eq!((bar.seconds_left, bar.per_second), (Some(9.0), Some(4.51)));
    assert_eq!(
        bar.metrics().collect::<Vec<_>>(),
        [("loss", "0.12"), ("lr", "1e-5")]
    );
    let slow = Bar::parse("  2%|▎         | 1/40 [26:01:05<1000:00:48,  5.00s/it]").unwrap();
    assert_eq!(
        (slow.label, slow.seconds_left, slow.per_second),
        ("", Some(3_600_048.0), Some(0.2))
    );
    let start = Bar::parse("  0%|          | 0/6 [00:00<?, ?it/s]").unwrap();
    assert_eq!(
        (start.done, start.seconds_left, start.per_second),
        (0.0, None, None)
    );
    let ascii = Bar::parse(" 50%|#####     | 3.0/6.0 [00:01<00:01,  2.00it/s]").unwrap();
    assert_eq!((ascii.done, ascii.total), (3.0, Some(6.0)));
    let endless = Bar::parse("Steps: 6it [00:01,  4.51it/s]").unwrap();
    assert_eq!(
        (endless.label, endless.done, endless.total),
        ("Steps", 6.0, None)
    );
    let tune =
        Bar::parse("1|25|Loss: 1.63: 100%|██████████| 25/25 [01:00<00:00,  2.40s/it]").unwrap();
    assert_eq!(tune.label, "1|25|Loss: 1.63");
    for none in [
        "",
        "50%",
        "50%|",
        "100%|x| 5/5",
        "100%|x| 5/5 [",
        "5%|x| a/b [c<d, e]",
        "it [",
        "100% | done [x]",
    ] {
        assert_eq!(Bar::parse(none), None, "{none}");
    }
}

#[test]
fn a_bar_of_torchtune_tells_step_and_loss() {
    let found = figures("\r2|60|Loss: 1.25:  20%|██        | 10/50 [00:24<01:36,  2.40s/it]");
    assert_eq!(
        (
            found.step,
            found.loss,
            found.total_steps,
            found.seconds_left
        ),
        (Some(60), Some(1.25), None, None)
    );
    assert!(close(found.epoch, 1.2));
}
