//! Launches that are looked at before they start: obstacles, collisions, names, sizes.

use std::fs;

use crate::launcher::{JobState, LaunchOptions};
use crate::service::answers::RunAnswer;
use crate::service::requests::RunRequest;
use crate::settings::policy::Policy;

use super::test_service::{TestService, test_service_with};

fn here() -> TestService {
    test_service_with(&[&["local"], &["gcp"]], Policy::default())
}

impl TestService {
    fn dry(&self, job_name: &str, cloud: &str) -> RunRequest {
        RunRequest {
            dry_run: true,
            ..self.request(job_name, cloud)
        }
    }

    /// Runs a job with this config, which stands in place of the usual one.
    async fn run_config(&self, config: &str, request: RunRequest) -> RunAnswer {
        fs::write(self.home.path().join("other.yaml"), config).unwrap();
        let request = RunRequest {
            config_path: "other.yaml".to_owned(),
            ..request
        };
        self.service.run(request).await
    }
}

#[track_caller]
fn assert_refused(answer: &RunAnswer, words: &[&str]) {
    let error = answer.error.as_deref().unwrap_or_default();
    assert!(!answer.success && answer.plan_id.is_empty(), "{answer:?}");
    for word in words {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_of_what_cannot_be_launched_fails() {
    let test = here();
    let answer = test
        .run_config("a: 1\nb: 2\n", test.dry("job", "local"))
        .await;
    assert_refused(
        &answer,
        &["other.yaml", "none of the keys", "correct the file"],
    );
    test.run("busy", "local").await;
    let answer = test.service.run(test.dry("busy", "local")).await;
    assert_refused(&answer, &["already a job \"busy\"", "another job_name"]);
    fs::remove_dir_all(test.folder.root()).unwrap();
    fs::write(test.folder.root(), "").unwrap();
    let answer = test.service.run(test.dry("job", "local")).await;
    assert_refused(&answer, &["cannot use the data folder"]);
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_only_the_config_names_is_asked_about() {
    let test = here();
    for (resources, cloud) in [("{cloud: gcp}", "gcp"), ("{infra: gcp/us-west1}", "gcp")] {
        let config = format!("resources: {resources}\nrun: x\n");
        for dry_run in [true, false] {
            let request = RunRequest {
                dry_run,
                ..test.request("job", "")
            };
            let answer = test.run_config(&config, request).await;
            assert_refused(&answer, &[&format!("cloud=\"{cloud}\""), "cloud=\"local\""]);
        }
        let answer = test.run_config(&config, test.dry("job", "local")).await;
        assert!(answer.success, "{answer:?}");
    }
    let answer = test.run_config("run: x\n", test.dry("job", "")).await;
    assert!(answer.success, "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn an_output_folder_in_use_is_refused() {
    let test = here();
    // The job has not made the folder yet.
    fs::create_dir(test.home.path().join("sub")).unwrap();
    std::os::unix::fs::symlink(".", test.home.path().join("link")).unwrap();
    test.run("first", "local").await;
    for dry_run in [true, false] {
        for output_dir in ["out", "./out/", "link/out", "sub/../out"] {
            let config = format!("training: {{output_dir: {output_dir}}}\n");
            let request = |allow_shared_output| RunRequest {
                dry_run,
                job_name: None,
                allow_shared_output,
                ..test.request("", "local")
            };
            let answer = test.run_config(&config, request(false)).await;
            assert_refused(
                &answer,
                &["job first writes to", "allow_shared_output=true"],
            );
            assert_eq!(answer.status, "blocked");
            if dry_run {
                let answer = test.run_config(&config, request(true)).await;
                assert!(answer.success, "{answer:?}");
                assert!(
                    answer.message.contains("job first writes to"),
                    "{}",
                    answer.message
                );
            }
        }
    }
    // Another folder is fine, and so is this one once the job is over.
    let answer = test
        .run_config("output_dir: other\n", test.dry("second", "local"))
        .await;
    assert!(
        answer.success && answer.message.contains("already use the GPUs"),
        "{answer:?}"
    );
    assert!(answer.message.contains("1 (first)"), "{}", answer.message);
    test.cloud.finish("first");
    let answer = test.service.run(test.dry("second", "local")).await;
    assert!(answer.success && answer.warnings.is_empty(), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_of_an_earlier_run_are_a_warning() {
    let test = here();
    for name in ["checkpoint-9", "checkpoint-10", "checkpoint-x", "runs"] {
        fs::create_dir_all(test.home.path().join("out").join(name)).unwrap();
    }
    let answer = test.service.run(test.dry("job", "local")).await;
    assert!(
        answer.warnings[0].contains("holds checkpoint-10 of an earlier run"),
        "{answer:?}"
    );
    assert!(
        answer.message.contains(&answer.warnings[0]),
        "{}",
        answer.message
    );
    let config = "training: {output_dir: out, try_resume_from_last_checkpoint: true}\n";
    let answer = test.run_config(config, test.dry("job", "local")).await;
    let cut = "was not written whole: delete it";
    assert!(answer.warnings[0].contains(cut), "{answer:?}");
    let state = test
        .home
        .path()
        .join("out/checkpoint-10/trainer_state.json");
    fs::write(state, "{}").unwrap();
    let answer = test.run_config(config, test.dry("job", "local")).await;
    assert!(answer.warnings[0].contains("resumes from it"), "{answer:?}");
    // On a cloud the folder is another.
    let answer = test.service.run(test.dry("job", "gcp")).await;
    assert_eq!(answer.warnings, [""; 0]);
    // Oumi saves the model in a folder of that name, and Transformers the checkpoints in the home folder.
    let config = "training: {output_dir: ~/out}\n";
    let answer = test.run_config(config, test.dry("job", "local")).await;
    assert!(answer.message.contains("/~/out\n"), "{answer:?}");
    assert!(answer.warnings[0].contains("a folder named `~`"));
}

/// As none of Oumi's own recipes has one.
#[tokio::test(start_paused = true)]
async fn inference_without_an_input_is_a_warning() {
    let test = here();
    // Its name is taken, so each of the others is planned anew.
    assert!(test.run("job", "gcp").await.success);
    test.cloud.finish("job");
    for (input, is_warned) in [
        ("", true),
        ("input_path: ''", true),
        ("input_path: a", false),
    ] {
        let request = RunRequest {
            command: "infer".to_owned(),
            ..test.dry("job", "gcp")
        };
        let config = format!("model: {{model_name: tiny}}\n{input}\n");
        let answer = test.run_config(&config, request).await;
        let warned = answer.warnings.iter();
        let warned = warned.filter(|it| it.contains("infers nothing")).count();
        assert_eq!(warned, usize::from(is_warned), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_free_again_once_its_job_is_over() {
    let test = here();
    for cloud in ["local", "gcp"] {
        let name = format!("job-{cloud}");
        let first = test.run(&name, cloud).await;
        assert!(first.success, "{first:?}");
        let refused = test.run(&name, cloud).await;
        assert_refused(&refused, &["already a job"]);
        let other_case = test.run(&name.to_uppercase(), cloud).await;
        assert_refused(&other_case, &["already a job"]);
        test.cloud.finish(&name);
        let preview = test.service.run(test.dry(&name, cloud)).await;
        assert_eq!(preview.job_id, format!("{name}-2"));
        let request = RunRequest {
            plan_id: preview.plan_id,
            allow_shared_output: true,
            ..test.request(&name, cloud)
        };
        let second = test.service.run(request).await;
        assert_eq!(second.job_id, preview.job_id, "{second:?}");
        assert!(
            second
                .warnings
                .iter()
                .any(|warning| warning.contains(&second.job_id))
        );
        assert_refused(&test.run(&name, cloud).await, &["already a job"]);
        test.cloud.finish(&second.job_id);
        assert_eq!(test.run(&name, cloud).await.job_id, format!("{name}-3"));
        test.cloud.finish(&format!("{name}-3"));
    }
    assert_eq!(
        test.service
            .poll(super::fake_launcher::by_id("job-gcp"))
            .await
            .state,
        JobState::Succeeded
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_config_has_a_small_answer() {
    let test = here();
    let large = "x".repeat(800_000);
    for config in [
        format!("run: echo\n{large}: 1\n"),
        format!("model: {{model_name: {large}}}\n"),
        format!("training: {{output_dir: {large}}}\n"),
        format!("{large}: 1\n"),
        format!("resources: {{cloud: {large}}}\nrun: x\n"),
    ] {
        for cloud in ["local", "gcp", ""] {
            let answer = test.run_config(&config, test.dry("job", cloud)).await;
            let size = serde_json::to_vec(&answer).unwrap().len();
            assert!(size < 40_000, "{size}: {}", &config[..30]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_variable_that_no_program_can_be_given_is_refused() {
    let test = here();
    let largest = 128 * 1024 - "BIG=".len() - 1;
    for (cloud, dry_run) in [("local", true), ("gcp", true), ("local", false)] {
        let request = |size: usize| RunRequest {
            dry_run,
            options: LaunchOptions {
                envs: [("BIG".to_owned(), "x".repeat(size))].into(),
                ..LaunchOptions::default()
            },
            ..test.request("job", cloud)
        };
        let answer = test.service.run(request(largest + 1)).await;
        assert_refused(&answer, &["BIG", "131072 bytes", "put it into a file"]);
        let answer = test.service.run(request(largest)).await;
        assert!(answer.success, "{answer:?}");
    }
    for (envs, words) in [
        (
            format!("{{BIG: {}}}", "x".repeat(largest + 1)),
            "put it into a file",
        ),
        ("{A=B: c}".to_owned(), "\"A=B\""),
        ("[A=b]".to_owned(), "write it as `NAME: value`"),
    ] {
        for cloud in ["local", "gcp"] {
            let config = format!("run: x\nenvs: {envs}\n");
            let answer = test.run_config(&config, test.dry("job", cloud)).await;
            assert_refused(&answer, &["`envs`", words]);
        }
    }
}
