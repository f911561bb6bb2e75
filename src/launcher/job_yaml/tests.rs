use std::process::Command;

use super::*;
use crate::launcher::{JobIdentity, LaunchOptions};
use crate::process::tests::executable;
use crate::settings::config::{Config, OumiCommand};

const HOSTILE_VALUES: &[&str] = &[
    "plain",
    "two words",
    "it's \"quoted\"",
    "$HOME ${HOME} \\${HOME} \\\\${x} $${y}",
    "line one\nline two\n",
    "tab\tand trailing space ",
    "yes",
    "1e3",
    "null",
    "- # : {} [] & * ! | > % @ `",
    "schlüssel 鍵 🔑",
    "\u{7f}\u{85}\u{2028}\u{feff}",
    "",
];

fn spec(folder: &Path, config_path: &str, config: &str, cloud: &str) -> LaunchSpec {
    let path = folder.join(config_path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, config).unwrap();
    LaunchSpec {
        identity: JobIdentity {
            job_id: "job-1".into(),
            cloud: cloud.into(),
            ..JobIdentity::default()
        },
        command: OumiCommand::parse("train").unwrap(),
        config: Config::read(path.to_str().unwrap(), folder).unwrap(),
        client_cwd: folder.to_owned(),
        options: LaunchOptions::default(),
    }
}

fn run_script(config: &JobConfig) -> &str {
    config.document["run"].as_str().unwrap()
}

#[test]
fn spot_is_read_in_every_form() {
    for value in [
        json!(true),
        json!(1),
        json!(1.0),
        json!("true"),
        json!("1"),
        json!("Yes"),
        json!("on"),
        json!("Y"),
    ] {
        assert!(is_on(&value), "{value}");
    }
    for value in [
        json!(false),
        json!(0),
        json!("false"),
        json!("no"),
        json!(""),
        json!(null),
        json!([]),
    ] {
        assert!(!is_on(&value), "{value}");
    }
}

#[test]
fn job_configs_are_merged_with_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let text = "resources: {cloud: aws, cpus: 4}\nworking_dir: sub\nenvs: {A: '1', B: '2'}\nsecrets: {C: pass}\nrun: echo\nnew_key: kept\n";
    let mut spec = spec(folder.path(), "job.yaml", text, "gcp");
    spec.options.envs.insert("B".into(), "mine".into());
    spec.options.accelerators = Some("A100:8".into());
    let config = JobConfig::new(&spec, false);
    assert_eq!(config.document["name"], "job-1");
    assert_eq!(
        config.document["resources"],
        json!({"cloud": "gcp", "cpus": 4, "accelerators": "A100:8"})
    );
    assert_eq!(
        config.document["working_dir"],
        folder.path().join("sub").to_str().unwrap()
    );
    assert_eq!(config.document["envs"], json!({"A": "1", "B": "mine"}));
    assert_eq!(config.document["new_key"], "kept");
    assert!(
        config.warnings[0].contains("`aws`") && config.warnings[0].contains("`gcp`"),
        "{:?}",
        config.warnings
    );
    assert_eq!(config.redacted()["envs"], json!({"A": "***", "B": "***"}));
    assert_eq!(config.redacted()["secrets"], json!({"C": "***"}));
    assert_eq!(config.document["secrets"], json!({"C": "pass"}));
}

#[test]
fn yaml_reads_back_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec(folder.path(), "job.yaml", "run: echo\n", "gcp");
    for (at, value) in HOSTILE_VALUES.iter().enumerate() {
        spec.options
            .envs
            .insert(format!("V{at}"), (*value).to_owned());
    }
    let yaml = JobConfig::new(&spec, false).to_yaml().unwrap();
    assert!(!yaml.contains("${"), "Oumi would put a backslash into it");
    let read: Map<String, Value> = serde_saphyr::from_str(&yaml).unwrap();
    for (at, value) in HOSTILE_VALUES.iter().enumerate() {
        let read = read["envs"][format!("V{at}")].as_str().unwrap();
        assert_eq!(omegaconf_reads(read), *value);
    }
}

/// Reads a text as OmegaConf 2.3 does: n backslashes before `${` are n / 2, the last of an odd number being the escape.
fn omegaconf_reads(text: &str) -> String {
    let mut parts = text.split("${");
    let mut read = parts.next().unwrap().to_owned();
    for part in parts {
        let kept = read.trim_end_matches('\\').len();
        let backslashes = read.len() - kept;
        assert_eq!(backslashes % 2, 1, "this would be replaced: {text}");
        read.truncate(kept + backslashes / 2);
        read = read + "${" + part;
    }
    read
}

#[test]
fn shell_values_are_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec(folder.path(), "job.yaml", "run: echo\n", "slurm");
    for (at, value) in HOSTILE_VALUES.iter().enumerate() {
        spec.options
            .envs
            .insert(format!("V{at}"), (*value).to_owned());
    }
    let config = JobConfig::new(&spec, true);
    // What is in the project folder is copied there, and of a folder that a config names what Oumi copies.
    assert_eq!(
        config.document["working_dir"],
        json!(folder.path().join(""))
    );
    let named = format!("working_dir: {}\nrun: echo\n", folder.path().display());
    let named = self::spec(folder.path(), "named.yaml", &named, "slurm");
    assert_eq!(
        JobConfig::new(&named, true).document["working_dir"],
        json!(folder.path())
    );
    for (at, value) in HOSTILE_VALUES.iter().enumerate() {
        let written = config.document["envs"][format!("V{at}")].as_str().unwrap();
        let script = format!("export V={written}\nprintf %s \"$V\"");
        let output = Command::new("bash").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), *value);
    }
}

