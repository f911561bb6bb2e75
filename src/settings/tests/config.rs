use super::*;

fn read(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.yaml"), text).unwrap();
    Config::read("c.yaml", folder.path().to_str().unwrap())
}

#[test]
fn training_configs_keep_anchors_and_interpolation() {
    let config = read(
        "base: &base {torch_dtype_str: float32}\nmodel:\n  <<: *base\n  model_name: ${oc.env:MODEL}\n\
         training:\n  output_dir: out/${run}\n  max_grad_norm: .inf\n  learning_rate: 1e-3\n  1: odd key\n",
    )
    .unwrap();
    assert_eq!(config.kind, ConfigKind::Training);
    assert_eq!(config.model_name, "${oc.env:MODEL}");
    assert_eq!(config.output_dir, "out/${run}");
}

#[test]
fn job_configs_have_one_of_three_keys() {
    for key in ["resources: {cloud: gcp}", "setup: echo", "run: echo"] {
        assert_eq!(read(key).unwrap().kind, ConfigKind::Job, "{key}");
    }
}

#[test]
fn defaults_are_the_references() {
    let config = read("data: {}").unwrap();
    assert_eq!(
        (config.model_name.as_str(), config.output_dir.as_str()),
        ("unknown", "./output")
    );
    assert_eq!(read("output_dir: o").unwrap().output_dir, "o");
}

#[test]
fn other_files_are_refused_with_the_reason() {
    for (text, reason) in [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- a\n- b\n", "mapping"),
        ("just text", "mapping"),
        ("a: [1", "not usable"),
        ("a: 1\na: 2\n", "not usable"),
    ] {
        let said = read(text).unwrap_err().to_string();
        assert!(said.contains(reason), "{text:?}: {said}");
    }
}

#[test]
fn bombs_are_refused() {
    let mut aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (new, old) in ('b'..='z').zip('a'..='y') {
        aliases +=
            &format!("{new}: &{new} [*{old},*{old},*{old},*{old},*{old},*{old},*{old},*{old}]\n");
    }
    let error = read(&aliases).unwrap_err().to_string();
    assert!(error.contains("more than a config does"), "{error}");
    assert!(read(&"[".repeat(100_000)).is_err());
}

#[test]
fn unusable_paths_are_refused() {
    assert!(
        Config::read("c.yaml", "relative")
            .unwrap_err()
            .to_string()
            .contains("absolute")
    );
    let large = read(&"# a comment\n".repeat(100_000))
        .unwrap_err()
        .to_string();
    assert!(large.contains("larger than 1024 KiB"), "{large}");
    let folder = tempfile::tempdir().unwrap();
    let cwd = folder.path().to_str().unwrap();
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
    assert_eq!(
        OumiCommand::parse(" Eval ").unwrap().subcommand(),
        "evaluate"
    );
    assert_eq!(
        OumiCommand::parse("synth").unwrap().subcommand(),
        "synthesize"
    );
    assert_eq!(OumiCommand::parse("rm -rf"), None);
}
