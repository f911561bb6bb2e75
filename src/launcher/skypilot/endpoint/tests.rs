use std::fs;

use super::{api_server, loopback, warnings};

#[test]
fn only_plain_http_to_this_machine() {
    let address = |url: &str| loopback(url).map(|address| address.to_string());
    for url in [
        "http://127.0.0.1:46580",
        "http://localhost:46580/",
        "http://127.0.0.1:46580//",
    ] {
        assert_eq!(address(url).as_deref(), Some("127.0.0.1:46580"), "{url}");
    }
    for url in [
        "",
        "https://127.0.0.1:46580",
        "http://127.0.0.1",
        "http://127.0.0.1:46580/prefix",
        "http://user:password@127.0.0.1:46580",
        "http://127.0.0.1:46580@example.org",
        "http://0.0.0.0:46580",
        "http://10.0.0.7:46580",
        "http://localhost.example.org:46580",
        "http://sky.example.org:46580",
        "127.0.0.1:46580",
    ] {
        assert_eq!(address(url), None, "{url}");
    }
}

#[test]
fn unreadable_configuration_may_name_another_server() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    let endpoint = |text: &str| {
        fs::write(&config, text).unwrap();
        api_server(&config).map(|server| server.endpoint)
    };
    for text in [
        "",
        "\n",
        "# nothing\n",
        "aws: {vpc_name: x}\n",
        "api_server:\n  requests_gc_retention_hours: 1\n",
    ] {
        assert_eq!(endpoint(text), Some(None), "{text}");
    }
    let named = "allowed_clouds: [aws]\napi_server:\n  endpoint: https://sky.example.org\n";
    assert_eq!(
        endpoint(named),
        Some(Some("https://sky.example.org".to_owned()))
    );
    for text in [
        "api_server: [",
        "api_server: 7",
        "api_server: {endpoint: [a]}",
        "- a\n",
    ] {
        assert_eq!(endpoint(text), None, "{text}");
    }
    fs::write(&config, "api_server: {service_account_token: sky_x}").unwrap();
    assert!(api_server(&config).unwrap().service_account_token.is_some());
    fs::remove_file(&config).unwrap();
    assert!(api_server(&config).unwrap().endpoint.is_none());
    fs::create_dir(&config).unwrap();
    assert!(api_server(&config).is_none());
}

#[test]
fn configuration_of_the_project_is_named() {
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join(".sky.yaml"), "aws: {}\n").unwrap();
    let warnings = warnings(project.path()).join("\n");
    assert!(warnings.contains(".sky.yaml"), "{warnings}");
}