#[test]
fn training_configs_run_by_their_path() {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join(".local/bin");
    std::fs::create_dir_all(&bin).unwrap();
    let script = "#!/bin/sh\nfor a; do printf '[%s]' \"$a\"; done\n";
    executable(&bin.join("oumi"), script);
    for name in [
        "c.yaml",
        "with space/it's $HOME \"x\".yaml",
        "-c.yaml",
        "schlüssel\nneue zeile.yaml",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path(), name, "model: {}\n", "gcp");
        let config = JobConfig::new(&spec, false);
        let output = Command::new("bash")
            .args(["-c", run_script(&config)])
            .env("HOME", home.path())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let expected = if name.starts_with('-') {
            format!("./{name}")
        } else {
            name.to_owned()
        };
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("[train][-c][{expected}]")
        );
    }
}

#[test]
fn clusters_without_oumi_are_reported() {
    let home = tempfile::tempdir().unwrap();
    let spec = spec(home.path(), "c.yaml", "model: {}\n", "gcp");
    let config = JobConfig::new(&spec, false);
    let script = run_script(&config);
    let output = Command::new("bash")
        .args(["-c", script])
        .env("HOME", home.path())
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("oumi was not found on this cluster")
    );
}

#[test]
fn several_gpus_or_nodes_run_through_torchrun() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec(folder.path(), "c.yaml", "model: {}\n", "gcp");
    let distributed = |spec: &LaunchSpec| {
        run_script(&JobConfig::new(spec, false)).contains("torchrun -m oumi train -c c.yaml")
    };
    assert!(!distributed(&spec));
    for (accelerators, expected) in [("A100", false), ("A100:1", false), ("A100:8", true)] {
        spec.options.accelerators = Some(accelerators.into());
        assert_eq!(distributed(&spec), expected, "{accelerators}");
    }
    spec.options = LaunchOptions {
        num_nodes: Some(2),
        ..LaunchOptions::default()
    };
    assert!(distributed(&spec));
    // Where Oumi submits the script itself, that runs on the first machine alone.
    for (cloud, starter) in [
        ("gcp", ""),
        (
            "slurm",
            "srun --ntasks-per-node=1 --export=ALL --cpu-bind=none ",
        ),
        ("polaris", "mpiexec -n 2 --ppn 1 "),
    ] {
        spec.identity.cloud = cloud.into();
        let started = format!("\n{starter}oumi distributed torchrun");
        assert!(run_script(&JobConfig::new(&spec, false)).contains(&started));
    }
    for command in ["eval", "infer", "synth", "analyze", "tune", "quantize"] {
        spec.command = OumiCommand::parse(command).unwrap();
        assert!(!run_script(&JobConfig::new(&spec, false)).contains("torchrun"));
    }
}

#[test]
fn configs_outside_the_project_are_mounted() {
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec(elsewhere.path(), "c.yaml", "model: {}\n", "gcp");
    spec.client_cwd = folder.path().to_owned();
    let config = JobConfig::new(&spec, false);
    assert_eq!(
        config.document["file_mounts"]["~/oumi-mcp-job-1.yaml"],
        elsewhere.path().join("c.yaml").to_str().unwrap()
    );
    assert!(run_script(&config).contains("-c \"$HOME\"/oumi-mcp-job-1.yaml"));
}

/// Returns exit code and output of a script, which reads `in` from its standard input.
fn run_in_bash(script: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in"), "in\n").unwrap();
    std::fs::write(folder.path().join("run.sh"), script).unwrap();
    let input = std::fs::File::open(folder.path().join("in")).unwrap();
    let mut command = Command::new("bash");
    let output = command
        .arg("run.sh")
        .current_dir(folder.path())
        .stdin(input)
        .output();
    let output = output.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

#[test]
fn time_limit_leaves_a_script_as_it_is() {
    for script in [
        "#!/bin/bash\n#SBATCH --time=1\n\necho \"it's $((1 + 1))\" '$x' `echo a` \\\n  b\n",
        "cat <<'EOF' | tr a b\na $HOME \"'\nEOF\ncat <<EOF\n$(echo \"(\")\nEND_OF_RUN\nEOF\nexit 3",
        "set -e\ncat\nfalse\necho never",
        "f() { echo \"$1\"; }; f 'two  words'; x=(1 2); echo ${x[1]} ${#x[@]}; [[ a == a ]] && exit 124",
        "# only a comment\n",
        "echo ä 鍵; printf '\\\\n\\t%s' '\\'",
    ] {
        let limited = limit_run(script, 60);
        assert_eq!(run_in_bash(&limited), run_in_bash(script), "{limited}");
    }
    let limited = limit_run("#SBATCH -n 1\nsleep 60 & sleep 60\n", 1);
    assert!(
        limited.starts_with("#SBATCH -n 1\nSECONDS=0\n"),
        "{limited}"
    );
    let (code, printed) = run_in_bash(&limited);
    assert_eq!(
        (code, printed.as_str()),
        (Some(124), "time limit: ended after 0.0003 h\n")
    );
}

#[test]
fn time_limit_is_put_around_both_kinds_of_configs() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["run: echo hi\n", "model: {model_name: tiny}\n"] {
        let mut spec = spec(folder.path(), "job.yaml", text, "gcp");
        spec.options.max_hours = Some(3.0);
        let config = JobConfig::new(&spec, false);
        let run = run_script(&config);
        assert!(run.contains("timeout -k 30 10800 bash /dev/fd/3"), "{run}");
        assert!(run.contains("echo 'time limit: ended after 3 h'"), "{run}");
    }
    let mut spec = spec(folder.path(), "job.yaml", "setup: echo hi\n", "gcp");
    spec.options.max_hours = Some(1.0);
    let config = JobConfig::new(&spec, false);
    assert!(config.warnings[0].contains("`max_hours` has no effect"));
}
