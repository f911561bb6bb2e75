use super::*;

fn read(text: impl AsRef<[u8]>) -> Result<Config, JobError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.yaml"), text).unwrap();
    Config::read("c.yaml", folder.path())
}

#[test]
fn training_configs_keep_anchors_and_interpolation() {
    let config = read(
        "base: &base {torch_dtype_str: float32}\nmodel:\n  <<: *base\n  model_name: ${oc.env:MODEL}\n\
         training:\n  output_dir: out/${run}\n  max_grad_norm: .inf\n  learning_rate: 1e-3\n  1: odd key\n",
    )
    .unwrap();
    assert!(!config.is_job);
    assert_eq!(config.model_name, "${oc.env:MODEL}");
    assert_eq!(config.output_dir, "out/${run}");
}

#[test]
fn job_configs_have_one_of_three_keys() {
    for key in ["resources: {cloud: gcp}", "setup: echo", "run: echo"] {
        assert!(read(key).unwrap().is_job, "{key}");
    }
}

#[test]
fn nothing_is_made_up_for_what_a_config_lacks() {
    let config = read("data: {}").unwrap();
    assert_eq!(
        (config.model_name.as_str(), config.output_dir.as_str()),
        ("unknown", "")
    );
    for (text, output_dir) in [
        ("output_dir: o", "o"),
        ("model: {}\noutput_path: p", "p"),
        ("output_dir: o\ntraining: {output_dir: t}", "t"),
        ("tuning: {output_dir: t}", "t"),
    ] {
        assert_eq!(read(text).unwrap().output_dir, output_dir, "{text}");
    }
    let synthesis = read("inference_config: {model: {model_name: m}}");
    assert_eq!(synthesis.unwrap().model_name, "m");
}

#[test]
fn numbers_and_switches_are_read_as_oumi_reads_them() {
    let config =
        read("run: x\na: 007\nb: 010\nc: yes\nd: off\ne: ~\nf: '010'\ng: 1_000\n").unwrap();
    let read = serde_json::json!({
        "run": "x", "a": 7, "b": 8, "c": true, "d": false, "e": null, "f": "010", "g": 1000,
    });
    assert_eq!(serde_json::Value::Object(config.document), read);
}

#[test]
fn the_cloud_of_a_config_has_many_spellings() {
    for (resources, cloud) in [
        ("{cloud: GCP}", Some("gcp")),
        ("{infra: aws/us-east-1}", Some("aws")),
        ("{infra: kubernetes/my-context}", Some("k8s")),
        ("{infra: '*/*/us-east-1a'}", None),
        ("{any_of: [{infra: lambda}, {infra: gcp}]}", Some("lambda")),
        ("{ordered: [{cloud: azure}]}", Some("azure")),
        ("{accelerators: 'A100:8'}", None),
        ("null", None),
    ] {
        let config = read(format!("resources: {resources}\nrun: x\n")).unwrap();
        assert_eq!(config.cloud().as_deref(), cloud, "{resources}");
    }
}

#[test]
fn what_is_no_file_gets_a_sentence_with_the_remedy() {
    for (config_path, remedy) in [
        (
            "oumi://configs/recipes/x/train.yaml",
            "run `oumi fetch oumi://configs/recipes/x/train.yaml`",
        ),
        ("OUMI://a.yaml", "oumi fetch"),
        (
            "file:///home/me/a.yaml",
            "pass the path alone: /home/me/a.yaml",
        ),
        ("https://example.com/a.yaml", "download it"),
    ] {
        let error = project_folder("/tmp", config_path).unwrap_err().to_string();
        assert!(
            error.contains("no file on this machine") && error.contains(remedy),
            "{error}"
        );
    }
    let alias = Config::read("llama3.1-8b-lora", std::env::temp_dir().as_path());
    assert!(alias.unwrap_err().to_string().contains("alias"));
}

#[test]
fn the_project_folder_may_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("a.yaml");
    let config = config.to_str().unwrap();
    assert_eq!(project_folder("", config).unwrap(), folder.path());
    assert_eq!(project_folder(" ", config).unwrap(), folder.path());
    assert_eq!(project_folder("/tmp", config).unwrap(), Path::new("/tmp"));
    for (client_cwd, config_path, error) in [
        ("", "a.yaml", "missing"),
        ("relative", config, "absolute"),
        ("/none/such", config, "not a folder"),
    ] {
        let refused = project_folder(client_cwd, config_path)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(error) && refused.contains("client_cwd"),
            "{refused}"
        );
    }
}

#[test]
fn other_files_are_refused_with_the_reason() {
    for (text, reason) in [
        (&b""[..], "empty"),
        (b"# nothing\n", "empty"),
        (b"- a\n- b\n", "mapping"),
        (b"just text", "mapping"),
        (b"a: [1", "not usable"),
        (b"a: 1\nname: job\n", "none of the keys"),
        (b"run: a\nrun: b\n", "key `run` is not allowed here at line 2"),
        (b"run: a\n---\nrun: b\n", "only single YAML document expected"),
        (b"run: a\nenvs: {A: 1, A: 2}\n", "duplicate"),
        (b"run: a\n\"run\": b\n", "duplicate"),
        (b"run: a\nx: [{y: {z: 1, z: 2}}]\n", "duplicate"),
        (b"run: \xff\xfe\n", "UTF-8"),
        (b"\xff\xfer\0u\0n\0:\0 \0x\0\n\0", "UTF-8"),
        (b"run: a\0b\n", "not usable"),
        (b"run: \"a\x1b[31mb\n", "not usable"),
        (b"run:\n\t- a\n", "not usable"),
        (b"run: !!python/object/apply:os.system [\"touch pwned\"]\n", "tag"),
        (b"run: !!python/name:os.system\n", "tag"),
        (b"!!python/object:collections.OrderedDict\nrun: x\n", "tag"),
        (b"run: !<tag:yaml.org,2002:python/object/apply:os.system> [\"touch pwned\"]\n", "tag"),
        (b"%TAG !p! tag:yaml.org,2002:python/\n---\nrun: !p!object/apply:os.system [\"touch pwned\"]\n", "tag"),
        (b"run: !include /etc/passwd\n", "tag"),
        (b"run: !ENV ${HOME}\n", "tag"),
    ] {
        let error = read(text).unwrap_err().to_string();
        let name = String::from_utf8_lossy(text);
        assert!(error.contains("c.yaml") && error.contains(reason), "{name}: {error}");
    }
    // The tags of YAML itself are no danger.
    read("run: !!str 1\nnum_nodes: !!int 1\nx: !!float 1\ny: !!map {a: !!seq [!!null null, !!bool true]}\n").unwrap();
}

#[test]
fn bombs_are_refused() {
    let mut aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (new, old) in ('b'..='z').zip('a'..='y') {
        aliases +=
            &format!("{new}: &{new} [*{old},*{old},*{old},*{old},*{old},*{old},*{old},*{old}]\n");
    }
    let error = read(&aliases).unwrap_err().to_string();
    assert!(error.contains("nests more than a config does"), "{error}");
    assert!(read("[".repeat(100_000)).is_err());
}

#[test]
fn unusable_paths_are_refused() {
    let large = read("# a comment\n".repeat(100_000))
        .unwrap_err()
        .to_string();
    assert!(large.contains("larger than 1024 KiB"), "{large}");
    let folder = tempfile::tempdir().unwrap();
    let cwd = folder.path();
    assert!(
        Config::read("none.yaml", cwd)
            .unwrap_err()
            .to_string()
            .contains("none.yaml")
    );
    assert!(
        Config::read(".", cwd)
            .unwrap_err()
            .to_string()
            .contains("not a file")
    );
}

#[test]
fn commands_parse_in_any_case() {
    assert_eq!(OumiCommand::parse(" Eval ").unwrap().subcommand, "evaluate");
    assert_eq!(
        OumiCommand::parse("synth").unwrap().subcommand,
        "synthesize"
    );
    let error = OumiCommand::parse("rm -rf").unwrap_err().to_string();
    assert!(error.contains("train, evaluate, eval"), "{error}");
}

#[test]
fn envs_are_what_oumi_makes_of_them() {
    for (written, text) in [
        ("007", "7"),
        ("'007'", "007"),
        ("08", "08"),
        ("1_000", "1000"),
        ("+5", "5"),
        ("0x1F", "31"),
        ("-0b11", "-3"),
        ("0o17", "0o17"),
        ("-0o17", "-0o17"),
        ("0X1F", "0X1F"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("yes", "True"),
        ("OFF", "False"),
        ("true", "True"),
        ("'true'", "true"),
        ("y", "y"),
        ("3.10", "3.10"),
        ("1e-5", "1e-5"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("plain words", "plain words"),
        ("|\n    010", "010\n"),
        ("*a", "16"),
    ] {
        let config = format!("anchor: &a 0x10\nenvs:\n  A: {written}\n  NONE:\n");
        let document = parse(config.as_bytes()).unwrap();
        let expected = serde_json::json!({"A": text, "NONE": null});
        assert_eq!(document["envs"], expected, "{written}");
    }
}
